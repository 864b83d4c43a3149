"""What disks do to a journal: each kind of damage, done to a closed copy of one, at a place that holds something.

The kinds are those of the journal note (4.5), with a torn or lost WAL, a file of nulls, pages in the wrong order and a
text in its place.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - seeded by the test: the same damage each time
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.pages import PAGE_BYTES, Pages
from journal.tables import table_roots
from tests.journal.given import beat, copy_as_killed, open_at, write_story

Chance = random.Random


@dataclass(frozen=True)
class Original:
    """A journal as a killed writer left it, the newest facts of it in the WAL alone, and what was written."""

    place: Path
    facts: dict[Lane, dict[int, Fact]]
    """Every fact that was ever acknowledged, by its seq."""
    leaves: tuple[int, ...]
    """Pages of the database that hold facts, and that no frame of the WAL hides."""

    def copy(self, to: Path) -> Path:
        shutil.rmtree(to, ignore_errors=True)
        return Path(shutil.copytree(self.place, to))


def write_original(
    root: Path, *, updates: int, last: int | None = None, ack: float | None = None
) -> Original:
    """`updates` of four facts each, and two log lines; the `last` of them (an eighth) lie in the WAL alone.

    `ack`: how much of the rest is acked.
    """
    last = updates // 8 if last is None else last
    live = root / "live"
    live.mkdir()
    journal = open_at(live)
    journal.close()
    journal = open_at(live)
    _write(journal, 1, updates - last)
    if ack is not None:
        for lane in Lane:
            seq = int(journal.head(lane).seq * ack)
            journal.ack(lane, seq, journal.prev_hash(lane, seq + 1))
    journal._rows("PRAGMA wal_checkpoint(PASSIVE)", ())
    journal._rows("PRAGMA wal_autocheckpoint=0", ())
    _write(journal, updates - last + 1, updates)
    facts = {lane: {fact.seq: fact for fact in journal.facts(lane=lane)} for lane in Lane}
    place = copy_as_killed(live, root / "original")
    journal.close()
    with Pages(place / "journal.db") as pages:
        roots = table_roots(pages)
        numbers = [number for lane in Lane for number in pages.leaves_of(roots[lane])]
        leaves = tuple(n for n in numbers if not pages.is_hidden(n))
    return Original(place, facts, leaves)


def _write(journal: Journal, first: int, last: int) -> None:
    for attempt in range(first, last + 1):
        write_story(journal, attempt=attempt)
        beat(journal, 1)


def _page(place: Path, number: int, to: bytes) -> None:
    with (place / "journal.db").open("r+b") as file:
        file.seek((number - 1) * PAGE_BYTES)
        file.write(to)


def _read(place: Path, number: int) -> bytes:
    with (place / "journal.db").open("rb") as file:
        file.seek((number - 1) * PAGE_BYTES)
        return file.read(PAGE_BYTES)


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def bit_flipped(original: Original, place: Path, chance: Chance) -> None:
    """In the upper part of a leaf: there the cells lie."""
    page = chance.choice(original.leaves)
    at = (page - 1) * PAGE_BYTES + chance.randrange(PAGE_BYTES // 2, PAGE_BYTES)
    _flip(place / "journal.db", at, chance.randrange(8))


def page_zeroed(original: Original, place: Path, chance: Chance) -> None:
    _page(place, chance.choice(original.leaves), bytes(PAGE_BYTES))


def page_of_noise(original: Original, place: Path, chance: Chance) -> None:
    _page(place, chance.choice(original.leaves), chance.randbytes(PAGE_BYTES))


def page_misdirected(original: Original, place: Path, chance: Chance) -> None:
    """One page is written over another."""
    page, other = chance.sample(original.leaves, 2)
    _page(place, page, _read(place, other))


def pages_swapped(original: Original, place: Path, chance: Chance) -> None:
    one, other = chance.sample(original.leaves, 2)
    page = _read(place, one)
    _page(place, one, _read(place, other))
    _page(place, other, page)


def erase_block_zeroed(original: Original, place: Path, chance: Chance) -> None:
    """64 KiB around a page that holds facts."""
    first = max(2, chance.choice(original.leaves) - 8)
    _page(place, first, bytes(16 * PAGE_BYTES))


def truncated(original: Original, place: Path, chance: Chance) -> None:
    os.truncate(place / "journal.db", (chance.choice(original.leaves) - 1) * PAGE_BYTES)


def truncated_within_a_page(original: Original, place: Path, chance: Chance) -> None:
    page = chance.choice(original.leaves) - 1
    os.truncate(place / "journal.db", page * PAGE_BYTES + chance.randrange(1, PAGE_BYTES))


def first_page_zeroed(_original: Original, place: Path, _chance: Chance) -> None:
    _page(place, 1, bytes(PAGE_BYTES))


def emptied(_original: Original, place: Path, _chance: Chance) -> None:
    os.truncate(place / "journal.db", 0)


def all_nulls(_original: Original, place: Path, _chance: Chance) -> None:
    path = place / "journal.db"
    path.write_bytes(bytes(path.stat().st_size))


def replaced_by_a_text(_original: Original, place: Path, _chance: Chance) -> None:
    (place / "journal.db").write_text("this is no database, it is a text\n" * 999)


def wal_bit_flipped(_original: Original, place: Path, chance: Chance) -> None:
    wal = place / "journal.db-wal"
    _flip(wal, chance.randrange(32, wal.stat().st_size), chance.randrange(8))


def wal_torn(_original: Original, place: Path, chance: Chance) -> None:
    wal = place / "journal.db-wal"
    os.truncate(wal, chance.randrange(32, wal.stat().st_size))


def wal_gone(_original: Original, place: Path, _chance: Chance) -> None:
    (place / "journal.db-wal").unlink()


def shm_of_noise(_original: Original, place: Path, chance: Chance) -> None:
    (place / "journal.db-shm").write_bytes(chance.randbytes(32_768))


Damage = Callable[[Original, Path, Chance], None]
