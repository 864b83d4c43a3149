"""Nodes as selectors, plans and admissions see them, a slice at a time: a million of them are never in memory at once.

Rules:
- `version` is of the release that the node's journal proved last (`node.last_good`). A node that has proved none is
  taken at its word, if it names a release that there is.
- A node is dark when it was not heard of for `dark_after_ms`; one that never spoke, when it is known for so long.
- While anything that was ordered is under way, also a way back, it is updating; only then it is failed or idle.
- A retired node is gone: no rollout and no sweep counts it. `retired=True` shows it nevertheless.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cloudly.deployments import FAILED, ROLLED_BACK
from cloudly.reports import load, text
from cloudly.rollouts.selector import NodeState, NodeView, Selector
from cloudly.store.sql import Connection

SLICE = 1000
"""Rows per question: a page of a few hundred kilobytes, a few milliseconds of a database's time."""
HEARTBEATS_DARK = 3
"""Silence of so many intervals is dark: one lost heartbeat is weather, two are news."""

VIEWS = (
    "SELECT n.id, n.node_id, f.name AS fleet, n.labels, n.device_type, n.agent_version, g.version AS proved,"
    " CASE WHEN n.last_good IS NULL THEN s.reported END AS told, n.quarantined_at_ms,"
    " coalesce(l.last_seen_at_ms, n.created_at_ms) AS heard_at_ms,"
    " p.closed, p.state, p.rollback_of, b.state AS before"
    " FROM node n JOIN fleet f ON f.id=n.fleet LEFT JOIN release g ON g.id=n.last_good"
    " LEFT JOIN node_live l ON l.node=n.id LEFT JOIN node_status s ON s.node=n.id AND n.last_good IS NULL"
    " LEFT JOIN desired d ON d.node=n.id LEFT JOIN deployment p ON p.deployment=d.deployment"
    " LEFT JOIN deployment b ON b.node=p.node AND b.generation=p.generation-1 AND b.state_at_ms=p.ordered_at_ms"
)  # b: what was given up in the very decision that ordered p, which is a way back without being a rollback


def slices(  # noqa: PLR0913 - where to go on, and what dark means
    db: Connection,
    *,
    after_id: int,
    limit: int,
    now_ms: int,
    dark_after_ms: int,
    retired: bool = False,
    fleet: int | None = None,
) -> list[tuple[int, NodeView]]:
    """The next nodes by number, after that one; go on after the last one's. Empty: these were all."""
    gone = "" if retired else " AND n.retired_at_ms IS NULL"
    within, words = ("", ()) if fleet is None else (" AND n.fleet=?", (fleet,))
    rows = db.execute(
        f"{VIEWS} WHERE n.id>?{within}{gone} ORDER BY n.id LIMIT ?", (after_id, *words, limit)
    )
    versions: dict[str, str] = {}
    return [
        (int(row["id"]), _view(db, row, versions, heard_after_ms=now_ms - dark_after_ms))
        for row in rows.fetchall()
    ]


def one(db: Connection, node: int, *, now_ms: int, dark_after_ms: int) -> NodeView | None:
    """The same of one node, retired or not; None: there is none."""
    row = db.execute(f"{VIEWS} WHERE n.id=?", (node,)).fetchone()
    return None if row is None else _view(db, row, {}, heard_after_ms=now_ms - dark_after_ms)


def selected(
    db: Connection, selector: Selector, *, now_ms: int, dark_after_ms: int, retired: bool = False
) -> Iterator[tuple[int, NodeView]]:
    """Every node that it means, one slice in memory. For who holds the connection throughout."""
    after = 0
    while True:
        some = slices(
            db,
            after_id=after,
            limit=SLICE,
            now_ms=now_ms,
            dark_after_ms=dark_after_ms,
            retired=retired,
        )
        yield from ((number, view) for number, view in some if selector.matches(view))
        if len(some) < SLICE:
            return
        after = some[-1][0]


def _view(db: Connection, row: Any, versions: dict[str, str], *, heard_after_ms: int) -> NodeView:
    return NodeView(
        node_id=row["node_id"],
        fleet=row["fleet"],
        labels={} if row["labels"] == "{}" else _labels(row["labels"]),
        device_type=row["device_type"],
        version=row["proved"] or _told(db, row["told"], versions),
        agent_version=row["agent_version"],
        state=_state(row, heard_after_ms),
    )


def _labels(document: str) -> dict[str, str]:
    return {str(name): str(value) for name, value in json.loads(document).items()}


def _told(db: Connection, reported: str | None, versions: dict[str, str]) -> str:
    """Of the release that it says it runs; empty: it says none, or one that nobody here knows."""
    commit = text(load(reported).get("release")) if reported else None
    if not commit:
        return ""
    if commit not in versions:
        row = db.execute("SELECT version FROM release WHERE commit_id=?", (commit,)).fetchone()
        versions[commit] = "" if row is None else str(row[0])
    return versions[commit]


def _state(row: Any, heard_after_ms: int) -> NodeState:
    if row["quarantined_at_ms"] is not None:
        return NodeState.QUARANTINED
    if row["heard_at_ms"] < heard_after_ms:
        return NodeState.DARK
    if row["closed"] == 0:
        return NodeState.UPDATING
    turned_back = row["rollback_of"] is not None or row["before"] == FAILED
    return NodeState.FAILED if turned_back or row["state"] in _ENDED_BADLY else NodeState.IDLE


_ENDED_BADLY = (FAILED, ROLLED_BACK)
