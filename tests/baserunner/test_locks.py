"""The update lock: ours to take and release, someone else's to respect."""

from __future__ import annotations

from pathlib import Path

import pytest

from baserunner.locks import UpdateLock
from baserunner.problems import LockProblem


def test_taking_it_twice_is_holding_it_once(tmp_path: Path) -> None:
    lock = UpdateLock(tmp_path)

    lock.take()
    lock.take()

    assert (tmp_path / "updates.lock").exists()
    assert lock.is_ours()


def test_a_later_run_of_the_agent_knows_its_own_lock(tmp_path: Path) -> None:
    UpdateLock(tmp_path).take()

    UpdateLock(tmp_path).release()

    assert not (tmp_path / "updates.lock").exists()


def test_a_lock_of_someone_else_is_not_released(tmp_path: Path) -> None:
    (tmp_path / "updates.lock").write_text("a backup is running")
    lock = UpdateLock(tmp_path)

    lock.take()
    lock.release()

    assert (tmp_path / "updates.lock").read_text() == "a backup is running"
    assert not lock.is_ours()


def test_a_lock_cut_short_by_a_power_cut_is_ours(tmp_path: Path) -> None:
    (tmp_path / "updates.lock").touch()

    UpdateLock(tmp_path).release()

    assert not (tmp_path / "updates.lock").exists()


def test_releasing_what_is_not_held_is_nothing(tmp_path: Path) -> None:
    UpdateLock(tmp_path).release()


def test_a_lock_directory_that_cannot_be_written_is_a_problem_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LockProblem, match="cannot take the update lock"):
        UpdateLock(tmp_path / "file" / "below").take()
