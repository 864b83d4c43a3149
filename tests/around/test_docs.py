"""The pages that come from code equal the code, and a page that does not is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def docs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.docs", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pages_equal_the_code() -> None:
    compared = docs("--check")

    assert compared.returncode == 0, compared.stderr


def test_a_page_that_is_stale_missing_or_of_no_model_any_more_is_named(tmp_path: Path) -> None:
    docs("--to", str(tmp_path))
    (tmp_path / "machines.md").write_text("# The machines\n", encoding="utf-8")
    (tmp_path / "schema" / "problem.json").unlink()
    (tmp_path / "schema" / "a-model-of-yesterday.json").write_text("{}", encoding="utf-8")

    compared = docs("--check", "--to", str(tmp_path))

    assert compared.returncode == 1
    complaints = compared.stderr.splitlines()
    assert len(complaints) == 3
    assert "machines.md differs" in complaints[0]
    assert "problem.json differs" in complaints[1]
    assert "a-model-of-yesterday.json belongs to no model" in complaints[2]


def test_writing_twice_gives_the_same_pages(tmp_path: Path) -> None:
    docs("--to", str(tmp_path / "one"))
    docs("--to", str(tmp_path / "two"))

    one, two = (
        {page.relative_to(tmp_path / name): page.read_text() for page in files}
        for name in ("one", "two")
        for files in [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())]
    )

    assert one
    assert list(one.values()) == list(two.values())
