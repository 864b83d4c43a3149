"""Fleets: nodes that share a desired state.

Rules:
- Every node is in one fleet: that of the join token it came with, until an operator moves it.
- All fleets run one app, so a node that is moved keeps its volumes.
- A node with a pin of its own may be moved, and keeps what it is pinned to. Everything else that speaks against the
  release of the new fleet refuses the move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudly.governance.pins import Scope
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit, node_standing, releases
from cloudly.store.audit import By
from cloudly.store.governance import pins
from cloudly.store.governance.following import wanted_by
from cloudly.store.governance.standing import own_objection
from cloudly.store.rollouts import grants
from cloudly.store.sql import Connection, Row
from cloudly.store.wanted import Order, set_release

FLEETS = (
    "SELECT f.id, f.name, f.created_at_ms, f.release, f.policy, r.version, r.commit_id,"
    " (SELECT c.name FROM channel c WHERE c.id=f.channel) channel,"
    " (SELECT count(*) FROM node n WHERE n.fleet=f.id AND n.retired_at_ms IS NULL) nodes,"
    " (SELECT count(*) FROM node n JOIN desired d ON d.node=n.id JOIN deployment p ON p.deployment=d.deployment"
    "  WHERE n.fleet=f.id AND p.release=f.release AND p.state='succeeded' AND n.retired_at_ms IS NULL) succeeded"
    " FROM fleet f LEFT JOIN release r ON r.id=f.release"
)


def create(db: Connection, name: str, now_ms: int, *, by: By | None = None) -> int:
    """Its number. Raises BadOrder when there is one of that name."""
    row = db.execute(
        "INSERT INTO fleet(name, created_at_ms) VALUES(?,?) ON CONFLICT(name) DO NOTHING RETURNING id",
        (name, now_ms),
    ).fetchone()
    if row is None:
        raise BadOrder(f"there is a fleet {name!r} already: `cloudly fleet list` shows them")
    audit.note(db, by, "fleet.created", f"fleet/{name}")
    return int(row[0])


def listed(db: Connection) -> list[Row]:
    return db.execute(f"{FLEETS} ORDER BY f.id").fetchall()


def find(db: Connection, name: str) -> Row:
    """A fleet by its name. Raises BadOrder."""
    row: Row | None = db.execute(f"{FLEETS} WHERE f.name=?", (name,)).fetchone()
    if row is None:
        raise NoSuch("fleet", f"there is no fleet {name!r}: `cloudly fleet list` shows them")
    return row


def named(db: Connection, name: str) -> Row:
    """Its id, name, release and policy, without counting its nodes. Raises NoSuch."""
    row: Row | None = db.execute(
        "SELECT id, name, release, policy FROM fleet WHERE name=?", (name,)
    ).fetchone()
    if row is None:
        raise NoSuch("fleet", f"there is no fleet {name!r}: `cloudly fleet list` shows them")
    return row


def overview(db: Connection, now_ms: int) -> list[dict[str, Any]]:
    """Every fleet with what its new nodes get, wherever that comes from, and on how many nodes it succeeded."""
    return [_seen(db, dict(row), now_ms) for row in listed(db)]


def seen(db: Connection, name: str, now_ms: int) -> dict[str, Any]:
    """The same of one. Raises BadOrder."""
    return _seen(db, dict(find(db, name)), now_ms)


def _seen(db: Connection, fleet: dict[str, Any], now_ms: int) -> dict[str, Any]:
    wants = wanted_by(db, fleet["id"], now_ms)
    pin = pins.of(db, Scope.FLEET, fleet["id"], fleet["name"])
    if pin is not None and pin.holds(now_ms):
        fleet |= {"pinned": pin.version or "what they run", "pin": pin.origin}
    else:
        fleet |= {"pinned": None, "pin": None}
    if wants is not None and wants.release != fleet["release"]:
        fleet |= releases.named(db, wants.release)
        fleet["succeeded"] = db.execute(
            "SELECT count(*) FROM node n JOIN desired d ON d.node=n.id JOIN deployment p ON p.deployment=d.deployment"
            " WHERE n.fleet=? AND p.release=? AND p.state='succeeded'",
            (fleet["id"], wants.release),
        ).fetchone()[0]
    return fleet


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did: the new generation, or why nothing was ordered."""

    generation: int | None
    why: str = ""


def move(  # noqa: PLR0913 - whom, where to, who says so
    db: Connection,
    node: int,
    fleet: Row,
    *,
    new_id: Callable[[], str],
    now_ms: int,
    by: By | None = None,
) -> Moved:
    """Into that fleet, and to what it wants of new nodes; one in quarantine keeps what it has.

    Raises BadOrder when the node may not have that, and when it is retired.
    """
    moved = db.execute(
        "UPDATE node SET fleet=?1 WHERE id=?2 AND fleet<>?1", (fleet["id"], node)
    ).rowcount
    if moved:
        grants.supersede_node(db, node, f"it was moved to fleet {fleet['name']}", now_ms)
    done = _ordered_there(db, node, fleet, new_id=new_id, now_ms=now_ms, by=by)
    if moved or done.generation is not None:
        told = {"fleet": fleet["name"], "generation": done.generation}
        audit.note_of_node(db, by, "node.moved", node, **told)
    return done


def _ordered_there(  # noqa: PLR0913 - as `move`
    db: Connection,
    node: int,
    fleet: Row,
    *,
    new_id: Callable[[], str],
    now_ms: int,
    by: By | None,
) -> Moved:
    """What its fleet wants of it. Raises BadOrder."""
    wants = wanted_by(db, fleet["id"], now_ms)
    if wants is None:
        return Moved(None, "its fleet wants no release: it keeps what it has")
    if node_standing.is_quarantined(db, node):
        return Moved(None, "it is in quarantine: it keeps what it has")
    pinned = own_objection(db, node, wants.release, now_ms)
    if pinned:
        return Moved(None, f"it keeps what it has: it is pinned {pinned}")
    actor = by.person if by else ""
    order = Order(node, wants.release, wants.policy, new_id(), now_ms, actor=actor)
    generation = set_release(db, order, again=False)
    return Moved(generation, "" if generation else "it has that release already")


def remove(db: Connection, fleet: Row, *, by: By | None = None) -> None:
    """An empty one; nodes that retired from it go to the first. Raises BadOrder."""
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
    pins.forget(db, Scope.FLEET, fleet["id"])
    db.execute("UPDATE join_token SET fleet=1 WHERE fleet=?", (fleet["id"],))
    db.execute("UPDATE node SET fleet=1 WHERE fleet=?", (fleet["id"],))
    db.execute("DELETE FROM fleet WHERE id=?", (fleet["id"],))
    audit.note(db, by, "fleet.removed", f"fleet/{fleet['name']}")
