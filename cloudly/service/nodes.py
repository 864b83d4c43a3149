"""One node in full, and nodes found by what they are: the questions behind `cloudly node` and the API.

Rules:
- What a server has in memory (last seen, volatile values) is newer than the database.
- Looking for nodes by a word or a state reads so many ids per request and goes on with the next: no question holds the
  database, or the loop, for longer than a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.lowlevel import checkpoint

from cloudly.balena.both import BothSides, both_sides
from cloudly.reports import load
from cloudly.store import lists, reading
from cloudly.store.devices import Devices
from cloudly.store.sql import Connection, Row
from cloudly.store.store import Store
from cloudly.views import NodeView, asks_operator, fence_notice, node_view

WINDOW = 10_000
"""Ids that the database looks through at a time: some 10 ms."""
PART = 200
"""Nodes that are read at a time, and judged here: the same."""
MOST_LOOKS = 50
ESCAPE = str.maketrans({"%": "!%", "_": "!_", "!": "!!"})


@dataclass(frozen=True, slots=True)
class NodeInFull:
    """All that Cloudly can tell of a node at one moment."""

    row: dict[str, Any]
    view: NodeView
    reported: dict[str, Any]
    """What its agent said of itself, as it came."""
    both: BothSides
    asks: tuple[str, ...]
    """What only an operator can settle."""
    notice: str
    parts: dict[str, list[dict[str, Any]]]
    """deployments, never_again, enrollments, lanes, streams, transitions: rows of `reading`, the newest first."""


PARTS: dict[str, Callable[[Connection, int], list[Row]]] = {
    "deployments": reading.deployments,
    "never_again": reading.never_again,
    "enrollments": reading.enrollments,
    "lanes": reading.lanes,
    "streams": reading.streams,
    "transitions": reading.transitions,
}


def in_full(
    db: Connection, row: Mapping[str, Any], devices: Devices, *, now_ms: int, every_s: float
) -> NodeInFull:
    """`row` is one of `reading.NODES`, fresh."""
    known = dict(row)
    versions = reading.versions(db)
    return NodeInFull(
        row=known,
        view=node_view(known, versions=versions, now_ms=now_ms, every_s=every_s),
        reported=load(known["reported"]),
        both=both_sides(db, devices, known, now_ms),
        asks=asks_operator(known),
        notice=fence_notice(known, now_ms),
        parts={
            name: [dict(one) for one in question(db, known["id"])]
            for name, question in PARTS.items()
        },
    )


MAY_BE = {
    "retired": "n.retired_at_ms IS NOT NULL",
    "quarantined": "n.quarantined_at_ms IS NOT NULL",
    "revoked": "n.revoked_at_ms IS NOT NULL",
    "needs-operator": "(n.needs_operator IS NOT NULL OR f.alarm=1)",
    "new": "l.last_seen_at_ms IS NULL",
}
"""What must hold in the database of a node in that state; whether it is in it is judged here (`views.state_of`)."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which nodes are meant; None: any."""

    fleet: int | None = None
    words: str | None = None
    """In the host name, or the beginning of the id."""
    state: str | None = None

    @property
    def is_slow(self) -> bool:
        """No index helps."""
        return self.words is not None or self.state is not None

    def condition(self) -> tuple[str, list[Any]]:
        """What the database can tell of it."""
        parts = ["n.id<?", "n.id>=?"]
        values: list[Any] = []
        if self.state in MAY_BE:
            parts.append(MAY_BE[self.state])
        if self.fleet is not None:
            parts.append("n.fleet=?")
            values.append(self.fleet)
        if self.words is not None:
            parts.append(
                "(lower(n.hostname) LIKE lower(?) ESCAPE '!' OR n.node_id LIKE ? ESCAPE '!')"
            )
            meant = self.words.translate(ESCAPE)
            values += [f"%{meant}%", f"{meant}%"]
        return " AND ".join(parts), values


View = Callable[[Mapping[str, Any], Mapping[str, str]], NodeView]


async def search(
    store: Store, meant: Search, *, after: int | None, limit: int, view: View
) -> tuple[list[NodeView], int | None]:
    """The newest first, and where to go on; fewer than `limit`, or none, may come before the end."""
    below = lists.LAST if after is None else after
    versions = await store.read(reading.versions)
    if not meant.is_slow:
        rows = await store.read(partial(_rows, meant=meant, below=below, floor=0, limit=limit + 1))
        views = [view(store.fresh(row), versions) for row in rows[:limit]]
        return views, views[-1].number if len(rows) > limit else None
    below = min(below, 1 + await store.read(lists.highest_node))
    found: list[NodeView] = []
    for _ in range(MOST_LOOKS):
        floor = max(0, below - WINDOW)
        ask = partial(_rows, meant=meant, below=below, floor=floor, limit=PART)
        rows = await store.read(ask)
        for row in rows:
            one = view(store.fresh(row), versions)
            if meant.state is not None and one.state != meant.state:
                continue
            if len(found) == limit:
                return found, found[-1].number
            found.append(one)
        below = rows[-1]["id"] if len(rows) == PART else floor
        if below <= 1:
            return found, None
        await checkpoint()  # SQLite answers without letting anybody else in
    return found, below


def _rows(db: Connection, meant: Search, below: int, floor: int, limit: int) -> list[Row]:
    condition, values = meant.condition()
    return db.execute(
        f"{reading.NODES} WHERE {condition} ORDER BY n.id DESC LIMIT ?",
        (below, floor, *values, limit),
    ).fetchall()
