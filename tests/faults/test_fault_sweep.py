"""A bounded share of the fault sweep (`make fault-sweep` is all of it), and the defects that turn it red."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SHARE = "32"
"""Every 32nd point of each errno: some 100 worlds, a quarter of a minute on a busy machine."""
AT_LEAST = 90


def sweep(*words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, outcomes, and what it said."""
    if shutil.which("cc") is None:
        pytest.skip("the failing disk is written in C, and there is no C compiler")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.run_sweep", "--json", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_disk_that_fails_at_any_call_loses_nothing_and_the_story_ends_right() -> None:
    code, outcomes, said = sweep("--every", SHARE)

    print(said)  # noqa: T201 - the seed
    assert code == 0, said
    assert len(outcomes) >= AT_LEAST
    assert {outcome["point"]["code"] for outcome in outcomes} == {5, 28, 30, 122}
    assert all(outcome["fired"] for outcome in outcomes)
    assert all(outcome["effects"] for outcome in outcomes)
    # Through the whole life of a journal: making it, growing its log, writing, syncing.
    failed = {outcome["failed"] for outcome in outcomes}
    assert {f"{call} baseos/journal.db-wal" for call in ("write", "sync")} <= failed
    assert "write baseos/journal.db.new" in failed


@pytest.mark.parametrize(
    ("plant", "points", "symptom"),
    [
        (
            "effect-before-intent",
            ["--point", "EIO:0:once"],
            "apply while app-update was durably staged",
        ),
        ("nothing-is-synced", ["--point", "EIO:0:once"], "a power cut would take"),
        (
            "what-was-found-is-not-written-again",
            ["--every", "20"],
            "a power cut would take",
        ),
        ("failed-commits-are-ignored", ["--every", "20"], ""),  # in one way or another
    ],
)
def test_a_planted_defect_turns_the_sweep_red(plant: str, points: list[str], symptom: str) -> None:
    code, outcomes, said = sweep("--plant", plant, *points)

    assert code == 1
    assert any(symptom in what for outcome in outcomes for what in outcome["wrong"]), said
