"""Walks over many rows beside the hot path, a slice at a time: who is still to come, and who fell silent in a soak.

Rules:
- A slice is one question; between two of them others have their turn. A walk goes round and begins again where it is:
  it has seen everybody when it is back.
- Whoever is still to come ends the walk, and the next one begins with him: while a phase fills, that is one slice.
  Only when nobody is left is the whole fleet looked at, once.
- What a walk found holds for when it began: `Sweep.began_ms`.
- Nodes that are dark are not waited for; but right after an outage they are, for they may only be late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloudly.rollouts.admission import is_to_come
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Grant, Sweep, cutoffs
from cloudly.rollouts.counts import Outcome
from cloudly.rollouts.membership import place
from cloudly.rollouts.plan import Plan
from cloudly.store.rollouts import counters
from cloudly.store.rollouts.candidates import Candidate, Question, governed, question, slice_of
from cloudly.store.rollouts.observing import SLACK_MS, grant
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection

WATCHED = (
    "SELECT g.node, n.node_id, g.phase, g.at_ms, g.outcome, l.last_seen_at_ms FROM rollout_grant g"
    " JOIN node n ON n.id=g.node LEFT JOIN node_live l ON l.node=g.node"
)
AHEAD = (
    "SELECT n.id, n.node_id FROM node n LEFT JOIN rollout_grant g ON g.rollout=? AND g.node=n.id"
    " WHERE n.id>? AND n.id<=? AND g.node IS NULL ORDER BY n.id LIMIT ?"
)
STRIDE = 4000
"""Numbers that are passed over at once where all nodes have the order, or come later by their place: some 10 ms."""
SLICE = 500
"""Nodes: some ten milliseconds of one core."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a look at the whole fleet is. Numbers of nodes."""

    phase: int = -1
    opened_at_ms: int = 0
    began_ms: int = 0
    settled: int = 0
    start: int = 0
    at: int = 0
    has_turned: bool = False
    """It has passed the end of the fleet: what is left is what lies before `start`."""


def walk(
    db: Connection,
    known: Story,
    before: Walk | None,
    now_ms: int,
    *,
    is_dark_awaited: bool = False,
) -> tuple[Walk, Sweep | None]:
    """The next slice; the sweep that it ends, if it does."""
    live = counters.live(db, known)
    going = _begun(known, live, before, now_ms)
    ahead = _ahead(db, known, live, going.at)
    if ahead > going.at:
        return _passed(db, going, ahead)
    asked = question(known, now_ms, is_dark_awaited=is_dark_awaited)
    nodes, last = slice_of(db, going.at, SLICE, asked)
    for each in nodes:
        if going.has_turned and each.node > going.start:
            return _ended(going, 0)
        if each.is_awaited and _is_to_come(db, each, live, known.plan, asked):
            return _ended(replace(going, at=each.node - 1), 1)
    if last is not None:
        return replace(going, at=last), None
    return _at_the_end(going)


def _ahead(db: Connection, known: Story, live: Rollout, at: int) -> int:
    """Up to which number nobody needs a look: by the grants alone, and the place that a node's id is."""
    phase, salt = known.plan.phases[live.phase], live.salt
    shares = phase.share_bp if _is_by_place(known, live) else None
    most = 1 if shares is None else STRIDE
    for number, node_id in db.execute(AHEAD, (known.number, at, at + STRIDE, most)).fetchall():
        if shares is None or place(salt, node_id) < shares:
            return int(number) - 1
    return at + STRIDE


def _is_by_place(known: Story, live: Rollout) -> bool:
    """Whether the phase takes nodes by their place and nothing else."""
    opened = known.plan.phases[: live.phase + 1]
    return live.present.widened_at_ms is None and all(one.selector is None for one in opened)


def _passed(db: Connection, going: Walk, at: int) -> tuple[Walk, Sweep | None]:
    """So far nobody is to come."""
    if going.has_turned and at >= going.start:
        return _ended(going, 0)
    newest = db.execute("SELECT max(id) FROM node").fetchone()[0] or 0
    return (replace(going, at=at), None) if at < newest else _at_the_end(going)


def _at_the_end(going: Walk) -> tuple[Walk, Sweep | None]:
    """It goes on before where it began; there it ends."""
    if going.has_turned or going.start == 0:
        return _ended(going, 0)
    return replace(going, at=0, has_turned=True), None


def _is_to_come(
    db: Connection, node: Candidate, live: Rollout, plan: Plan, asked: Question
) -> bool:
    """Governance is asked last: it costs some questions for each node."""
    if not is_to_come(node.view, live, plan, asked.now_ms, node.standing):
        return False
    return is_to_come(node.view, live, plan, asked.now_ms, governed(db, node, asked))


def _begun(known: Story, live: Rollout, before: Walk | None, now_ms: int) -> Walk:
    """The walk that is going on; or a new one, of another phase or because the last one has ended."""
    present = known.believed.present
    if (
        before is not None
        and before.began_ms
        and (before.phase, before.opened_at_ms) == (known.believed.phase, present.opened_at_ms)
    ):
        return before
    at = 0 if before is None else before.at
    settled = live.present.counts.settled
    return Walk(known.believed.phase, present.opened_at_ms, now_ms, settled, start=at, at=at)


def _ended(going: Walk, to_come: int) -> tuple[Walk, Sweep]:
    sweep = Sweep(going.phase, going.began_ms, going.settled, to_come)
    return Walk(at=going.at), sweep


def fell_silent(
    db: Connection, known: Story, after: int, *, watching_since_ms: int, now_ms: int
) -> tuple[int, tuple[Grant, ...]]:
    """Of the next slice of grants, who succeeded in the present phase and is not heard of; and where to go on."""
    _, dark_ms = cutoffs(known.plan, now_ms)
    if watching_since_ms > dark_ms:
        return 0, ()
    rows = db.execute(
        f"{WATCHED} WHERE g.rollout=? AND g.node>? ORDER BY g.node LIMIT ?",
        (known.number, after, SLICE),
    ).fetchall()
    silent = tuple(
        grant(row, watching_since_ms, succeeded=True)
        for row in rows
        if (row["outcome"], row["phase"]) == (Outcome.SUCCEEDED, known.believed.phase)
        and (row["last_seen_at_ms"] or 0) <= dark_ms - SLACK_MS
    )
    return (rows[-1]["node"] if len(rows) == SLICE else 0), silent


def still_silent(
    db: Connection, known: Story, silent: tuple[Grant, ...], watching_since_ms: int
) -> tuple[Grant, ...]:
    """Those of them for which it is true in this transaction, too."""
    found = []
    for one in silent:
        row = db.execute(
            f"{WATCHED} WHERE g.rollout=? AND n.node_id=?", (known.number, one.node_id)
        ).fetchone()
        if row is not None and row["outcome"] == Outcome.SUCCEEDED:
            found.append(grant(row, watching_since_ms, succeeded=True))
    return tuple(found)
