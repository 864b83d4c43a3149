"""In which order tests begin, and which of them have the machine to themselves, when several run at once (`pytest -n`).

Rules
- Those marked `slow` begin first: otherwise one core waits in the end for another one's long story.
- A test marked `alone` measures the machine (its memory, how soon it answers): while it runs, no other test does.
- Files lie in memory where there is room: stories of virtual days sync thousands of times, and no test here can tell a
  sync that reached a disk from one that did not. Whether a sync was asked for is what the harnesses watch that count
  calls, and those that cut the power of an ext4 of their own. TMPDIR=/tmp puts them on a disk.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"  # noqa: S108 - directories of our own are made there
ROOM_BYTES = 2 << 30
"""Twenty times what a whole run on two cores held at once; what fails is kept until three runs later."""

# Locks on what is there anyway: nothing is left behind, and two runs of one tree respect each other too.
TURNSTILE = os.open(Path(__file__).parent, os.O_RDONLY)
MACHINE = os.open(__file__, os.O_RDONLY)
held = [TURNSTILE, MACHINE]


def _forget_the_locks() -> None:
    """A forked process that outlives a run which was killed must not hold up the next one."""
    while held:  # empty in a child's child
        os.close(held.pop())


os.register_at_fork(after_in_child=_forget_the_locks)


def pytest_configure() -> None:
    """Before the first directory is made; workers and the programs that tests start inherit it."""
    if "TMPDIR" not in os.environ and _there_is_room(MEMORY):
        os.environ["TMPDIR"] = MEMORY
        tempfile.tempdir = None


def _there_is_room(place: str) -> bool:
    try:
        about = os.statvfs(place)
    except OSError:
        return False
    runs_programs = not about.f_flag & os.ST_NOEXEC  # tests write some, and start them
    room = about.f_bavail * about.f_frsize >= ROOM_BYTES
    return runs_programs and room and os.access(place, os.W_OK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (not _is(item, "alone"), not _is(item, "slow")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    # Who waits for the machine holds the turnstile: nobody overtakes them.
    fcntl.flock(TURNSTILE, fcntl.LOCK_EX)
    fcntl.flock(MACHINE, fcntl.LOCK_EX if _is(item, "alone") else fcntl.LOCK_SH)
    fcntl.flock(TURNSTILE, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        fcntl.flock(MACHINE, fcntl.LOCK_UN)


def _is(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None
