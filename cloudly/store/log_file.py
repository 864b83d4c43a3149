"""The files that device logs are in, one of each server: `logs.db` in the data directory, `logs-1.db` of slot 1, ….

Opened, set aside and kept within bounds.

Rules:
- Logs are worth less than everything else: a file that is damaged, or another program's, is set aside with a warning
  and a new one is begun. Only the newest that was set aside is kept.
- WAL and synchronous=NORMAL: a power cut costs the last seconds, never the file; nobody was promised more.
- What is deleted is given back to the disk in small steps (auto_vacuum=incremental).
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from cloudly.slots import numbered
from cloudly.store.connection import Numbering

log = logging.getLogger("cloudly")

FILE = "logs.db"
SET_ASIDE = "logs.db.damaged"
FORM = re.compile(r"logs(?:-([1-9][0-9]?))?\.db")
SUFFIXES = ("", "-wal", "-shm")
FORMAT = 1
PATIENCE_MS = 0
"""Nobody else writes here; who does must not hold the server up: it tries again soon."""
READERS_PATIENCE_MS = 500
WAL_BYTES = 16 * 1024 * 1024
STEP_PAGES = 256
PRIMARY = 0xFF

TABLES = """
CREATE TABLE source(
  id INTEGER PRIMARY KEY, node_id TEXT NOT NULL UNIQUE, last_n INTEGER NOT NULL, size INTEGER NOT NULL) STRICT;
CREATE TABLE log_chunk(
  id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL, first_n INTEGER NOT NULL, lines INTEGER NOT NULL,
  first_at_ms INTEGER NOT NULL, last_at_ms INTEGER NOT NULL, raw INTEGER NOT NULL, size INTEGER NOT NULL,
  packed BLOB NOT NULL, UNIQUE(source, first_n)) STRICT;
"""

DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
)  # fmt: skip
PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})


def code_of(problem: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where it gave none."""
    return getattr(problem, "sqlite_errorcode", 0) & PRIMARY


def slots_of(directory: Path) -> list[int]:
    """The servers that have a file there, running or not."""
    names = (FORM.fullmatch(file.name) for file in directory.glob("logs*.db"))
    return sorted(int(name[1] or 0) for name in names if name is not None)


def file_of(directory: Path, slot: int) -> Path:
    return directory / numbered(FILE, slot)


def open_to_write(directory: Path, slot: int = 0) -> sqlite3.Connection:
    """The file, made if need be; one that cannot be used is set aside. Raises sqlite3.Error, OSError."""
    file = file_of(directory, slot)
    try:
        return _opened(file)
    except sqlite3.DatabaseError as problem:
        if code_of(problem) not in DAMAGE:
            raise
        set_aside(directory, problem, slot)
        return _opened(file)


def open_to_read(directory: Path, slot: int = 0) -> sqlite3.Connection | None:
    """The file beside who writes it; None where there is none yet, or no table in it. Raises sqlite3.Error."""
    file = file_of(directory, slot)
    if not file.exists():
        return None
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None, factory=Numbering
    )
    try:
        connection.execute(f"PRAGMA busy_timeout={READERS_PATIENCE_MS}")
        if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
            return connection
    except sqlite3.Error:
        connection.close()
        raise
    connection.close()
    return None


def set_aside(directory: Path, problem: object, slot: int = 0) -> None:
    """Out of the way, for who wants to look at it; only whoever has the slot may. Raises OSError."""
    file, aside = numbered(FILE, slot), numbered(SET_ASIDE, slot)
    log.warning(
        "the device logs could not be used and were set aside; new ones begin",
        extra={"values": {"why": str(problem), "set_aside": str(directory / aside)}},
    )
    for suffix in SUFFIXES:
        with suppress(FileNotFoundError):
            (directory / (aside + suffix)).unlink()
        with suppress(FileNotFoundError):
            (directory / (file + suffix)).rename(directory / (aside + suffix))


def remove(directory: Path, slot: int) -> None:
    """For whoever has the slot, and has closed the file. Raises OSError."""
    for suffix in SUFFIXES:
        (directory / (numbered(FILE, slot) + suffix)).unlink(missing_ok=True)


def marks(directory: Path, slot: int) -> tuple[int, ...]:
    """What differs after a write; two writes within some milliseconds may look alike."""
    found: list[int] = []
    for suffix in ("", "-wal"):
        with suppress(OSError):
            stat = (directory / (numbered(FILE, slot) + suffix)).stat()
            found += (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return tuple(found)


def used_bytes(db: sqlite3.Connection) -> int:
    """Of the file, without what is free in it."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def give_back(db: sqlite3.Connection) -> None:
    """A small step of what is free in the file, back to the disk."""
    if db.execute("PRAGMA freelist_count").fetchone()[0] >= STEP_PAGES:
        # A step a page: `execute` would take only the first of them.
        db.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")


def _opened(file: Path) -> sqlite3.Connection:
    os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(file, isolation_level=None, factory=Numbering)
    try:
        connection.execute(f"PRAGMA busy_timeout={PATIENCE_MS}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # takes before the first table only
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file; refuse one of another make."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if found == 0 and empty:
        connection.executescript(f"BEGIN IMMEDIATE;{TABLES}PRAGMA user_version={FORMAT};COMMIT;")
    elif found != FORMAT:
        problem = sqlite3.DatabaseError(f"its format is {found}, this Cloudly writes {FORMAT}")
        problem.sqlite_errorcode = sqlite3.SQLITE_NOTADB
        raise problem
    connection.execute("SELECT s.last_n, c.packed FROM source s, log_chunk c LIMIT 1").fetchone()
