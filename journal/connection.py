"""How this room talks to SQLite: every setting is set and read back, because defaults differ between builds.

Rules, each measured (journal note, 4 and 5)
- WAL with synchronous=FULL. SQLite's own default, DELETE with FULL, lost the last acknowledged commit in 75 of 200
  power cuts.
- psow=0: never rewrite a sector that holds an acknowledged frame; SD cards keep no promise about it.
- The WAL is grown once, at the start, and then re-used: a growing one costs 3.7 x the bytes and twice the flushes.
- Never open() the database by other means in this process: closing that descriptor drops SQLite's locks, and the next
  program that opens and closes the journal deletes the WAL under us: 100 of 110 acknowledged facts gone, and no error.
  `os.stat` is harmless.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from journal.problems import NotDurable

CHECKPOINT_PAGES = 256
WAL_BYTES = (CHECKPOINT_PAGES + 24) * 4096
"""The WAL's working size: a little more than where SQLite checkpoints, so that no fact ever makes it grow. With exactly
256 pages it had to grow by the last one, and a full disk took 80 facts instead of thousands."""

# fmt: off
SETTINGS: tuple[tuple[str, str | int, str | int], ...] = (
    ("journal_mode",       "WAL",     "wal"),
    ("synchronous",        "FULL",    2),
    ("wal_autocheckpoint", CHECKPOINT_PAGES, CHECKPOINT_PAGES),
    ("journal_size_limit", 1_200_000, 1_200_000),
    ("temp_store",         "MEMORY",  2),
    ("trusted_schema",     "OFF",     0),
    ("busy_timeout",       5_000,     5_000),
)
# fmt: on


class _Connection(sqlite3.Connection):
    def execute(self, *asked: Any) -> sqlite3.Cursor:
        """SQLite's message about a damaged schema quotes it; where that is no text, the module fails on the message."""
        try:
            return super().execute(*asked)
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(
                "it quotes what is no text: the database is malformed"
            ) from error


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """`mode` is SQLite's: ro, rw (never creates) or rwc."""
    address = f"file:{quote(str(path))}?psow=0&mode={mode}"
    return sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=5.0, factory=_Connection
    )


def settle(connection: sqlite3.Connection) -> None:
    """Set what durability stands on and read it back; raises NotDurable where SQLite did not take it."""
    for name, value, expected in SETTINGS:
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        (seen,) = connection.execute(f"PRAGMA {name}").fetchone()
        if seen != expected:
            raise NotDurable(
                "open the journal durably",
                f"PRAGMA {name}={value} reads back as {seen!r}",
                "put the data directory on a local file system that supports WAL (ext4)",
            )


def prewarm(connection: sqlite3.Connection, path: Path) -> None:
    """Grow the WAL to its working size by a transaction that spills and is rolled back; the database is untouched."""
    if wal_bytes(path) >= WAL_BYTES * 15 // 16:
        return
    (cache,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute("PRAGMA cache_size=8")
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("CREATE TABLE room (bytes BLOB)")
        connection.execute("INSERT INTO room VALUES (zeroblob(?))", (WAL_BYTES,))
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA cache_size={cache}")


def wal_bytes(path: Path) -> int:
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0
