"""The tables of a journal, and how a file gets them: the only module that loads `sqlite_utils` to write a schema.

- `core`, `log`   the facts; seq is the key, so a fact costs one page; no index, no AUTOINCREMENT (1.5 x the bytes each)
- `stream`        where each attempt begins and, when it ended, where; written with its first and its final fact
- `cursor`        up to where Cloudly has acked each lane
- `base`          what each lane's chain hangs on: genesis, or the last fact that was trimmed
- `tombstone`     which facts went before Cloudly had them, and why
- `meta`          epoch, how often it was opened, whether it was closed, who may write it

A new journal is built under another name and renamed, so `journal.db` is either absent or whole.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journal.chain import genesis
from journal.facts import Lane
from journal.problems import GOES_ON, Damaged, Foreign, FromTheFuture, JournalProblem
from journal.reading import Rows

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x62_61_73_65  # "base"
VERSION = 2
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
FILE = "journal.db"
FREE_PAGES_BYTES = 1 << 20
"""Free pages from the start. With them a full disk took 5,103 more facts (journal note, 4.4)."""

_FACTS = """
CREATE TABLE {lane} (
  seq INTEGER PRIMARY KEY, n INTEGER NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL, src TEXT NOT NULL,
  dst TEXT NOT NULL, at_ms INTEGER NOT NULL, boot TEXT NOT NULL, mono_ms INTEGER NOT NULL, data TEXT NOT NULL,
  hash BLOB NOT NULL
) STRICT;
"""
_BESIDES = """
CREATE TABLE stream (
  machine TEXT NOT NULL, attempt INTEGER NOT NULL, lane TEXT NOT NULL, first_seq INTEGER NOT NULL,
  last_seq INTEGER, carried TEXT NOT NULL DEFAULT '', PRIMARY KEY (machine, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX open_stream ON stream (machine, attempt) WHERE last_seq IS NULL;
CREATE TABLE cursor (lane TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE base (lane TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

_TOMBSTONE = """
CREATE TABLE tombstone (
  lane TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, why TEXT NOT NULL, told TEXT NOT NULL,
  PRIMARY KEY (lane, first_seq)
) STRICT, WITHOUT ROWID
"""


def _first(db: Database) -> None:
    for lane in Lane:
        db.execute(_FACTS.format(lane=lane))
    for statement in _BESIDES.split(";")[:-1]:
        db.execute(statement)


def _second(db: Database) -> None:
    """Skews of the clock, beliefs of streams whose beginning is gone, and what was dropped before its ack."""
    for lane in Lane:
        db.execute(f"ALTER TABLE {lane} ADD COLUMN skew_ms INTEGER")
    db.execute("ALTER TABLE stream ADD COLUMN belief TEXT NOT NULL DEFAULT ''")
    db.execute(_TOMBSTONE)
    db.execute(
        "INSERT INTO meta VALUES ('clean', '0'), ('oldest_writer', '2') ON CONFLICT DO NOTHING"
    )


STEPS: tuple[Callable[[Any], None], ...] = (_first, _second)
"""Step k leads from version k to k + 1. Released steps are never edited."""


def create(path: Path, *, epoch: str, connect: Callable[[Path], sqlite3.Connection]) -> None:
    """Make a whole, empty journal at `path`; durable when it returns."""
    building = path.with_name(path.name + ".new")
    for leftover in building.parent.glob(building.name + "*"):
        leftover.unlink()
    connection = connect(building)
    try:
        connection.execute("PRAGMA page_size=4096")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        for lane in Lane:
            row = (lane.value, 0, genesis(epoch, lane))
            connection.execute("INSERT INTO base VALUES (?, ?, ?)", row)
            connection.execute("INSERT INTO cursor VALUES (?, ?, ?)", row)
        facts = (("epoch", epoch), ("opened", "0"))
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        connection.execute("CREATE TABLE room (bytes BLOB)")
        connection.execute("INSERT INTO room VALUES (zeroblob(?))", (FREE_PAGES_BYTES,))
        connection.execute("DROP TABLE room")
        connection.execute("COMMIT")
        # Closing does this too, but keeps it to itself when it fails: the database would be moved without its WAL.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()
    building.rename(path)
    _sync_directory(path.parent)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to VERSION, in one transaction: a power cut leaves the old schema or the new one."""
    found = version(connection)
    if found >= VERSION:
        return
    from sqlite_utils import Database, Migrations

    database = Database(connection)
    migrations = Migrations("journal")
    for step in STEPS:
        migrations(name=step.__name__)(step)
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(database)  # savepoints, within a transaction
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def recognise(rows: Rows, path: Path) -> None:
    """Is it a journal, and one that this program knows? Raises Damaged, Foreign or FromTheFuture."""
    ((found,),) = rows("PRAGMA application_id", ())
    if found != APPLICATION_ID:
        raise _no_journal(found, {name for (name,) in rows(_TABLES, ())}, path)
    ((found,),) = rows("PRAGMA user_version", ())
    if found > VERSION and _oldest_writer(rows) > VERSION:
        raise FromTheFuture(str(path), found, VERSION)


def _no_journal(application_id: int, tables: set[str], path: Path) -> JournalProblem:
    if set(Lane) <= tables:
        seen = f"it has a journal's tables and the application id {application_id}"
    elif not tables and not application_id:
        seen = "it is not a journal: it is empty"
    else:
        seen = f"it is not a journal: another application made it (id {application_id})"
        return Foreign(
            f"open {path}", seen, "nothing was changed; move it away, or set another data directory"
        )
    return Damaged(f"open {path}", seen, GOES_ON)


def _oldest_writer(rows: Rows) -> int:
    """A newer schema may say that older programs can go on with it: what they do not know, they leave alone."""
    found = rows("SELECT value FROM meta WHERE name = 'oldest_writer'", ())
    return int(found[0][0]) if found else VERSION + 1


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
