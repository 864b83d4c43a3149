"""`cloudly`, where tests/cloudly does not look: what a person sees who mistypes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def cloudly(*words: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloudly", *words, "--data-dir", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_mistyped_directory_does_not_look_like_an_empty_fleet_only(tmp_path: Path) -> None:
    first, second = (cloudly("node", "list", data=tmp_path / "typo") for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0)
    assert "had no database" in first.stderr
    assert second.stderr == ""


def test_a_directory_that_cannot_be_is_named_without_an_errno(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = cloudly("node", "list", data=tmp_path / "file")

    assert done.returncode == 1
    assert done.stderr == f"cloudly: {tmp_path / 'file'}: File exists\n"


def test_help_and_version_are_where_baserunner_has_them() -> None:
    for words in (["-h"], ["--version"], ["node", "-h"]):
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert "cloudly" in done.stdout
