"""What the agent keeps: its own words are in the limits, and a full disk is said, and lived with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from baserunner.app_update import machine as app_update
from baserunner.attempt_log import KIND
from baserunner.heartbeat import machine as heartbeat
from baserunner.retention import LIMITS, make_room, retain
from baserunner.updates import REMEMBERED_ATTEMPTS
from journal.facts import Lane
from journal.journal import Journal
from journal.problems import NoSpace
from journal.recall import recall
from tests.journal.given import EPOCH, ticking
from tests.journal.test_full_disk import fill


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MiB; it says ENOSPC as ext4 does (reliability note)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "journal-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root with CAP_SYS_ADMIN")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def open_at(place: Path) -> Journal:
    return Journal.open(place, stamp=ticking(), new_epoch=lambda: EPOCH)


def beats(journal: Journal, count: int, *, stream: str = "heartbeat/1") -> None:
    run = recall(journal, stream, heartbeat.MACHINE)
    if run.state == "new":
        run.record("run-started", {"agent_version": "1"}, soon=True)
    answered = {"next_s": 300.0, "generation": 7, "incarnation": "x" * 32}
    for _ in range(count):
        if run.state != "sending":
            run.record("heartbeat-sent", soon=True)
        run.record("heartbeat-answered", answered, soon=True)


def beat_and_ship_until_told(journal: Journal) -> None:
    for _ in range(500):
        beats(journal, 100)
        journal.sync()
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))


def test_the_words_in_the_limits_are_this_agents_words() -> None:
    assert set(app_update.CHART.states) >= LIMITS.failed
    assert app_update.CHART.final & LIMITS.failed == {"failed", "rolled-back"}
    assert KIND not in LIMITS.progress
    assert LIMITS.keep_attempts >= REMEMBERED_ATTEMPTS, "a deployment is attempted once"


def test_a_run_whose_beginning_was_forgotten_believes_what_it_did(tmp_path: Path) -> None:
    with open_at(tmp_path) as journal:
        beats(journal, 1_500)
        journal.sync()
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))
        before = recall(journal, "heartbeat/1", heartbeat.MACHINE)

        assert retain(journal).forgotten == 500

        after = recall(journal, "heartbeat/1", heartbeat.MACHINE)
        assert (after.state, after.believed) == (before.state, before.believed)
        assert after.facts < before.facts


def test_on_a_full_disk_the_agent_says_so_and_goes_on_with_what_it_forgot(
    small_disk: Path,
) -> None:
    journal = open_at(small_disk)
    fill(small_disk)
    with pytest.raises(NoSpace):  # when its free pages and the disk are used up
        beat_and_ship_until_told(journal)

    assert make_room(journal)

    assert [fact.kind for fact in journal.facts(lane=Lane.LOG)].count("disk-full") == 1
    beats(journal, 1_000)
    assert not make_room(journal), "the reserve is spent once"
    journal.close()
