"""Which life of its database Cloudly lives: another one after it was restored from a backup.

A file beside the database holds the incarnation and a count that the database holds too. The database counts first
and the file follows, so a database that is behind the file, or of another incarnation, or without one, came from
elsewhere: a new incarnation is drawn. The file is not to be part of a backup.

Where the database itself can tell that it was restored (PostgreSQL: its cluster, timeline and tables), it is asked, and
a process without a file is a new one beside others.
"""

from __future__ import annotations

import os
from pathlib import Path

from cloudly.store.sql import Connection

FILE = "incarnation"
ROW = "incarnation"
COUNT_ROW = "incarnation-count"
IDENTITY_ROW = "identity"


def begin(
    db: Connection, kept: tuple[str, int] | None, fresh: str, identity: str | None = None
) -> tuple[str, int, bool]:
    """Incarnation and count of the life that begins, and whether the database was restored."""
    rows = db.execute(
        "SELECT key, value FROM meta WHERE key IN (?,?,?)", (ROW, COUNT_ROW, IDENTITY_ROW)
    )
    named = dict(rows.fetchall())
    incarnation, count = named.get(ROW), int(named.get(COUNT_ROW, 0))
    if identity is None:
        is_same = kept is not None and kept[0] == incarnation and kept[1] <= count
    else:
        is_behind = kept is not None and kept[0] == incarnation and kept[1] > count
        is_same = named.get(IDENTITY_ROW) == identity and not is_behind
        _set(db, IDENTITY_ROW, identity)
    if incarnation is not None and is_same:
        return incarnation, raise_count(db), False
    _set(db, ROW, fresh)
    _set(db, COUNT_ROW, str(max(count, kept[1] if kept else 0)))
    return fresh, raise_count(db), incarnation is not None


def raise_count(db: Connection) -> int:
    """At each start and end, and now and then: what is lost by a restore is noticed if it is older than that."""
    row = db.execute("SELECT value FROM meta WHERE key=?", (COUNT_ROW,)).fetchone()
    count = int(row[0]) + 1
    _set(db, COUNT_ROW, str(count))
    return count


def _set(db: Connection, key: str, value: str) -> None:
    db.execute(
        "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (key, value),
    )


def read(directory: Path) -> tuple[str, int] | None:
    """What the file says; None when it is missing or says nothing of the kind. Raises OSError."""
    try:
        incarnation, count = (directory / FILE).read_text().split()
        return incarnation, int(count)
    except (FileNotFoundError, ValueError):
        return None


def write(directory: Path, incarnation: str, count: int) -> None:
    """Durable, and whole at any time. Raises OSError."""
    new = directory / (FILE + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, f"{incarnation} {count}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
    new.replace(directory / FILE)
