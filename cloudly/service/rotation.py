"""Asking nodes to draw another node token, for `cloudly node rotate` and the API.

Rules:
- A fleet is asked a slice per decision, for heartbeats wait meanwhile. What was asked is not asked twice, so an order
  that ended in the middle is given again.
- The audit has one entry per order, with the first slice that asked anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from cloudly.problems import BadOrder
from cloudly.service.orders import Write
from cloudly.store import audit, fleets, reading, rotation
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from cloudly.store.store import Store

SLICE = 500
"""Nodes of one decision: some 10 ms."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How far an order came."""

    nodes: int = 0
    """That have a node token."""
    asked: int = 0
    """That were not asked yet."""
    after: int | None = 0
    """Which node was the last; None: there are no more."""


def ask_node(db: Connection, node: Row, by: By) -> Asked:
    """`node`: a row of `reading`. Raises BadOrder for one whose agent has not enrolled."""
    if node["token_generation"] is None:
        raise BadOrder(f"node {node['node_id']} has no node token: its agent has not enrolled")
    asked = rotation.ask(db, [node["id"]], now_ms=by.at_ms)
    if asked:
        audit.note_of_node(db, by, "node.rotation_asked", node["id"])
    return Asked(1, asked, None)


def ask_named(db: Connection, node: str, by: By) -> Asked:
    """The same, `node` as operators name them. Raises BadOrder."""
    return ask_node(db, reading.find(db, node), by)


def ask_fleets(write: Write, fleet: str | None, by: By) -> Asked:
    """That fleet, or each. Raises BadOrder."""
    nodes, asked = 0, 0
    for one in write(partial(_meant, fleet=fleet)):
        done = Asked()
        while done.after is not None:
            done = write(partial(_slice, fleet=one, before=done, by=by))
        nodes, asked = nodes + done.nodes, asked + done.asked
    return Asked(nodes, asked, None)


async def ask_fleet(store: Store, fleet: str, by: By) -> Asked:
    """One fleet, beside heartbeats. Raises BadOrder, StoreUnavailable."""
    (one,) = await store.read(partial(_meant, fleet=fleet))
    done = Asked()
    while done.after is not None:
        done = await store.write(partial(_slice, fleet=one, before=done, by=by))
    return done


def _meant(db: Connection, fleet: str | None) -> Iterable[Row]:
    return fleets.listed(db) if fleet is None else [fleets.named(db, fleet)]


def _slice(db: Connection, fleet: Row, before: Asked, by: By) -> Asked:
    nodes = rotation.may_rotate(db, fleet["id"], after=before.after or 0, limit=SLICE)
    asked = rotation.ask(db, nodes, now_ms=by.at_ms)
    if asked and not before.asked:
        audit.note(db, by, "fleet.rotation_asked", f"fleet/{fleet['name']}")
    after = nodes[-1] if len(nodes) == SLICE else None
    return Asked(before.nodes + len(nodes), before.asked + asked, after)
