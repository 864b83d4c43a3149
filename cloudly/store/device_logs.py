"""Device logs on their way to the disk: gathered for a second, written many at once, the oldest deleted.

Rules:
- Lines wait in memory, within bounds; where these are reached there is no room, and who sends is not read any further.
- What could not be written waits and is tried again; nothing here raises because of the disk.
- Bounds are of each node, of all together and of age; each write deletes at most a few rows.
- Several servers of one directory write a file each and keep the bounds together: each has an equal share of the
  whole, and of a node as much as the others leave, but a share of it in any case (so a node whose stream moved has at
  most twice its bound). The file of a server that is gone is kept within the bounds by one that is there.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anyio.lowlevel import checkpoint

from cloudly.slots import if_free
from cloudly.store.log_chunks import Line
from cloudly.store.log_file import (
    DAMAGE,
    PASSING,
    code_of,
    file_of,
    give_back,
    open_to_read,
    open_to_write,
    remove,
    set_aside,
    slots_of,
)
from cloudly.store.log_reading import size_of
from cloudly.store.log_rows import LogBounds, Source, append, forget_oldest, source_of, trim
from interfaces.world import World, now_ms

log = logging.getLogger("cloudly")

GATHERED_S = 1.0
SEALED_BYTES = 32 * 1024
"""Of text: enough for a row of its own."""
AT_ONCE_BYTES = 256 * 1024
"""Of text in one transaction: some 10 ms, then others have their turn."""
OF_ONE_NODE = 1024 * 1024
OF_ALL_NODES = 16 * 1024 * 1024
LINE_COST = 40  # bytes of a line beside its text
AGAIN_S = {True: 0.2, False: 5.0}
"""After a write that failed: soon where the trouble is passing, later where the file must be opened again."""
REMEMBERED = 10_000
LOOK_AROUND_S = 30.0
TIDY_EVERY_S = 600.0
TIDIED_AT_ONCE = 100
"""Times some rows: what is left of a file is deleted the next time."""


@dataclass(slots=True)
class _Waiting:
    """Lines of a node that are not written yet."""

    since_s: float
    lines: list[Line] = field(default_factory=list)
    raw: int = 0


class DeviceLogs:
    of_one_node = OF_ONE_NODE
    of_all_nodes = OF_ALL_NODES

    def __init__(self, directory: Path, world: World, bounds: LogBounds, *, slot: int = 0) -> None:
        self.directory = directory
        self.bounds = bounds
        self.slot = slot
        self._others: list[int] = []
        self._looked_at_s: float | None = None
        self._world = world
        self._waiting: dict[str, _Waiting] = {}
        self._raw = 0
        self._connection: sqlite3.Connection | None = None
        self._sources: dict[str, Source] = {}
        self._newest: dict[str, int] = {}
        self._again_at_s = 0.0
        self._in_trouble = False

    def add(self, node_id: str, lines: Sequence[Line]) -> None:
        """Take them; they are written within a second or so."""
        if not lines:
            return
        waiting = self._waiting.get(node_id)
        if waiting is None:
            waiting = self._waiting[node_id] = _Waiting(self._world.monotonic())
        raw = sum(len(line.text) for line in lines) + LINE_COST * len(lines)
        waiting.lines += lines
        waiting.raw += raw
        self._raw += raw

    def has_room(self, node_id: str) -> bool:
        """Whether more of this node may be read."""
        waiting = self._waiting.get(node_id)
        return self._raw < self.of_all_nodes and (waiting is None or waiting.raw < self.of_one_node)

    def is_due(self, node_id: str) -> bool:
        """Whether this node has enough for a row of its own."""
        waiting = self._waiting.get(node_id)
        return waiting is not None and waiting.raw >= SEALED_BYTES

    @property
    def waiting_bytes(self) -> int:
        """Of text that is in memory only."""
        return self._raw

    def newest(self, node_id: str) -> int:
        """The place of the newest line that was written since the start; 0: none was."""
        return self._newest.get(node_id, 0)

    def write(self, *, everything: bool = False) -> bool:
        """One transaction of what has waited long enough; whether there is more to write now."""
        now_s = self._world.monotonic()
        if now_s < self._again_at_s and not everything:
            return False
        due = self._due(now_s, everything=everything)
        if not due:
            return False
        try:
            self._connection = self._connection or open_to_write(self.directory, self.slot)
            self._write(self._connection, due)
        except (sqlite3.Error, OSError) as problem:
            self._failed(problem, now_s)
            return False
        self._written(due)
        return bool(self._due(now_s, everything=everything))

    def unreadable(self, problem: sqlite3.Error, slot: int) -> str:
        """What a reader met, in words for people; a file of ours that is damaged is set aside."""
        if slot != self.slot:
            name = file_of(self.directory, slot).name
            return f"Lines of another server ({name}) cannot be read now: {problem}."
        if code_of(problem) not in DAMAGE:
            return f"The logs cannot be read now: {problem}."
        self._failed(problem, self._world.monotonic())
        return "Cloudly's file of logs is damaged. It was set aside, and new ones begin."

    async def tidy(self) -> None:
        """Keep the files of servers that are gone within the bounds; remove those that have nothing left."""
        for slot in slots_of(self.directory):
            if slot != self.slot:
                with if_free(self.directory, slot) as free:
                    if free:
                        self._tidy(slot)
                await checkpoint()

    def _tidy(self, slot: int) -> None:
        db = open_to_write(self.directory, slot)
        try:
            db.execute("BEGIN IMMEDIATE")
            bounds = self.bounds.shared(len(slots_of(self.directory)))
            for _ in range(TIDIED_AT_ONCE):
                if not forget_oldest(db, bounds, now_ms(self._world)):
                    break
            is_empty = db.execute("SELECT 1 FROM log_chunk LIMIT 1").fetchone() is None
            db.execute("COMMIT")
            give_back(db)
        finally:
            db.close()
        if is_empty:
            remove(self.directory, slot)

    def rest(self) -> None:
        """Write what is left and let go of the file, for now; what cannot be written goes on waiting."""
        while self.write(everything=True):
            pass
        left = sum(len(waiting.lines) for waiting in self._waiting.values())
        if left:
            log.warning("lines of device logs are not written", extra={"values": {"lines": left}})
        self._disconnect()

    def _due(self, now_s: float, *, everything: bool) -> dict[str, _Waiting]:
        """The first of those that have waited longest."""
        due: dict[str, _Waiting] = {}
        raw = 0
        for node_id, waiting in self._waiting.items():
            old = now_s - waiting.since_s >= GATHERED_S
            if (everything or old or waiting.raw >= SEALED_BYTES) and raw < AT_ONCE_BYTES:
                due[node_id] = waiting
                raw += waiting.raw
        return due

    def _written(self, due: dict[str, _Waiting]) -> None:
        for node_id, waiting in due.items():
            del self._waiting[node_id]
            self._raw -= waiting.raw
            self._newest[node_id] = self._sources[node_id].last_n
        if len(self._sources) > REMEMBERED:
            self._sources.clear()
        if self._in_trouble:
            self._in_trouble = False
            log.info("device logs are written again")

    def _failed(self, problem: Exception, now_s: float) -> None:
        """What waits goes on waiting; the rest depends on whose fault it is."""
        code = code_of(problem) if isinstance(problem, sqlite3.Error) else 0
        passing = code in PASSING
        self._sources.clear()
        with suppress(sqlite3.Error):
            if self._connection is not None and self._connection.in_transaction:
                self._connection.rollback()
        if not self._in_trouble and code not in DAMAGE:
            self._in_trouble = True
            log.warning("device logs cannot be written", extra={"values": {"why": str(problem)}})
        if not passing:
            self._disconnect()
        self._again_at_s = now_s + AGAIN_S[passing or code in DAMAGE]
        if code in DAMAGE:
            try:
                set_aside(self.directory, problem, self.slot)
            except OSError as other:
                log.warning("they could not be set aside: %s", other.strerror)

    def _disconnect(self) -> None:
        self._sources.clear()  # what is opened next may be another file
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- one transaction

    def _write(self, db: sqlite3.Connection, due: dict[str, _Waiting]) -> None:
        others = self._others_now()
        bounds = self.bounds.shared(1 + len(others))
        db.execute("BEGIN IMMEDIATE")
        for node_id, waiting in due.items():
            source = self._sources.get(node_id) or source_of(db, node_id)
            self._sources[node_id] = source
            append(db, source, waiting.lines, waiting.raw)
            if source.size > bounds.per_node_bytes:
                trim(db, source, self._room_of(node_id, others, bounds.per_node_bytes))
            db.execute(
                "UPDATE source SET last_n=?, size=? WHERE id=?",
                (source.last_n, source.size, source.id),
            )
        if forget_oldest(db, bounds, now_ms(self._world)):
            self._sources.clear()
            self._sources |= {node_id: source_of(db, node_id) for node_id in due}
        db.execute("COMMIT")
        with suppress(sqlite3.Error):  # the lines are written: what fails now fails again later
            give_back(db)

    def _others_now(self) -> list[int]:
        """The slots of other servers that have a file here, as of some seconds ago."""
        now_s = self._world.monotonic()
        if self._looked_at_s is None or now_s - self._looked_at_s >= LOOK_AROUND_S:
            self._looked_at_s = now_s
            self._others = [slot for slot in slots_of(self.directory) if slot != self.slot]
        return self._others

    def _room_of(self, node_id: str, others: Sequence[int], share_bytes: int) -> int:
        """What a node may have in our file: all that the others leave, but a share in any case."""
        theirs = 0
        for slot in others:
            with suppress(
                sqlite3.Error
            ):  # a file that cannot be read takes no room that anybody could use
                db = open_to_read(self.directory, slot)
                if db is not None:
                    try:
                        theirs += size_of(db, node_id)
                    finally:
                        db.close()
        return max(share_bytes, self.bounds.per_node_bytes - theirs)
