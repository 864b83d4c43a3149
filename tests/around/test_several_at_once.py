"""Several tests at once: what `tests/conftest.py` promises of those that must be alone, and of their order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TREE = """
import os, time
from pathlib import Path
import pytest

LOG = Path(__file__).with_name("log")

def happens(name, looks=PATIENCE):
    with LOG.open("a") as log:
        log.write(f"begin {name}\\n")
    for _ in range(looks):  # until there is company, or for a while
        time.sleep(0.02)
        if LOG.read_text().splitlines()[-1] != f"begin {name}":
            break
    with LOG.open("a") as log:
        log.write(f"end {name}\\n")

@pytest.mark.parametrize("n", range(8))
def test_plain(n): happens(f"plain-{n}")

@pytest.mark.slow
def test_slow(): happens("slow")

@MARK
@pytest.mark.slow
@pytest.mark.parametrize("n", range(3))
def test_alone(n): happens(f"alone-{n}", LOOKS)
"""


def lived(tree: Path, mark: str, *options: str) -> list[str]:
    """What happened, line by line."""
    patience = "100" if options else "1"
    looks = "20" if mark == "alone" else patience  # for what must not come, a moment
    text = TREE
    for word, value in {
        "@MARK": f"@pytest.mark.{mark}",
        "LOOKS": looks,
        "PATIENCE": patience,
    }.items():
        text = text.replace(word, value)
    shutil.copy(ROOT / "tests" / "conftest.py", tree)
    (tree / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    alone\n    none\n")
    (tree / "test_tree.py").write_text(text)
    ours = ("PYTEST_", "TMPDIR")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=tree,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "12 passed" in done.stdout, done.stdout + done.stderr
    return (tree / "log").read_text().splitlines()


def in_company(lines: list[str]) -> set[str]:
    """Tests during which another one ran."""
    begins = {line[6:]: at for at, line in enumerate(lines) if line.startswith("begin ")}
    ends = {line[4:]: at for at, line in enumerate(lines) if line.startswith("end ")}
    return {
        one
        for one in begins
        for other in begins
        if one != other and begins[one] < ends[other] and begins[other] < ends[one]
    }


@pytest.mark.slow
def test_while_one_is_alone_no_other_runs_and_the_rest_run_side_by_side(tmp_path: Path) -> None:
    seen = in_company(lived(tmp_path, "alone", "-n", "2", "--dist", "worksteal"))

    assert any(name.startswith("plain") for name in seen)
    assert not any(name.startswith("alone") for name in seen)


@pytest.mark.slow
def test_without_the_mark_it_has_company(tmp_path: Path) -> None:
    seen = in_company(lived(tmp_path, "none", "-n", "2", "--dist", "worksteal"))

    assert any(name.startswith("alone") for name in seen)


@pytest.mark.slow
def test_what_is_slow_begins_first(tmp_path: Path) -> None:
    begun = [line[6:] for line in lived(tmp_path, "alone") if line.startswith("begin ")]

    assert begun[:4] == ["alone-0", "alone-1", "alone-2", "slow"]
