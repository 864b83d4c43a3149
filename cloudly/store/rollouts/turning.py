"""A rollback: every node that has the release is ordered back to what it ran well before, a slice at a time.

Rules:
- What a node ran well before is the newest other release of which its journal proved success, but for one that is
  banned or must never run there again. A node without any keeps what it has, and its operator is called.
- Only nodes whose target is still this release are turned back: an order that somebody gave since stands.
- A node that is dark gets the order for when it comes back, and nobody waits for it.
- A walk over the grants begins again when it has ended: a node that was flashed again in the meantime is met once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cloudly.store import wanted
from cloudly.store.governance.bans import banned
from cloudly.store.rollouts.story import Story, must_lead
from cloudly.store.sql import Connection, Row

SLICE = 50
"""Orders of one decision, which is alone with the database: tens of milliseconds."""
GRANTS = (
    "SELECT g.node, g.deployment, p.release, p.closed, p.actor, p.rollback_of, n.needs_operator, l.last_seen_at_ms,"
    " n.revoked_at_ms IS NOT NULL OR n.retired_at_ms IS NOT NULL AS is_gone, n.last_good"
    " FROM rollout_grant g JOIN node n ON n.id=g.node LEFT JOIN node_live l ON l.node=g.node"
    " LEFT JOIN desired d ON d.node=g.node LEFT JOIN deployment p ON p.deployment=d.deployment"
    " WHERE g.rollout=? AND g.node>? ORDER BY g.node LIMIT ?"
)
BEFORE = (
    "SELECT p.release FROM deployment p WHERE p.node=?1 AND p.state='succeeded' AND p.release<>?2"
    " AND NOT EXISTS (SELECT 1 FROM never_again a WHERE a.node=p.node AND a.release=p.release)"
    " ORDER BY p.generation DESC"
)


@dataclass(frozen=True, slots=True)
class Turning:
    """A walk over the grants: how far it is, and how many nodes it found that are not back yet."""

    at: int = 0
    left: int = 0
    ended: int | None = None
    """What the last whole walk found; None: none has ended yet."""

    @property
    def is_round(self) -> bool:
        """The next slice is the first of a walk."""
        return self.at == 0


def waits(db: Connection, known: Story, at: int) -> bool:
    """Whether somebody of the next slice has to be turned back: a look without a write."""
    return any(_has_it(row, known) for row in _slice(db, known, at))


def turn(  # noqa: PLR0913 - which slice, when, with which ids, and under which lease
    db: Connection,
    known: Story,
    going: Turning,
    *,
    watching_since_ms: int,
    now_ms: int,
    new_id: Callable[[], str],
    lease_epoch: int,
) -> Turning:
    """Turn the next slice back, and count who is not there yet. Raises Fenced."""
    must_lead(db, lease_epoch)
    rows = _slice(db, known, going.at)
    for row in rows:
        if _has_it(row, known):
            _back(db, known, row, now_ms, new_id())
    return counted(db, known, going, watching_since_ms=watching_since_ms, now_ms=now_ms)


def counted(
    db: Connection, known: Story, going: Turning, *, watching_since_ms: int, now_ms: int
) -> Turning:
    """The walk after the next slice."""
    rows = _slice(db, known, going.at)
    left = going.left + sum(_is_under_way(row, known, watching_since_ms, now_ms) for row in rows)
    if len(rows) == SLICE:
        return replace(going, at=rows[-1]["node"], left=left)
    return Turning(ended=left)


def _slice(db: Connection, known: Story, at: int) -> list[Row]:
    return db.execute(GRANTS, (known.number, at, SLICE)).fetchall()


def _has_it(row: Row, known: Story) -> bool:
    """Its target is the release, and it was not left to its operator already."""
    return row["release"] == known.release and row["needs_operator"] is None


def _is_under_way(row: Row, known: Story, watching_since_ms: int, now_ms: int) -> bool:
    """Not dark, not gone, and on its way to what it ran before: by this rollback, or by its own failure's."""
    seen_ms = max(row["last_seen_at_ms"] or 0, watching_since_ms)
    if row["is_gone"] or seen_ms <= now_ms - known.plan.dark_after_s * 1000:
        return False
    ours = row["actor"] == _actor(known) or row["rollback_of"] == row["deployment"]
    return row["closed"] == 0 and row["release"] != known.release and bool(ours)


def _back(db: Connection, known: Story, row: Row, now_ms: int, deployment: str) -> None:
    node = row["node"]
    before = _good_before(db, node, known.release)
    if before is None:
        reason = (
            f"rollout {known.number} was rolled back, and there is no release that ran well here before:"
            " set one that works"
        )
        db.execute("UPDATE node SET needs_operator=? WHERE id=?", (reason, node))
        return
    order = wanted.Order(
        node, before, known.policy, deployment, now_ms, rollout=None, actor=_actor(known)
    )
    wanted.order(db, order)


def _good_before(db: Connection, node: int, release: int) -> int | None:
    rows = db.execute(BEFORE, (node, release)).fetchall()
    return next((int(row[0]) for row in rows if not banned(db, row[0])), None)


def _actor(known: Story) -> str:
    return f"rollout/{known.number}"
