"""What is only in memory goes to the database: a slice of nodes at a time, each in a transaction of its own.

Rules:
- A slice stays in memory until it is durable; one that fails is saved later, with what came since.
- On PostgreSQL a slice is one sentence for each table, whatever the number of rows, on a connection of its own: it is
  alone with its nodes, and whoever decides about others does not wait for it.
- When a node was seen is written first, and says whose report may be: what is newer there is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cloudly.store import heads
from cloudly.store.devices import Devices, KeptReports, version_of
from cloudly.store.group import Group
from cloudly.store.presence import Part, Presence
from cloudly.store.sql import Connection
from journal.chain import genesis

LIVE = """
UPDATE node_live l SET last_seen_at_ms=a.at_ms FROM unnest(?::bigint[], ?::bigint[]) a(node, at_ms)
WHERE l.node=a.node AND l.last_seen_at_ms<a.at_ms RETURNING l.node
"""
STATUS = """
UPDATE node_status s SET reported=a.reported FROM unnest(?::bigint[], ?::text[]) a(node, reported)
WHERE s.node=a.node
"""
EPOCHS = """
SELECT e.node, e.n FROM unnest(?::bigint[], ?::text[]) a(node, epoch)
JOIN epoch e ON e.node=a.node AND e.epoch=a.epoch
"""
MEASURED = """
UPDATE device d SET report_at_ms=a.at_ms, report=a.report
FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::bigint[]) a(node, at_ms, report, base_ms)
WHERE d.node=a.node AND d.report_at_ms IS NOT DISTINCT FROM a.base_ms
"""
SEEN = """
UPDATE device d SET seen_at_ms=a.at_ms FROM unnest(?::bigint[], ?::bigint[]) a(node, at_ms)
WHERE d.node=a.node AND coalesce(d.seen_at_ms, 0)<a.at_ms
"""


class Saving:
    def __init__(
        self, group: Group, presence: Presence, devices: Devices, *, in_bulk: bool
    ) -> None:
        self._group = group
        self._presence = presence
        self._devices = devices
        self._in_bulk = in_bulk

    @property
    def is_due(self) -> bool:
        """Whether there is anything to save."""
        return bool(self._presence.seen or self._presence.heads or self._devices.unsaved)

    async def save(self) -> None:
        """All of it, as it is now. Raises StoreUnavailable."""
        for part in self._presence.parts():
            await self._group.write_beside(partial(self._write, part=part), part.nodes)
            self._presence.saved(part)
        for kept in self._devices.parts():
            await self._group.write_beside(partial(self._write, part=kept), kept.nodes)
            self._devices.saved(kept)

    def save_now(self) -> None:
        """The same, for who is in no event loop. Raises StoreUnavailable."""
        for part in self._presence.parts():
            self._group.write_now(partial(self._write, part=part), nodes=part.nodes)
            self._presence.saved(part)
        for kept in self._devices.parts():
            self._group.write_now(partial(self._write, part=kept), nodes=kept.nodes)
            self._devices.saved(kept)

    def _write(self, db: Connection, part: Part | KeptReports) -> None:
        if not self._in_bulk:
            part.write(db)
        elif isinstance(part, Part):
            _write_part(db, part)
        else:
            _write_reports(db, part)


def _write_part(db: Connection, part: Part) -> None:
    """As `Part.write` does it row by row. PostgreSQL."""
    seen = sorted((node, at_ms) for node, (at_ms, _) in part.seen.items())
    newer = [row[0] for row in _bulk(db, LIVE, seen)]
    _bulk(db, STATUS, [(node, part.seen[node][1]) for node in newer])
    told = sorted((node, known.epoch) for node, known in part.heads.items())
    numbers = {row[0]: row[1] for row in _bulk(db, EPOCHS, told)}
    further = [
        (node, numbers[node], lane, genesis(epoch, lane), head.seq, head.hash, head.writer)
        for node, epoch in told
        if node in numbers
        for lane, head in part.heads[node].lanes.items()
    ]
    _bulk(db, heads.SAVE_MANY, further)


def _write_reports(db: Connection, kept: KeptReports) -> None:
    """As `KeptReports.write` does it row by row. PostgreSQL."""
    measured = [
        (device, version_of(one.at_ms, one.base_ms), one.report, one.base_ms)
        for device, one in sorted(kept.measured.items())
    ]
    _bulk(db, MEASURED, measured)
    _bulk(db, SEEN, sorted(kept.seen.items()))


def _bulk(db: Connection, sentence: str, rows: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
    """One sentence, its rows as arrays."""
    if not rows:
        return ()
    return db.execute(sentence, [list(column) for column in zip(*rows, strict=True)]).fetchall()
