"""Desired state: which release should run on a node, since when, and what must never run on it again.

Rules:
- Every order of a person, a fleet or an enrollment asks `governance.standing` first. What was ordered before stands.
- What a node's Supervisor would install is never a banned release: if nothing else is known, nothing is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import ValidationError

from cloudly.deployments import ORDERED
from cloudly.governance.standing import refusals
from cloudly.problems import BadOrder
from cloudly.store import node_standing, outbox
from cloudly.store.governance import following
from cloudly.store.governance.bans import banned
from cloudly.store.governance.standing import standing_of
from cloudly.store.releases import NewRelease, define_release, untellable
from cloudly.store.rollouts import grants
from cloudly.store.sql import Connection
from cloudly.store.targets import app_target
from interfaces.desired import DesiredState

__all__ = [
    "FIRST_FLEET",
    "NewRelease",
    "Order",
    "define_release",
    "order",
    "order_again",
    "order_default",
    "overtake",
    "set_default",
    "set_release",
    "withdraw",
]

RESTORED = (
    "Cloudly was restored from a backup: check the target, then set the release that is wanted"
)
FIRST_FLEET = 1
"""Where nodes are that nobody has put elsewhere."""


@dataclass(frozen=True, slots=True)
class Order:
    """A release as one node's target."""

    node: int
    release: int
    policy: str
    deployment: str
    now_ms: int
    rollback_of: str | None = None
    rollout: int | None = None
    """That gives the order."""
    actor: str = ""
    """Who ordered it; empty: Cloudly itself."""
    goes_on: bool = False
    """It is the order that the node has, once more: what comes of it counts where that one's would have."""


def order(db: Connection, new: Order) -> int:
    """Make a release the node's desired state; returns the new generation.

    A rollout's grant that is in flight there goes on with it, or is superseded by it.
    """
    generation = _generation(db, new.node) + 1
    if new.goes_on:
        grants.take_over(db, new.node, new.deployment)
    else:
        whose = f" by {new.actor}" if new.actor else ""
        grants.supersede_node(db, new.node, f"it was given another order{whose}", new.now_ms)
    db.execute(
        "INSERT INTO deployment(deployment, node, release, generation, policy, rollback_of, ordered_at_ms, state,"
        " reason, needs_rollback, closed, rollout, actor) VALUES(?,?,?,?,?,?,?,?,'',0,0,?,?)",
        (
            new.deployment,
            new.node,
            new.release,
            generation,
            new.policy,
            new.rollback_of,
            new.now_ms,
            ORDERED,
            new.rollout,
            new.actor,
        ),
    )
    _point(db, new.node, generation, new.deployment)
    if new.rollout is None or new.goes_on:  # a rollout is no answer of who looked at this node
        db.execute("UPDATE node SET needs_operator=NULL WHERE id=?", (new.node,))
    return generation


def withdraw(db: Connection, node: int) -> None:
    """No release is wanted there any more, as a new generation."""
    _point(db, node, _generation(db, node) + 1, None)


def _generation(db: Connection, node: int) -> int:
    row = db.execute("SELECT generation FROM desired WHERE node=?", (node,)).fetchone()
    return 0 if row is None else int(row[0])


def _point(db: Connection, node: int, generation: int, deployment: str | None) -> None:
    db.execute(
        "INSERT INTO desired(node, generation, deployment) VALUES(?,?,?) ON CONFLICT(node) DO UPDATE"
        " SET generation=excluded.generation, deployment=excluded.deployment",
        (node, generation, deployment),
    )


def overtake(db: Connection, node: int, *, observed: int, deployment: str, now_ms: int) -> None:
    """The node has seen a generation that this database never gave: it was restored from a backup.

    The same target goes out above that generation, as a deployment that the node has not attempted.
    """
    if observed <= _generation(db, node):
        return
    row = db.execute(
        "SELECT p.release, p.policy, p.rollback_of, p.rollout, p.actor FROM desired d"
        " JOIN deployment p ON p.deployment=d.deployment WHERE d.node=?",
        (node,),
    ).fetchone()
    if row is None:
        _point(db, node, observed + 1, None)
    else:
        db.execute("UPDATE desired SET generation=? WHERE node=?", (observed, node))
        again = Order(node, row[0], row[1], deployment, now_ms, *row[2:])
        order(db, replace(again, goes_on=True))
    _ask_the_operator(db, node, RESTORED, now_ms)


def set_release(db: Connection, new: Order, *, again: bool, force: bool = False) -> int | None:
    """The operator's order; None when the node has it already. `force`: also in quarantine.

    Raises BadOrder for a release that it may not have, for one that could not be told to it, and for a node that gets
    no orders.
    """
    node_standing.must_take_orders(db, new.node, force=force)
    stands = standing_of(db, new.node, new.release, new.now_ms)
    if stands.banned:
        raise BadOrder(stands.banned)
    if stands.never_again and not again:
        raise BadOrder(
            f"this release needed a rollback there before ({stands.never_again});"
            " to try it nevertheless, say --again"
        )
    if not again and _has_it(db, new):
        db.execute(
            "UPDATE node SET needs_operator=NULL WHERE id=? AND needs_operator=?",
            (new.node, RESTORED),
        )
        return None
    for why in refusals(stands):
        raise BadOrder(why)
    _tellable(db, new)
    db.execute("DELETE FROM never_again WHERE node=? AND release=?", (new.node, new.release))
    return order(db, new)


def _tellable(db: Connection, new: Order) -> None:
    """Build what the node will be told: what cannot be built is refused here, and not in each of its heartbeats."""
    try:
        app = app_target(db, new.release, new.policy, new.deployment, new.rollback_of)
        DesiredState(generation=_generation(db, new.node) + 1, app=app)
    except ValidationError as problem:
        raise untellable(problem) from None


def _has_it(db: Connection, new: Order) -> bool:
    row = db.execute(
        "SELECT p.release, p.policy, p.state, p.closed FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " WHERE d.node=?",
        (new.node,),
    ).fetchone()
    if row is None or (row[0], row[1]) != (new.release, new.policy):
        return False
    return row[2] == "succeeded" or not row[3]


def set_default(db: Connection, fleet: int, release: int, policy: str, *, now_ms: int) -> None:
    """What nodes that enroll into this fleet later shall run. Raises BadOrder."""
    following.must_take_default(db, fleet, release, now_ms)
    try:
        app_target(db, release, policy, "any", None)
    except ValidationError as problem:
        raise untellable(problem) from None
    db.execute("UPDATE fleet SET release=?, policy=? WHERE id=?", (release, policy, fleet))


def order_default(db: Connection, node: int, *, deployment: str, now_ms: int) -> None:
    """What its fleet wants of a new node, if anything; what it may not have is not ordered, and an operator asked."""
    fleet = db.execute("SELECT fleet FROM node WHERE id=?", (node,)).fetchone()[0]
    wants = following.wanted_by(db, fleet, now_ms)
    if wants is None:
        return
    for why in refusals(standing_of(db, node, wants.release, now_ms)):
        _ask_the_operator(db, node, f"it enrolled, and was given no release: {why}", now_ms)
        return
    order(db, Order(node, wants.release, wants.policy, deployment, now_ms))


def order_again(db: Connection, node: int, *, deployment: str, now_ms: int) -> None:
    """A reflashed node starts from nothing: what it had begun or finished is ordered anew, unless it must not run.

    In the place of a release that was banned since comes its last good one, or nothing.
    """
    row = db.execute(
        "SELECT p.release, p.policy, p.state, p.rollout, p.actor, EXISTS (SELECT 1 FROM never_again a"
        " WHERE a.node=p.node AND a.release=p.release) AS refused"
        " FROM desired d JOIN deployment p ON p.deployment=d.deployment WHERE d.node=?",
        (node,),
    ).fetchone()
    if row is None:
        return
    why = banned(db, row["release"])
    again = Order(node, row["release"], row["policy"], deployment, now_ms)
    if why:
        _in_its_place(db, again, why)
    elif row["state"] != ORDERED and not row["refused"]:
        order(db, replace(again, rollout=row["rollout"], actor=row["actor"], goes_on=True))


def _in_its_place(db: Connection, of: Order, why: str) -> None:
    """Instead of a banned release; an operator is asked, whatever that is."""
    good = may_go_back(db, of.node)
    if good.release is not None:
        order(db, Order(of.node, good.release, of.policy, of.deployment, of.now_ms))
    else:
        grants.supersede_node(db, of.node, f"it starts from nothing, and {why}", of.now_ms)
        withdraw(db, of.node)
    _ask_the_operator(db, of.node, f"it starts from nothing, and {why}", of.now_ms)


@dataclass(frozen=True, slots=True)
class WayBack:
    """Where a node can go back to."""

    release: int | None
    banned: str = ""
    """Why its last good release is given to nobody; empty: that is not the reason."""


def may_go_back(db: Connection, node: int) -> WayBack:
    """Its last good release, unless that failed there or is banned. No pin, channel or floor stands in the way."""
    row = db.execute(
        "SELECT n.last_good FROM node n WHERE n.id=? AND NOT EXISTS"
        " (SELECT 1 FROM never_again a WHERE a.node=n.id AND a.release=n.last_good)",
        (node,),
    ).fetchone()
    if row is None or row[0] is None:
        return WayBack(None)
    why = banned(db, row[0])
    return WayBack(None, why) if why else WayBack(row[0])


def _ask_the_operator(db: Connection, node: int, why: str, now_ms: int) -> None:
    db.execute("UPDATE node SET needs_operator=? WHERE id=?", (why, node))
    outbox.tell_of_node(db, "node.needs_operator", node, {"why": why}, now_ms)
