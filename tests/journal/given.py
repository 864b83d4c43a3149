"""What the stories of the journal begin with: a clock that only goes on, a small machine, a place."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact, Lane, Stamp
from journal.journal import Journal
from journal.recall import Machine

EPOCH = "00112233445566778899aabbccddeeff"
BOOT = "5f0c1e9e-6b57-4b0e-9a53-0c5a9d0f0001"

_waits = Waits("us", "something", 60.0, "something else", "go on")

CHART = Chart(
    name="app-update",
    initial="new",
    arrows=(
        Arrow("offered", "new", "offered"),
        Arrow("staged", "offered", "staged"),
        Arrow("apply-requested", "staged", "applying"),
        Arrow("asked-again", "applying", "applying"),
        Arrow("succeeded", "applying", "succeeded"),
        Arrow("failed", "applying", "failed"),
        Arrow("failed", "offered", "failed"),
    ),
    waits=dict.fromkeys(("new", "offered", "staged", "applying"), _waits),
    final=frozenset({"succeeded", "failed"}),
)


@dataclass(frozen=True)
class Update:
    release: str = ""
    asked: int = 0
    kinds: tuple[str, ...] = ()


def fold(believed: Update, fact: Fact) -> Update:
    kinds = (*believed.kinds, fact.kind)
    match fact.kind:
        case "offered":
            return replace(believed, kinds=kinds, release=fact.values["release"])
        case "asked-again":
            return replace(believed, kinds=kinds, asked=believed.asked + 1)
        case _:
            return replace(believed, kinds=kinds)


MACHINE = Machine(CHART, Update(), fold)

BEAT = Chart(
    name="heartbeat",
    lane=Lane.LOG,
    initial="resting",
    arrows=(
        Arrow("sent", "resting", "sending"),
        Arrow("answered", "sending", "resting"),
        Arrow("stopped", "resting", "ended"),
    ),
    waits=dict.fromkeys(("resting", "sending"), _waits),
    final=frozenset({"ended"}),
)
BEATING = Machine(BEAT, 0, lambda beats, fact: beats + (fact.kind == "answered"))

MACHINES: dict[str, Machine[Any]] = {"app-update": MACHINE, "heartbeat": BEATING}


def ticking() -> Callable[[], Stamp]:
    """A clock that goes on by a second at every look."""
    ticks = count(1)

    def stamp() -> Stamp:
        tick = next(ticks)
        return Stamp(1_700_000_000_000 + 1_000 * tick, BOOT, 1_000 * tick)

    return stamp


def open_at(
    place: Path, *, points: Callable[[str], None] | None = None, epoch: str = EPOCH
) -> Journal:
    if points is None:
        return Journal.open(place, stamp=ticking(), new_epoch=lambda: epoch)
    return Journal.open(place, stamp=ticking(), new_epoch=lambda: epoch, points=points)


def write_story(
    journal: Journal, *, attempt: int = 1, upto: int = 4, soon: bool = False
) -> list[Fact]:
    """A whole update, or its first facts."""
    story: tuple[tuple[str, str, str, dict[str, object]], ...] = (
        ("offered", "new", "offered", {"release": "2.0.0"}),
        ("staged", "offered", "staged", {}),
        ("apply-requested", "staged", "applying", {}),
        ("succeeded", "applying", "succeeded", {}),
    )
    name = f"app-update/{attempt}"
    return [
        journal.append(name, kind, src, dst, data, soon=soon, final=dst == "succeeded")
        for kind, src, dst, data in story[:upto]
    ]


def beat(journal: Journal, times: int, *, stream: str = "heartbeat/1") -> None:
    for _ in range(times):
        journal.append(stream, "sent", "resting", "sending", lane=Lane.LOG, soon=True)
        journal.append(stream, "answered", "sending", "resting", lane=Lane.LOG, soon=True)


def everything(journal: Journal) -> list[Fact]:
    return journal.facts()


def copy_as_killed(place: Path, to: Path) -> Path:
    """The bytes that a killed process leaves: the database and its WAL; shared memory is rebuilt from them.

    It opens the database by other means than SQLite, so the journal in `place` must not be written to any more.
    """
    to.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        if (place / name).exists():
            shutil.copy(place / name, to / name)
    return to


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


@contextlib.contextmanager
def tampering(place: Path) -> Iterator[sqlite3.Connection]:
    """Another program that writes to the database; on a journal that nobody has open."""
    connection = sqlite3.connect(place / "journal.db", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
