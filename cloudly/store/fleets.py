"""Fleets: nodes that share a desired state.

Rules:
- Every node is in one fleet: that of the join token it came with, until an operator moves it.
- All fleets run one app, so a node that is moved keeps its volumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloudly.problems import BadOrder
from cloudly.store.sql import Connection, Row
from cloudly.store.wanted import Order, set_release

FLEETS = (
    "SELECT f.id, f.name, f.created_at_ms, f.release, f.policy, r.version, r.commit_id,"
    " (SELECT count(*) FROM node n WHERE n.fleet=f.id) nodes,"
    " (SELECT count(*) FROM node n JOIN desired d ON d.node=n.id JOIN deployment p ON p.deployment=d.deployment"
    "  WHERE n.fleet=f.id AND p.release=f.release AND p.state='succeeded') succeeded"
    " FROM fleet f LEFT JOIN release r ON r.id=f.release"
)


def create(db: Connection, name: str, now_ms: int) -> int:
    """Its number. Raises BadOrder when there is one of that name."""
    row = db.execute(
        "INSERT INTO fleet(name, created_at_ms) VALUES(?,?) ON CONFLICT(name) DO NOTHING RETURNING id",
        (name, now_ms),
    ).fetchone()
    if row is None:
        raise BadOrder(f"there is a fleet {name!r} already: `cloudly fleet list` shows them")
    return int(row[0])


def listed(db: Connection) -> list[Row]:
    return db.execute(f"{FLEETS} ORDER BY f.id").fetchall()


def find(db: Connection, name: str) -> Row:
    """A fleet by its name. Raises BadOrder."""
    row: Row | None = db.execute(f"{FLEETS} WHERE f.name=?", (name,)).fetchone()
    if row is None:
        raise BadOrder(f"there is no fleet {name!r}: `cloudly fleet list` shows them")
    return row


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did: the new generation, or why nothing was ordered."""

    generation: int | None
    why: str = ""


def move(db: Connection, node: int, fleet: Row, *, new_id: Callable[[], str], now_ms: int) -> Moved:
    """Into that fleet, and to what it shall run. Raises BadOrder when the node must never run that again."""
    db.execute("UPDATE node SET fleet=? WHERE id=?", (fleet["id"], node))
    if fleet["release"] is None:
        return Moved(None, "its fleet wants no release: it keeps what it has")
    order = Order(node, fleet["release"], fleet["policy"], new_id(), now_ms)
    generation = set_release(db, order, again=False)
    return Moved(generation, "" if generation else "it has that release already")


def remove(db: Connection, fleet: Row) -> None:
    """An empty one. Raises BadOrder."""
    if fleet["nodes"]:
        raise BadOrder(f"{fleet['nodes']} nodes are in fleet {fleet['name']!r}: move them first")
    tokens = db.execute(
        "SELECT count(*) FROM join_token WHERE fleet=? AND revoked_at_ms IS NULL AND uses_left>0",
        (fleet["id"],),
    ).fetchone()[0]
    if tokens:
        raise BadOrder(
            f"{tokens} join tokens lead into fleet {fleet['name']!r}: `cloudly token revoke` them first"
        )
    if fleet["id"] == 1:
        raise BadOrder("the first fleet is where nodes are that nobody put elsewhere: it stays")
    db.execute("UPDATE join_token SET fleet=1 WHERE fleet=?", (fleet["id"],))
    db.execute("DELETE FROM fleet WHERE id=?", (fleet["id"],))
