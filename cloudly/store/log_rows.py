"""The rows that device logs are: added, joined where they are small, deleted where they are too many or too old."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from cloudly.settings import Settings
from cloudly.store.log_chunks import Chunk, Line, pack, unpack
from cloudly.store.log_file import used_bytes

SMALL_BYTES = 4 * 1024
"""Of text, in one row: too little to be compressed."""
MANY_SMALL = 32
"""So many small rows in a row are made one."""
DELETED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class LogBounds:
    per_node_bytes: int = 1024 * 1024
    total_bytes: int = 1024 * 1024 * 1024
    keep_ms: int = 7 * 86_400_000

    @classmethod
    def of(cls, settings: Settings) -> LogBounds:
        return cls(
            int(settings.logs_per_node_mib * 2**20),
            int(settings.logs_total_mib * 2**20),
            int(settings.logs_days * 86_400_000),
        )

    def shared(self, servers: int) -> LogBounds:
        """An equal part of them, for each of so many files."""
        return LogBounds(self.per_node_bytes // servers, self.total_bytes // servers, self.keep_ms)


@dataclass(slots=True)
class Source:
    """What the file has of a node."""

    id: int
    last_n: int
    size: int
    small: list[int]
    """Its newest rows, oldest first, as far as they are small."""


def source_of(db: sqlite3.Connection, node_id: str) -> Source:
    """What the file has of a node, made if it has nothing."""
    db.execute(
        "INSERT INTO source(node_id, last_n, size) VALUES(?,0,0) ON CONFLICT DO NOTHING", (node_id,)
    )
    number, last_n, size = db.execute(
        "SELECT id, last_n, size FROM source WHERE node_id=?", (node_id,)
    ).fetchone()
    newest = db.execute(
        "SELECT id, raw FROM log_chunk WHERE source=? ORDER BY first_n DESC LIMIT ?",
        (number, MANY_SMALL),
    ).fetchall()
    small = []
    for chunk, raw in newest:
        if raw >= SMALL_BYTES:
            break
        small.append(chunk)
    return Source(number, last_n, size, small[::-1])


def append(db: sqlite3.Connection, source: Source, lines: list[Line], raw: int) -> None:
    """A row more, or one instead of many small ones. `raw`: how many bytes of text the lines are."""
    first_n = source.last_n + 1
    source.last_n += len(lines)
    if len(source.small) >= MANY_SMALL:
        before, first_n, raw_before = _taken_back(db, source, first_n)
        lines, raw = before + lines, raw_before + raw
    packed = pack(lines)
    chunk = db.execute(
        "INSERT INTO log_chunk(source, first_n, lines, first_at_ms, last_at_ms, raw, size, packed)"
        " VALUES(?,?,?,?,?,?,?,?) RETURNING id",
        (source.id, first_n, len(lines), lines[0].received_at_ms, lines[-1].received_at_ms, raw, len(packed), packed),
    ).fetchone()[0]  # fmt: skip
    source.size += len(packed)
    source.small = [*source.small, chunk] if raw < SMALL_BYTES else []


def _taken_back(
    db: sqlite3.Connection, source: Source, first_n: int
) -> tuple[list[Line], int, int]:
    """The small rows, out of the file again: their lines, the place of the first, and how much text it is."""
    marks = ",".join("?" * len(source.small))
    rows = db.execute(
        f"SELECT first_n, lines, first_at_ms, last_at_ms, packed, raw, size FROM log_chunk WHERE id IN ({marks})"  # noqa: S608 - question marks
        " ORDER BY first_n",
        source.small,
    ).fetchall()
    db.execute(f"DELETE FROM log_chunk WHERE id IN ({marks})", source.small)  # noqa: S608
    source.size -= sum(row[6] for row in rows)
    source.small = []
    lines = [line for row in rows for line in unpack(Chunk(*row[:5]))]
    return lines, rows[0][0] if rows else first_n, sum(row[5] for row in rows)


def trim(db: sqlite3.Connection, source: Source, per_node_bytes: int) -> None:
    """Its oldest rows, while it has more than one node may have; the newest stays."""
    if source.size <= per_node_bytes:
        return
    oldest = db.execute(
        "SELECT id, size FROM log_chunk WHERE source=? ORDER BY first_n LIMIT ?",
        (source.id, DELETED_AT_ONCE + 1),
    ).fetchall()
    for chunk, size in oldest[:-1]:
        if source.size <= per_node_bytes:
            break
        db.execute("DELETE FROM log_chunk WHERE id=?", (chunk,))
        source.size -= size
        if chunk in source.small:
            source.small.remove(chunk)


def forget_oldest(db: sqlite3.Connection, bounds: LogBounds, now_ms: int) -> int:
    """A few of the oldest rows of all nodes: those too old, and more while the file is too large."""
    oldest = db.execute(
        "SELECT id, source, size, last_at_ms FROM log_chunk ORDER BY id LIMIT ?",
        (DELETED_AT_ONCE,),
    ).fetchall()
    over = used_bytes(db) - bounds.total_bytes
    deleted = 0
    for chunk, source, size, last_at_ms in oldest:
        if over <= 0 and last_at_ms >= now_ms - bounds.keep_ms:
            break
        db.execute("DELETE FROM log_chunk WHERE id=?", (chunk,))
        db.execute("UPDATE source SET size=size-? WHERE id=?", (size, source))
        over -= size
        deleted += 1
    return deleted
