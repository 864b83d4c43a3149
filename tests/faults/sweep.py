"""The fault sweep: an enrollment and an app update, with a disk that fails at one call, for every call and every errno.

One point is one world in virtual time, in a process of its own that has the failing disk: Cloudly, a Supervisor and
the real agent, which is never restarted. The call fails once, or that call and all after it until two virtual minutes
have passed. Then the story must come to its right end by itself, with every acknowledged fact in the journal, and
nothing done to the world without a durable intent.

The journal's write-ahead log is small here, so that checkpoints come within the story.

`python -m tests.faults.run_sweep` is all of it; a bounded share takes every n-th point, from a seeded offset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from baserunner.agent import flat
from journal import connection, schema
from journal.facts import Lane
from journal.reader import open_reader
from journal.verify import verify
from simulators.world import run_virtual
from tests.faults.disk import FailingDisk
from tests.faults.plants import PLANTS
from tests.faults.witness import Watched, Witness
from tests.world.kit import Place, a_place

ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
BROKEN_S = 120.0
"""How long a disk stays broken that breaks for good: many tries to open the journal again."""
ENDS_WITHIN_S = 1800.0
STUCK_S = 60
"""A point that takes so much real time goes round in circles; it takes half a second."""
PAGES = 24
"""Of the write-ahead log, at a checkpoint."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where the disk fails. `nth` 0: it never does."""

    code: int
    nth: int
    for_good: bool

    def __str__(self) -> str:
        how = "until it heals" if self.for_good else "once"
        return f"{errno.errorcode[self.code]} {how} at call {self.nth}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one point showed."""

    point: Point
    calls: int
    fired: int
    failed: str
    """Which call it was."""
    facts: int
    effects: list[str]
    wrong: list[str]


def run(point: Point, plant: str = "") -> Outcome:
    """One world, from the first start of the agent to the end of its update."""
    root = Path(tempfile.mkdtemp(dir=_in_memory()))
    image = root / "after-a-power-cut"
    image.mkdir()
    disk = FailingDisk(root / "data-0", image, point.code)
    witness = Witness(root / "data-0" / "baseos", image)
    if point.nth:
        disk.will_fail(point.nth, for_good=point.for_good)
    leave = witness.attend()
    try:
        with PLANTS[plant](), _small_log(), _not_for_ever():
            run_virtual(lambda: _story(root, disk, witness))
    except* Exception as group:  # noqa: BLE001 - whatever it is: the point is not as it should be
        witness.wrong += [f"{type(problem).__name__}: {problem}"[:500] for problem in flat(group)]
    finally:
        leave()
        shutil.rmtree(root, ignore_errors=True)
    if point.nth and not disk.fired:
        witness.wrong.append("the fault did not fire")
    return Outcome(
        point=point,
        calls=disk.calls,
        fired=disk.fired,
        failed=disk.first_failed,
        facts=len(witness.acknowledged),
        effects=witness.effects,
        wrong=witness.wrong,
    )


async def _story(root: Path, disk: FailingDisk, witness: Witness) -> None:
    async with a_place(root, every_s=20.0) as place:
        place.to_supervisor.inner = Watched(place.to_supervisor.inner, witness)
        place.to_cloudly.inner = Watched(place.to_cloudly.inner, witness)
        place.start_agent()
        place.tasks.start_soon(_heal, place, disk)
        await place.until(lambda: witness.state("enrollment") == "enrolled", within_s=ENDS_WITHIN_S)
        place.set_release("1.0.0")
        await place.until(
            lambda: witness.state("app-update") == "succeeded", within_s=ENDS_WITHIN_S
        )
        await place.until(lambda: _is_shipped(place, witness), within_s=ENDS_WITHIN_S)
        await place.until(lambda: disk.is_well, within_s=ENDS_WITHIN_S)
        await place.until(lambda: _is_well(place), within_s=ENDS_WITHIN_S)
        witness.wrong += _at_the_end(place, witness)


async def _heal(place: Place, disk: FailingDisk) -> None:
    while not disk.fired:
        await place.world.sleep(0.25)
    await place.world.sleep(BROKEN_S)
    disk.heals()


def _is_well(place: Place) -> bool:
    return place.node().state == "online" and not place.status().problems


def _is_shipped(place: Place, witness: Witness) -> bool:
    core = [fact.seq for fact in witness.acknowledged.values() if fact.lane is Lane.CORE]
    return place.shipped_core() >= core[-1]


def _at_the_end(place: Place, witness: Witness) -> Iterator[str]:
    if lost := witness.lost():
        yield f"{len(lost)} acknowledged facts were lost: {', '.join(lost[:5])}"
    if place.agent_ended.is_set() or place.starts != 1:
        yield "the process ended"
    with open_reader(place.home) as reader:
        yield from (f"verify: {problem.what}" for problem in verify(reader).problems)
        machines = ("enrollment", "app-update")
        ends = {info.name: info.state for name in machines for info in reader.streams(name)}
    if ends != {"enrollment/1": "enrolled", "app-update/1": "succeeded"}:
        yield f"it ended as {ends}"
    if place.core_at_cloudly() != place.core_on_device():
        yield "Cloudly has another story"
    if (times := Counter(witness.effects)) and (times["download"] > 2 or times["apply"] > 2):
        yield f"the Supervisor was told again and again: {dict(times)}"


# -- the surroundings ------------------------------------------------------------------------------


@contextlib.contextmanager
def _small_log() -> Iterator[None]:
    before = connection.SETTINGS, connection.WAL_BYTES, schema.FREE_PAGES_BYTES
    connection.SETTINGS = tuple(
        (name, PAGES, PAGES) if name == "wal_autocheckpoint" else (name, value, seen)
        for name, value, seen in connection.SETTINGS
    )
    connection.WAL_BYTES, schema.FREE_PAGES_BYTES = (PAGES + 8) * 4096, 16 * 4096
    try:
        yield
    finally:
        connection.SETTINGS, connection.WAL_BYTES, schema.FREE_PAGES_BYTES = before


@contextlib.contextmanager
def _not_for_ever() -> Iterator[None]:
    def stuck(*_: object) -> None:
        raise TimeoutError(f"not at its end within {STUCK_S} real seconds")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(STUCK_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _in_memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a directory of its own is made there
