"""SIGKILL, for real: at every point around every commit, and at any moment; no acknowledged fact is lost.

The victim prints a fact's number when `record` has returned: that is the acknowledgement. The planted defect prints it
before, and must be caught.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from journal.facts import Lane
from journal.recall import recall
from journal.verify import verify
from tests.journal.given import MACHINE, open_at

VICTIM = """
import os, pathlib, signal, sys
import tests.journal.given as given
from journal.facts import Lane
from journal.recall import recall
place, die_at, defect = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "ack-first"
passed = 0

def point(at):
    global passed
    passed += 1
    if passed == die_at:
        print("died at", at, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

def say(seq):
    print(seq, flush=True)

journal = given.open_at(place, points=point)
while True:
    open_now = [info.name for info in journal.open_streams() if info.lane is Lane.CORE]
    name = open_now[0] if open_now else journal.next_stream_name("app-update")
    stream = recall(journal, name, given.MACHINE)
    while not stream.ended:
        if defect:
            say(journal.head(Lane.CORE).seq + 1)
        stream.record(given.CHART.allowed(stream.state)[0] if stream.state != "applying" else "succeeded",
                      {"release": "2"})
        if not defect:
            say(journal.head(Lane.CORE).seq)
        journal.note(name, "progressed", {"percent": 1})
    journal.ack(Lane.LOG, *journal.durable_head(Lane.LOG))
    journal.trim(keep=2, step=4)
    if die_at > 0 and passed > die_at:
        sys.exit("the fault did not fire")
"""


class Seen(NamedTuple):
    acknowledged: int
    there: int
    died_at: str


def after(place: Path, acknowledged: int, died_at: str) -> Seen:
    """Open again as the next life does: everything hangs together, and the story goes on."""
    with open_at(place) as journal:
        assert verify(journal).ok
        for info in journal.open_streams():
            if info.lane is Lane.CORE:
                assert recall(journal, info.name, MACHINE).facts > 0
        return Seen(acknowledged, journal.head(Lane.CORE).seq, died_at)


def killed_at(place: Path, point: int, how: str = "right") -> Seen:
    run = subprocess.run(
        [sys.executable, "-c", VICTIM, str(place), str(point), how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run
    *acks, last = run.stdout.splitlines()
    assert last.startswith("died at"), run
    return after(place, max((int(ack) for ack in acks), default=0), last)


def killed_while_running(place: Path, acks: int) -> Seen:
    """Killed from outside at some instant behind the given number of acknowledgements."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(place), "-1", "right"], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    heard = [victim.stdout.readline() for _ in range(acks)]
    victim.kill()
    heard += victim.stdout.read().splitlines()
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    return after(place, max(int(ack) for ack in heard if ack.strip()), "some instant")


def test_a_kill_behind_the_commit_keeps_the_fact_and_one_before_it_does_not(place: Path) -> None:
    before = killed_at(place, 1)
    behind = killed_at(place, 2)

    assert (before.died_at, before.there) == ("died at before-commit:offered", 0)
    assert (behind.died_at, behind.there) == ("died at after-commit:offered", 1)


def test_this_harness_turns_red_when_facts_are_acknowledged_before_the_commit(place: Path) -> None:
    seen = killed_at(place, 1, "ack-first")

    assert seen.acknowledged > seen.there


@pytest.mark.slow
@pytest.mark.parametrize("point", range(1, 33))
def test_killed_at_any_point_nothing_acknowledged_is_lost(place: Path, point: int) -> None:
    seen = killed_at(place, point)

    # One more than acknowledged may be there: committed, and the process died before it could say so.
    assert seen.acknowledged <= seen.there <= seen.acknowledged + 1


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment_nothing_acknowledged_is_lost(place: Path) -> None:
    last = 0
    for life in range(40):
        seen = killed_while_running(place, acks=1 + 7 * life % 23)

        assert seen.acknowledged > last, "the victim made no progress: nothing was tested"
        assert seen.acknowledged <= seen.there <= seen.acknowledged + 1
        last = seen.there
