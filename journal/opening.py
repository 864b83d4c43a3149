"""From a directory to a connection that may be written to, or to the one problem that says why not.

Order: look at what is there without changing it (a reader's connection leaves even the WAL alone), and only when it
hangs together open it for writing. A first commit then proves that the place takes writes, and makes everything before
it durable: facts that a killed process had written `soon` become safe to ship here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from journal import schema, succession
from journal.connection import connect, prewarm, settle
from journal.facts import Fact, Lane
from journal.problems import Damaged, NoSpace, NotWritable, is_full, translate
from journal.reading import Reading, asking
from journal.reserve import Reserve

TAIL = 32
"""How many of the newest facts are checked at every opening; `verify` checks them all."""


def open_for_writing(
    directory: Path, *, new_epoch: Callable[[], str], reserve: Reserve
) -> sqlite3.Connection:
    """Where the disk is full, the reserve is spent for it; otherwise it is seen to."""
    succession.finish(directory)
    path = directory / schema.FILE
    try:
        connection = _open(path, new_epoch)
    except NoSpace:
        if not reserve.spend():
            raise
        return _open(path, new_epoch)
    reserve.restore()
    return connection


def _open(path: Path, new_epoch: Callable[[], str]) -> sqlite3.Connection:
    try:
        if not path.exists():
            _create(path, new_epoch)
        with closing(connect(path, mode="ro")) as looking:
            rows = asking(looking, f"open {path}")
            schema.recognise(rows, path)
            check_tail(Reading(rows), path)
        return _claim(path)
    except sqlite3.Error as error:
        raise translate(error, tried=f"open {path}") from error


def _create(path: Path, new_epoch: Callable[[], str]) -> None:
    orphan = path.with_name(path.name + "-wal")
    if orphan.exists():
        seen = f"the journal is gone and its {orphan.name} is still there"
        raise Damaged(f"open {path}", seen, "put the file back, or keep both for salvage")
    try:
        schema.create(path, epoch=new_epoch(), connect=lambda file: connect(file, mode="rwc"))
    except OSError as error:
        raise NotWritable(
            f"create {path}", str(error), "check the volume's mount and owner"
        ) from error


def _claim(path: Path) -> sqlite3.Connection:
    connection = connect(path, mode="rw")
    try:
        settle(connection)
        schema.migrate(connection)
        try:
            prewarm(connection, path)
        except sqlite3.Error as error:
            if not is_full(error):
                raise
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'opened'")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def check_tail(journal: Reading, path: Path) -> None:
    """What a writer begins with: the newest facts, hanging together and on Cloudly's ack; raises Damaged."""
    for lane in Lane:
        facts = journal.tail(TAIL, lane=lane)
        flaw = _flaw(journal, lane, facts)
        if flaw:
            todo = "nothing was changed; `baserunner journal verify` tells more, keep the files"
            raise Damaged(f"open {path}", f"{lane}: {flaw}", todo)
    journal.open_streams()


def _flaw(journal: Reading, lane: Lane, facts: list[Fact]) -> str | None:
    base, acked = journal.base(lane), journal.acked(lane)
    head = facts[-1].seq if facts else base.seq
    if acked.seq > head:
        return f"it ends at {head}, and Cloudly has acked {acked.seq}: the tail was lost"
    if not facts:
        return None
    seq, prev = facts[0].seq - 1, journal.prev_hash(lane, facts[0].seq)
    for fact in facts:
        seq += 1
        if fact.seq != seq:
            return f"fact {seq} is missing"
        if not fact.follows(prev):
            return f"fact {seq} is not what was written"
        if seq == acked.seq and acked.hash != fact.hash:
            return f"fact {seq} is not what Cloudly has acked"
        prev = fact.hash
    return None
