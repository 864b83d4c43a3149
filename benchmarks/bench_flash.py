"""What the journal costs the flash: bytes and flushes that reach a block device of its own, and what that is in a day.

usage: bench_flash.py [SECONDS]     watches one event a second for so long (default 60); prints Markdown; needs root

The device is an ext4 on a loop; the counters are the kernel's (/sys/dev/block/*/stat), so that no neighbour on the
machine disturbs them. The yardstick is raw sqlite3 with the same file and settings, one INSERT per fact, each synced.
A flush counts as a write of its own in the kernel's figures; bytes do not have that problem.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baserunner.retention import retain
from benchmarks.yard import Act, Row, append_to, insert_raw, open_at, open_raw, table, title
from journal.facts import Lane
from journal.journal import Journal
from tests.kill.loop_disk import LoopDisk

FACTS = 500
DAY_S = 86_400
HEARTBEAT_S, SHIP_EVERY_S = 60, 300
HOURS = 2
_sync_of = ctypes.CDLL(None, use_errno=True).syncfs


class NoFlashError(Exception):
    """A device of its own needs root, mkfs.ext4 and a loop device."""


@dataclass(frozen=True, slots=True)
class Written:
    """What reached a device."""

    bytes: int
    flushes: int

    def __sub__(self, before: Written) -> Written:
        return Written(self.bytes - before.bytes, self.flushes - before.flushes)


@dataclass(frozen=True, eq=False)
class Flash:
    """One device, and what is on it."""

    disk: LoopDisk

    @property
    def at(self) -> Path:
        return self.disk.at

    def written(self) -> Written:
        """So far, when all that waits in memory has reached it."""
        self.settle()
        device = self.at.stat().st_dev
        stat = (
            Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        )
        return Written(int(stat[6]) * 512, int(stat[15]))

    def settle(self) -> None:
        """What the kernel does by itself within half a minute."""
        descriptor = os.open(self.at, os.O_RDONLY)
        try:
            if _sync_of(descriptor):
                raise OSError(ctypes.get_errno(), "syncfs failed")
        finally:
            os.close(descriptor)


@contextmanager
def flashes(count: int) -> Iterator[list[Flash]]:
    """So many devices of their own. Raises NoFlashError."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a directory of its own in it
    with tempfile.TemporaryDirectory(dir=memory) as place:
        made: list[Flash] = []
        try:
            for n in range(count):
                disk = LoopDisk(Path(place) / f"{n}.img", Path(place) / str(n))
                if problem := disk.make():
                    raise NoFlashError(problem)
                made.append(Flash(disk))
            yield made
        finally:
            for flash in made:
                flash.disk.unmount(busy=True)


def per_fact(flash: Flash, act: Act, first: int = 0) -> tuple[float, float]:
    """Bytes and flushes of each of so many facts, one right after the other."""
    before = flash.written()
    for i in range(first, first + FACTS):
        act(i)
    seen = flash.written() - before
    return seen.bytes / FACTS, seen.flushes / FACTS


def bench_facts() -> list[Row]:
    """The first facts of a new journal, the next ones, and those that are not synced one by one."""
    with flashes(3) as (raw_on, full_on, soon_on):
        raw, full, soon = open_raw(raw_on.at), open_at(full_on.at), open_at(soon_on.at)
        rows = []
        for first, named in ((0, f"the first {FACTS} facts"), (FACTS, f"the next {FACTS}")):
            yard = per_fact(raw_on, lambda i: insert_raw(raw, i), first)
            seen = per_fact(full_on, append_to(full), first)
            rows.append(row(f"{named}, each durable", seen, yard, 1.15))
        seen = per_fact(soon_on, append_to(soon, soon=True))
        rows.append(row("as many, soon", seen, yard, None))
        for opened in (raw, full, soon):
            opened.close()
    return rows


def row(what: str, seen: tuple[float, float], yard: tuple[float, float], most: float | None) -> Row:
    def said(written: tuple[float, float]) -> str:
        return f"{written[0]:,.0f} B, {written[1]:.2f} flushes"

    return Row(what, said(seen), said(yard), seen[0] / yard[0], most)


def bench_seconds(seconds: int) -> list[Row]:
    """One event a second, for real, all side by side: the kernel's own commits every 5 s are in it."""
    with flashes(3) as (raw_on, full_on, soon_on):
        raw, full, soon = open_raw(raw_on.at), open_at(full_on.at), open_at(soon_on.at)
        acts = {
            raw_on: lambda i: insert_raw(raw, i),
            full_on: append_to(full),
            soon_on: append_to(soon, soon=True),
        }
        before = {flash: flash.written() for flash in acts}
        began = time.monotonic()
        for i in range(seconds):
            for act in acts.values():
                act(i)
            time.sleep(max(began + i + 1 - time.monotonic(), 0))
        seen = {flash: flash.written() - before[flash] for flash in acts}
        for opened in (raw, full, soon):
            opened.close()
    days = DAY_S / seconds
    return [
        day("an event a second, each durable", seen[full_on], seen[raw_on], days, 1_100),
        day("an event a second, soon", seen[soon_on], seen[raw_on], days),
    ]


def bench_heartbeats() -> list[Row]:
    """Hours of heartbeats at the default interval, with what the agent does beside them, as fast as it goes.

    A minute lies between two heartbeats, so that the kernel has written back what the first one left.
    """
    with flashes(2) as (raw_on, ours_on):
        raw, journal = open_raw(raw_on.at), open_at(ours_on.at)
        before = raw_on.written(), ours_on.written()
        for i in range(HOURS * 3600 // HEARTBEAT_S):
            insert_raw(raw, 2 * i)
            insert_raw(raw, 2 * i + 1)
            raw_on.settle()
            heartbeat(journal, i)
            ours_on.settle()
        seen = ours_on.written() - before[1]
        yard = raw_on.written() - before[0]
        raw.close()
        journal.close()
    return [day("heartbeats at the default interval, 60 s", seen, yard, 24 / HOURS)]


def heartbeat(journal: Journal, i: int) -> None:
    """Sent, answered; every fifth minute what is there is shipped, acked and looked through for what may go."""
    lane = Lane.LOG
    journal.append("heartbeat/1", "heartbeat-sent", "resting", "sending", lane=lane, soon=True)
    said = {"generation": 3, "next_s": 61.237, "incarnation": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"}
    journal.append(
        "heartbeat/1", "heartbeat-answered", "sending", "resting", said, lane=lane, soon=True
    )
    if i % (SHIP_EVERY_S // HEARTBEAT_S) == 0:
        journal.sync()
        head = journal.durable_head(lane)
        journal.ack(lane, head.seq, head.hash)
        retain(journal)


def day(what: str, seen: Written, yard: Written, days: float, most: float | None = None) -> Row:
    def said(written: Written) -> str:
        return f"{written.bytes * days / 1e6:,.1f} MB, {written.flushes * days:,.0f} flushes"

    value = seen.bytes * days / 1e6
    return Row(what, said(seen), said(yard), seen.bytes / yard.bytes, most, " MB", value)


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    title("flash")
    print("A block device of its own (ext4, 4 KiB blocks); raw sqlite3 syncs each of its rows.\n")
    try:
        facts, days = bench_facts(), [*bench_heartbeats(), *bench_seconds(seconds)]
    except NoFlashError as problem:
        print(f"Not measured: {NoFlashError.__doc__} {problem}")
        return
    table("per fact", "raw sqlite3", facts, measured="journal")
    table("per day", "raw sqlite3", days, measured="journal")


if __name__ == "__main__":
    main()
