"""What a node's report about a deployment does to the database, in the transaction that stores the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from cloudly.deployments import (
    FAILED,
    ROLLBACK_NEEDED,
    ROLLED_BACK,
    SUCCEEDED,
    Deployment,
    Effect,
    fold,
)
from cloudly.epochs import ENROLLED
from cloudly.store import outbox
from cloudly.store.rollouts import grants
from cloudly.store.sql import Connection
from cloudly.store.wanted import RESTORED, Order, WayBack, may_go_back, order, withdraw

TOLD = frozenset({SUCCEEDED, FAILED, ROLLED_BACK, ROLLBACK_NEEDED})
"""States that webhooks hear of."""


@dataclass(frozen=True, slots=True)
class Reached:
    """An `app-update` stream of a node has reached a state."""

    node: int
    deployment: str
    state: str
    reason: str
    now_ms: int


def apply(db: Connection, reached: Reached, new_id: Callable[[], str]) -> None:
    """Move the deployment, and do once what follows. An id that is not this node's is ignored."""
    row = db.execute(
        "SELECT deployment, release, state, needs_rollback, closed, rollout FROM deployment"
        " WHERE deployment=? AND node=?",
        (reached.deployment, reached.node),
    ).fetchone()
    if row is None:
        return
    before = Deployment(row[0], row[1], row[2], bool(row[3]), bool(row[4]))
    after, effect = fold(before, reached.state)
    if after == before:
        return
    db.execute(
        "UPDATE deployment SET state=?, state_at_ms=?, reason=?, needs_rollback=?, closed=? WHERE deployment=?",
        (
            after.state,
            reached.now_ms,
            reached.reason,
            after.needs_rollback,
            after.closed,
            after.deployment,
        ),
    )
    if row[5] is not None:
        _book(db, reached, after)
    _tell(db, reached, before, after)
    match effect:
        case Effect.NONE:
            pass
        case Effect.GOOD:
            _good(db, reached, after)
        case Effect.TURN_BACK:
            _turn_back(db, reached, after, new_id)
        case Effect.BACK:
            _close_rollback(db, reached, SUCCEEDED)
        case Effect.RETREAT:
            _retreat(db, reached, after, new_id)
        case Effect.STUCK:
            _close_rollback(db, reached, FAILED)
            _ask_the_operator(
                db,
                reached,
                "a rollback failed: look at the node, then set a release that works",
            )
        case _:
            assert_never(effect)


def _tell(db: Connection, reached: Reached, before: Deployment, after: Deployment) -> None:
    if after.state in TOLD and after.state != before.state:
        outbox.tell_of_deployment(db, after.state, after.deployment, reached.now_ms)


def _book(db: Connection, reached: Reached, after: Deployment) -> None:
    """To the rollout's grant, before what follows: the node's next order must not supersede what is settled."""
    grants.reached(
        db,
        reached.node,
        after.deployment,
        state=after.state,
        reason=reached.reason,
        now_ms=reached.now_ms,
    )


def _good(db: Connection, reached: Reached, succeeded: Deployment) -> None:
    db.execute(
        "UPDATE node SET last_good=?1, needs_operator=CASE needs_operator WHEN ?2 THEN ?2 END WHERE id=?3",
        (
            succeeded.release,
            RESTORED,
            reached.node,
        ),  # of a restore only the operator knows what is right
    )
    # A rollback that succeeded ends what it turned back, whether or not the node says so itself.
    ended = db.execute(
        "UPDATE deployment SET state=?, state_at_ms=?, closed=1 WHERE closed=0 AND needs_rollback=1 AND node=?"
        " AND deployment=(SELECT rollback_of FROM deployment WHERE deployment=?) RETURNING deployment",
        (ROLLED_BACK, reached.now_ms, reached.node, succeeded.deployment),
    ).fetchall()
    for row in ended:
        outbox.tell_of_deployment(db, ROLLED_BACK, row[0], reached.now_ms)


def _turn_back(
    db: Connection, reached: Reached, failed: Deployment, new_id: Callable[[], str]
) -> None:
    db.execute(
        "INSERT INTO never_again(node, release, deployment, reason, at_ms) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
        (reached.node, failed.release, failed.deployment, reached.reason, reached.now_ms),
    )
    if not _still_wanted(db, failed):
        return
    good = _good_one(db, reached, failed)
    if good.release is not None:
        _order_back(db, reached, failed, good.release, new_id, rollback_of=failed.deployment)
        return
    none = "there is no last good release to go back to"
    no = f"the last good one may not be given: {good.banned}" if good.banned else none
    _ask_the_operator(db, reached, f"a rollback is needed and {no}: set a release that works")


def _retreat(
    db: Connection, reached: Reached, failed: Deployment, new_id: Callable[[], str]
) -> None:
    """Nothing was applied. A Supervisor polls its target by itself: with the target left there, it would try later.

    Where no container runs, not even the agent's lock holds it back: with nothing to go back to, nothing is wanted.
    """
    if not _still_wanted(db, failed):
        return
    good = _good_one(db, reached, failed)
    if good.release is not None:
        _order_back(db, reached, failed, good.release, new_id, rollback_of=None)
        return
    runs = _runs(db, reached.node)
    if (
        good.banned and runs is not None
    ):  # it stays what it is: to take that away would end the agent too
        _order_back(db, reached, failed, runs, new_id, rollback_of=None)
        reason = f"the release was given up ({reached.reason}), and what it runs is banned: {good.banned}"
    elif good.banned or _never_had_a_good_one(db, reached.node):
        withdraw(db, reached.node)
        which = "release" if good.banned else "first release"
        reason = f"the {which} was given up ({reached.reason}) and withdrawn"
        reason += f"; the last good one may not be given: {good.banned}" if good.banned else ""
    else:  # what failed is what runs there, ordered once more
        reason = f"the release was given up ({reached.reason})"
    _ask_the_operator(db, reached, f"{reason}: look at the node, then order one again")


def _never_had_a_good_one(db: Connection, node: int) -> bool:
    row = db.execute("SELECT last_good FROM node WHERE id=?", (node,)).fetchone()
    return row[0] is None


def _still_wanted(db: Connection, failed: Deployment) -> bool:
    """Whether the node's target is that release still; the operator may want something else by now."""
    row = db.execute(
        "SELECT p.release FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " JOIN deployment f ON f.node=d.node WHERE f.deployment=?",
        (failed.deployment,),
    ).fetchone()
    return row is not None and bool(row[0] == failed.release)


def _good_one(db: Connection, reached: Reached, failed: Deployment) -> WayBack:
    """Where it goes back to; what failed itself is no way back."""
    good = may_go_back(db, reached.node)
    row = db.execute("SELECT last_good FROM node WHERE id=?", (reached.node,)).fetchone()
    return WayBack(None) if row[0] == failed.release else good


def _runs(db: Connection, node: int) -> int | None:
    """Its last good release, if that succeeded since the node was last flashed."""
    row = db.execute(
        "SELECT n.last_good FROM node n WHERE n.id=?1 AND EXISTS (SELECT 1 FROM deployment p WHERE p.node=n.id"
        " AND p.release=n.last_good AND p.state='succeeded' AND p.state_at_ms>=coalesce("
        " (SELECT max(e.began_at_ms) FROM epoch e WHERE e.node=n.id AND e.why=?2), 0))",
        (node, ENROLLED),
    ).fetchone()
    return None if row is None else row[0]


def _order_back(  # noqa: PLR0913 - one release instead of another
    db: Connection,
    reached: Reached,
    failed: Deployment,
    good: int,
    new_id: Callable[[], str],
    *,
    rollback_of: str | None,
) -> None:
    """Under the policy of what failed."""
    policy = db.execute(
        "SELECT policy FROM deployment WHERE deployment=?", (failed.deployment,)
    ).fetchone()[0]
    order(db, Order(reached.node, good, policy, new_id(), reached.now_ms, rollback_of))


def _close_rollback(db: Connection, reached: Reached, state: str) -> None:
    """The order to go back was carried out by the attempt that needed it, not by one of its own."""
    closed = db.execute(
        "UPDATE deployment SET state=?, state_at_ms=?, reason=?, closed=1 WHERE node=? AND rollback_of=? AND closed=0"
        " RETURNING deployment",
        (state, reached.now_ms, reached.reason, reached.node, reached.deployment),
    ).fetchall()
    for row in closed:
        outbox.tell_of_deployment(db, state, row[0], reached.now_ms)


def _ask_the_operator(db: Connection, reached: Reached, reason: str) -> None:
    db.execute("UPDATE node SET needs_operator=? WHERE id=?", (reason, reached.node))
    data = {"why": reason, "deployment": reached.deployment}
    outbox.tell_of_node(db, "node.needs_operator", reached.node, data, reached.now_ms)
