"""Questions about device logs: the newest lines, those after a place, those that somebody looks for.

A row at a time, and no statement stays open between two: a reader never holds up who writes, and who serves others
meanwhile can stop between two rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import Connection

from cloudly.store.log_chunks import Chunk, Kept, Line, Mark, unpack

END = 2**62
ROW = (
    "SELECT c.first_n, c.lines, c.first_at_ms, c.last_at_ms, c.packed FROM log_chunk c"
    " JOIN source s ON s.id=c.source WHERE s.node_id=?1"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines somebody wants to see. What is missing is shown with all of them: it may have been one."""

    service: int | None = None
    system: bool = False
    """Also or only the Supervisor's: with a service both, without one only these."""
    text: str = ""
    """Anywhere in the line, upper and lower case alike."""
    since_ms: int = 0
    """By our clock: devices may be in 1970."""

    def wants(self, line: Line) -> bool:
        if line.received_at_ms < self.since_ms:
            return False
        if line.marks & Mark.GAP:
            return True
        if self.service is not None or self.system:
            is_system = self.system and bool(line.marks & Mark.SYSTEM)
            if not is_system and (self.service is None or line.service != self.service):
                return False
        return not self.text or self.text.casefold() in line.text.casefold()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one row has of what is wanted, newest first."""

    lines: list[Kept]
    before_n: int
    """Everything older is before this place."""
    looked_at: int
    """How many lines the row has."""
    since_ms: int
    """Everything older was received before."""


def pieces(
    db: Connection, node_id: str, wanted: Wanted, *, before_n: int = END, slot: int = 0
) -> Iterator[Piece]:
    """The newest row first, until nothing wanted can be left."""
    while True:
        row = db.execute(
            f"{ROW} AND c.first_n<?2 ORDER BY c.first_n DESC LIMIT 1", (node_id, before_n)
        ).fetchone()
        if row is None:
            return
        chunk = Chunk(*row)
        if chunk.last_at_ms < wanted.since_ms:
            return
        found = [
            kept for kept in _kept(chunk, slot) if kept.n < before_n and wanted.wants(kept.line)
        ]
        before_n = chunk.first_n
        yield Piece(found[::-1], before_n, chunk.lines, chunk.first_at_ms)


def after(db: Connection, node_id: str, n: int, *, rows: int = 64, slot: int = 0) -> list[Kept]:
    """The lines after that place, oldest first, of at most so many rows."""
    found = db.execute(
        f"{ROW} AND c.first_n+c.lines>?2 ORDER BY c.first_n LIMIT ?3", (node_id, n + 1, rows)
    ).fetchall()
    return [kept for row in found for kept in _kept(Chunk(*row), slot) if kept.n > n]


def newest_n(db: Connection, node_id: str) -> int:
    """The place of the newest line that there ever was; 0: there was none."""
    row = db.execute("SELECT last_n FROM source WHERE node_id=?", (node_id,)).fetchone()
    return 0 if row is None else int(row[0])


def size_of(db: Connection, node_id: str) -> int:
    """Bytes that the file has of a node."""
    row = db.execute("SELECT size FROM source WHERE node_id=?", (node_id,)).fetchone()
    return 0 if row is None else int(row[0])


def _kept(chunk: Chunk, slot: int) -> list[Kept]:
    return [Kept(chunk.first_n + at, line, slot) for at, line in enumerate(unpack(chunk))]
