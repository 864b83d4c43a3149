"""From a directory to a connection that may be written to, or to the one problem that says why not.

Order: look at what is there without changing it (a reader's connection leaves even the WAL alone), and only when it
hangs together open it for writing. A first commit then proves that the place takes writes, and makes everything before
it durable: facts that a killed process had written `soon` become safe to ship here.

A journal that was closed is believed by its newest facts. One that was not (a power cut, a kill) is looked at more
closely, for a bounded time: SQLite's quick_check as far as it comes in QUICK_CHECK_MS, and the newest facts' chain.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from journal import schema, succession
from journal.connection import connect, prewarm, settle
from journal.facts import Lane, Stamp
from journal.problems import GOES_ON, Damaged, NoSpace, NotWritable, is_full, translate
from journal.reading import Reading, asking
from journal.reserve import Reserve

TAIL = 32
"""How many of the newest facts are checked at every opening; `verify` checks them all."""
LONGER_TAIL = 5_000
"""The same after an unclean stop: all of a short journal; 20 ms of CPU."""
QUICK_CHECK_MS = 2_000
"""quick_check of 28 MB took 27 ms with a warm cache, 565 ms with a cold one (journal note, 2); a card may be slower."""
QUICK_CHECK_BYTES = 64 << 20
"""A larger file is left to its chain: before 3.42, SQLite does not look at the clock while it walks the pages."""
_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""
CLOSED_PROPERLY = "INSERT OR REPLACE INTO meta VALUES ('clean', '1')"
_IN_USE = "INSERT OR REPLACE INTO meta VALUES ('clean', '0')"

Clock = Callable[[], Stamp]


def open_for_writing(
    directory: Path, *, new_epoch: Callable[[], str], reserve: Reserve, stamp: Clock
) -> sqlite3.Connection:
    """Where the disk is full, the reserve is spent for it; otherwise it is seen to."""
    succession.finish(directory)
    path = directory / schema.FILE
    try:
        connection = _open(path, new_epoch, stamp)
    except NoSpace:
        if not reserve.spend():
            raise
        return _open(path, new_epoch, stamp)
    reserve.restore()
    return connection


def _open(path: Path, new_epoch: Callable[[], str], stamp: Clock) -> sqlite3.Connection:
    try:
        if not path.exists():
            _create(path, new_epoch)
        with closing(connect(path, mode="ro")) as looking:
            rows = asking(looking, f"open {path}")
            schema.recognise(rows, path)
            journal = Reading(rows)
            if was_closed(journal):
                check_tail(journal, path)
            else:
                if journal.used_bytes() <= QUICK_CHECK_BYTES:
                    _quick_check(looking, path, stamp)
                check_tail(journal, path, LONGER_TAIL)
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
        _write_again(connection, path)
        schema.migrate(connection)
        try:
            prewarm(connection, path)
        except sqlite3.Error as error:
            if not is_full(error):
                raise
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'opened'")
        connection.execute(_IN_USE)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def _write_again(connection: sqlite3.Connection, path: Path) -> None:
    """Put all that an earlier writer left in the WAL into the database, and begin the WAL anew.

    What we read there may be in memory only. After a sync that failed Linux takes the pages for clean: it shows them,
    and never writes them again, whatever is synced later. A power cut would leave a hole, and take what comes after.
    """
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    if busy:
        raise NotWritable(
            f"open {path}",
            "somebody has been reading it for seconds",
            "nothing: it is tried again, and goes on when they are done",
        )


def was_closed(journal: Reading) -> bool:
    """Whether its last writer closed it; a new journal had none."""
    return journal.meta("clean") == "1" or journal.meta("opened") == "0"


def check_tail(journal: Reading, path: Path, count: int = TAIL) -> None:
    """What a writer begins with: the newest facts, hanging together and on Cloudly's ack; raises Damaged."""
    for lane in Lane:
        flaw = _flaw(journal, lane, count)
        if flaw:
            raise _damaged(path, f"{lane}: {flaw}")
    journal.open_streams()


def _damaged(path: Path, seen: str) -> Damaged:
    return Damaged(f"open {path}", seen, GOES_ON)


def _quick_check(connection: sqlite3.Connection, path: Path, stamp: Clock) -> None:
    """As far as it comes in its time; raises Damaged. What it did not come to, `verify` does."""
    until_ms = stamp().mono_ms + QUICK_CHECK_MS
    connection.set_progress_handler(lambda: stamp().mono_ms >= until_ms, _STEPS)
    try:
        said = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        connection.set_progress_handler(None, 0)
    if said != [("ok",)]:
        raise _damaged(path, f"SQLite's quick_check says: {said[0][0]}")


def _flaw(journal: Reading, lane: Lane, count: int) -> str | None:
    base, acked, head = journal.base(lane), journal.acked(lane), journal.head(lane)
    if acked.seq > head.seq:
        return f"it ends at {head.seq}, and Cloudly has acked {acked.seq}: the tail was lost"
    seq = max(base.seq, head.seq - count)
    prev = journal.prev_hash(lane, seq + 1)
    for page in journal.pages(lane, after=seq):
        for fact in page:
            seq += 1
            if fact.seq != seq:
                return f"fact {seq} is missing"
            if not fact.follows(prev):
                return f"fact {seq} is not what was written"
            if seq == acked.seq and acked.hash != fact.hash:
                return f"fact {seq} is not what Cloudly has acked"
            prev = fact.hash
    return None
