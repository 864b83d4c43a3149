"""The new journal of a succession, built whole under a name that nobody knows yet, with as much as there is room for.

Its core lane begins with the note that explains the epoch; the carried facts follow in their old order; then, in the
log lane, what is kept as evidence and which streams were lost.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

from journal import schema
from journal.carrying import Breadth, Load, choose, note_of, stream_rows
from journal.chain import genesis, link
from journal.connection import connect
from journal.facts import Fact, Head, Lane, Stamp, StreamInfo, canonical
from journal.problems import is_full
from journal.reading import COLUMNS
from journal.salvage import Salvaged
from journal.succession import sync

STREAM = "epoch/1"
BEGAN, SALVAGED, STREAM_LOST = "epoch-began", "salvaged", "stream-lost"
# fmt: off
_INSERT = {lane: f"INSERT INTO {lane} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" for lane in Lane}  # noqa: S608 - ours
# fmt: on


def write_what_fits(  # noqa: PLR0913 - what a new epoch is made of
    path: Path,
    found: Salvaged,
    wanted: Callable[[StreamInfo], bool],
    *,
    meta: dict[str, str],
    told: dict[str, Any],
    now: Stamp,
    make_room: Callable[[], object],
) -> tuple[Load, dict[str, Any]]:
    """What was carried, and the note. Less is carried where there is no room, which is made (once) before that.

    Raises what the last try raised (sqlite3.Error, OSError), and leaves nothing then.
    """
    for breadth, is_short in _TRIES:
        load = choose(found, wanted, breadth)
        whole = {**told, **_tally(load), "short_of_space": is_short}
        try:
            _build(path, meta, load, whole, now=now, is_short=is_short)
        except (sqlite3.Error, OSError) as error:
            for leftover in path.parent.glob(path.name + "*"):
                leftover.unlink()
            if breadth is Breadth.NOTHING or not has_no_room(error):
                raise
            if not is_short:
                make_room()
        else:
            return load, whole
    raise AssertionError("the last try returns or raises")


_TRIES = ((Breadth.EVIDENCE_TOO, False), *((breadth, True) for breadth in reversed(Breadth)))


def has_no_room(error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, sqlite3.Error):
        return is_full(error)
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def _tally(load: Load) -> dict[str, Any]:
    counts = {lane: sum(1 for fact in load.facts if fact.lane == lane) for lane in Lane}
    core = counts[Lane.CORE]
    carried = {Lane.CORE.value: 1 + core if core else 0, Lane.LOG.value: counts[Lane.LOG]}
    return {"lanes": load.lanes, "carried": carried}


def _build(  # noqa: PLR0913 - a journal has as many parts
    path: Path,
    meta: dict[str, str],
    load: Load,
    told: dict[str, Any],
    *,
    now: Stamp,
    is_short: bool,
) -> None:
    """Nobody knows this file yet: it needs no journal of its own, and is synced once, whole."""
    with closing(connect(path, mode="rwc")) as connection:
        connection.execute("PRAGMA page_size=4096")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("PRAGMA synchronous=OFF")
        schema.migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        for lane in Lane:
            row = (lane.value, 0, genesis(meta["epoch"], lane))
            connection.execute("INSERT INTO base VALUES (?, ?, ?)", row)
            connection.execute("INSERT INTO cursor VALUES (?, ?, ?)", row)
        _fill(connection, _Writing(connection, meta["epoch"], now), load, told)
        if not is_short:
            _free_pages(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    sync(path)


def _free_pages(connection: sqlite3.Connection) -> None:
    """Free pages, as every new journal has them."""
    connection.execute("CREATE TABLE room (bytes BLOB)")
    connection.execute("INSERT INTO room VALUES (zeroblob(?))", (schema.FREE_PAGES_BYTES,))
    connection.execute("DROP TABLE room")


def _fill(
    connection: sqlite3.Connection, writing: _Writing, load: Load, told: dict[str, Any]
) -> None:
    writing.note(Lane.CORE, STREAM, BEGAN, told)
    placed = {(old.lane, old.seq): writing.copy(old) for old in load.facts}
    for each in load.evidence:
        stream, data = note_of(each)
        writing.note(Lane.LOG, stream, SALVAGED, data)
    for info, verified in load.broken:
        data = {"stream": info.name, "lane": info.lane, "state": info.state, "verified": verified}
        writing.note(Lane.LOG, info.name, STREAM_LOST, data)
    insert = (
        "INSERT INTO stream (machine, attempt, lane, first_seq, last_seq, carried, belief) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    connection.executemany(insert, stream_rows(load, placed))


class _Writing:
    """Chains facts on in the new epoch."""

    def __init__(self, connection: sqlite3.Connection, epoch: str, now: Stamp) -> None:
        self._connection = connection
        self._heads = {lane: Head(0, genesis(epoch, lane)) for lane in Lane}
        self._now = now
        self._n = 0

    def note(self, lane: Lane, stream: str, kind: str, data: dict[str, Any]) -> None:
        at_ms, boot_id, mono_ms, skew_ms = astuple(self._now)
        text = canonical(data)
        self.copy(
            Fact(lane, 0, 0, stream, kind, "", "", at_ms, boot_id, mono_ms, skew_ms, text, b"")
        )

    def copy(self, old: Fact) -> int:
        """Write it as the next of its lane: its seq."""
        seq, prev = self._heads[old.lane]
        self._n += 1
        fact = old._replace(seq=seq + 1, n=self._n)
        fact = fact._replace(hash=_linked(fact, prev))
        self._heads[old.lane] = Head(fact.seq, fact.hash)
        self._connection.execute(_INSERT[old.lane], fact[1:])
        return fact.seq


def _linked(fact: Fact, prev: bytes) -> bytes:
    fields = fact._asdict()
    del fields["hash"]
    return link(prev, **fields)
