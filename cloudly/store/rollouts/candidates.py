"""Nodes as a rollout sees them: what its selector asks of each (`node_views`), and how each stands to its release.

Rules:
- A node whose target is the release already has it, whoever ordered it and however far it is.
- A node whose target came from a younger rollout is left alone by an older one: nothing takes it back by the way.
- Of pins, bans, channels and floors governance is asked, node by node: so only of those that nothing else keeps out.
- A check-in and a sweep ask the same functions, so they cannot disagree.
- A revoked or retired node is no candidate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from cloudly.rollouts.admission import Standing
from cloudly.rollouts.selector import NodeState, NodeView
from cloudly.store import node_views
from cloudly.store.governance.standing import standing_of
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection

STANDINGS = (
    "SELECT n.id, n.needs_operator, p.release AS target, p.rollout AS target_of, p.ordered_at_ms, g.node AS granted"
    " FROM node n LEFT JOIN desired d ON d.node=n.id LEFT JOIN deployment p ON p.deployment=d.deployment"
    " LEFT JOIN rollout_grant g ON g.rollout=? AND g.node=n.id"
    " WHERE n.revoked_at_ms IS NULL AND n.retired_at_ms IS NULL AND n.id>? AND n.id<=?"
)


class Question(NamedTuple):
    """For which rollout, and when. `rollout` is 0 where there is none yet: a dry run."""

    release: int
    rollout: int
    now_ms: int
    dark_after_s: int
    node_deadline_s: int
    is_dark_awaited: bool = False
    """Who is silent may only not have found Cloudly again: it was away until a moment ago."""


def question(known: Story, now_ms: int, *, is_dark_awaited: bool = False) -> Question:
    """That of a rollout that there is."""
    plan = known.plan
    return Question(
        known.release,
        known.number,
        now_ms,
        plan.dark_after_s,
        plan.node_deadline_s,
        is_dark_awaited,
    )


class Candidate(NamedTuple):
    """A node, and how it stands to one rollout."""

    node: int
    view: NodeView
    standing: Standing
    """Only what is the rollout's own; `governed` says all of it."""
    is_awaited: bool
    """Whether the end of what it does now is to be waited for: not where it is dark, or stuck in another update."""


def one(db: Connection, node: int, asked: Question) -> Candidate | None:
    """A node that speaks right now, so it is not dark; None: it is revoked or retired."""
    row = db.execute(STANDINGS, (asked.rollout, node - 1, node)).fetchone()
    if row is None:
        return None
    view = node_views.one(db, node, now_ms=asked.now_ms, dark_after_ms=asked.now_ms)
    return None if view is None else _candidate(row, view, asked)


def slice_of(
    db: Connection, after: int, size: int, asked: Question
) -> tuple[list[Candidate], int | None]:
    """Of the next nodes by number those that are candidates, and where to go on; None: these were the last."""
    views = node_views.slices(
        db,
        after_id=after,
        limit=size,
        now_ms=asked.now_ms,
        dark_after_ms=asked.dark_after_s * 1000,
    )
    if not views:
        return [], None
    last = views[-1][0]
    standings = {
        row["id"]: row for row in db.execute(STANDINGS, (asked.rollout, after, last)).fetchall()
    }
    found = [_candidate(standings[node], view, asked) for node, view in views if node in standings]
    return found, last if len(views) == size else None


def governed(db: Connection, candidate: Candidate, asked: Question) -> Standing:
    """All that speaks against it: what is the rollout's own, and what operators have decided."""
    own, theirs = candidate.standing, standing_of(db, candidate.node, asked.release, asked.now_ms)
    return replace(
        theirs, has_it=own.has_it, granted=own.granted, pinned=own.pinned or theirs.pinned
    )


def _standing(row: Any, asked: Question) -> Standing:
    """What is the rollout's own, by a row of `STANDINGS`."""
    younger = asked.rollout and (row["target_of"] or 0) > asked.rollout
    return Standing(
        has_it=row["target"] == asked.release,
        granted=row["granted"] is not None,
        pinned=f"to its target, by rollout {row['target_of']}, which is younger" if younger else "",
    )


def _candidate(row: Any, view: NodeView, asked: Question) -> Candidate:
    begun = asked.now_ms - asked.node_deadline_s * 1000
    stuck = view.state == NodeState.UPDATING and (
        row["needs_operator"] is not None or row["ordered_at_ms"] <= begun
    )
    awaited = (view.state != NodeState.DARK or asked.is_dark_awaited) and not stuck
    return Candidate(row["id"], view, _standing(row, asked), awaited)
