"""Nodes as a rollout sees them: what its selector asks of each (`node_views`), and how each stands to its release.

Rules:
- A node whose target is the release already has it, whoever ordered it and however far it is.
- A node whose target came from a younger rollout is left alone by an older one: nothing takes it back by the way.
- One text of SQL for one node and for a slice of the fleet, so that a check-in and a sweep cannot disagree.
- A revoked or retired node is no candidate.

Floors, and whatever else holds a node back, are governance's: `standing` is the one place that says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cloudly.rollouts.admission import Standing
from cloudly.rollouts.selector import NodeState, NodeView
from cloudly.store import node_views
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection

STANDINGS = (
    "SELECT n.id, n.needs_operator, p.release AS target, p.rollout AS target_of, p.ordered_at_ms,"
    " a.node AS never, a.reason AS never_reason, g.node AS granted,"
    " np.scope_id AS node_pin, np.release AS node_pin_release, np.reason AS node_pin_reason,"
    " np.until_ms AS node_pin_until_ms, fp.scope_id AS fleet_pin, fp.release AS fleet_pin_release,"
    " fp.reason AS fleet_pin_reason, fp.until_ms AS fleet_pin_until_ms"
    " FROM node n LEFT JOIN desired d ON d.node=n.id LEFT JOIN deployment p ON p.deployment=d.deployment"
    " LEFT JOIN never_again a ON a.node=n.id AND a.release=?1"
    " LEFT JOIN rollout_grant g ON g.rollout=?2 AND g.node=n.id"
    " LEFT JOIN pin np ON np.scope='node' AND np.scope_id=n.id"
    " LEFT JOIN pin fp ON fp.scope='fleet' AND fp.scope_id=n.fleet"
    " WHERE n.revoked_at_ms IS NULL AND n.retired_at_ms IS NULL AND n.id>?3 AND n.id<=?4"
)


class Question(NamedTuple):
    """For which rollout, and when. `rollout` is 0 where there is none yet: a dry run."""

    release: int
    rollout: int
    now_ms: int
    dark_after_s: int
    node_deadline_s: int
    banned: str = ""
    """Why the release must not run anywhere; empty: it may."""


def question(known: Story, banned: str, now_ms: int) -> Question:
    """That of a rollout that there is."""
    plan = known.plan
    return Question(
        known.release, known.number, now_ms, plan.dark_after_s, plan.node_deadline_s, banned
    )


class Candidate(NamedTuple):
    """A node, and how it stands to one rollout."""

    node: int
    view: NodeView
    standing: Standing
    is_awaited: bool
    """Whether the end of what it does now is to be waited for: not where it is dark, or stuck in another update."""


def one(db: Connection, node: int, asked: Question) -> Candidate | None:
    """A node that speaks right now, so it is not dark; None: it is revoked or retired."""
    row = db.execute(STANDINGS, (asked.release, asked.rollout, node - 1, node)).fetchone()
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
        row["id"]: row
        for row in db.execute(STANDINGS, (asked.release, asked.rollout, after, last)).fetchall()
    }
    found = [_candidate(standings[node], view, asked) for node, view in views if node in standings]
    return found, last if len(views) == size else None


def banned(db: Connection, release: int) -> str:
    """Why no node may run this release: its commit or the digest of an image is banned. Empty: it may run."""
    commit = db.execute("SELECT commit_id FROM release WHERE id=?", (release,)).fetchone()[0]
    images = db.execute("SELECT image FROM release_service WHERE release=?", (release,)).fetchall()
    digests = {commit, *(row[0].rpartition("@")[2] for row in images)}
    for digest in sorted(digests):
        row = db.execute("SELECT reason FROM ban WHERE digest=?", (digest,)).fetchone()
        if row is not None:
            return f"{digest[:19]} is banned: {row[0]}"
    return ""


def standing(row: Any, asked: Question) -> Standing:
    """How a node stands to the release, by its row of `STANDINGS`."""
    never = row["never_reason"] or "it needed a rollback there"
    return Standing(
        has_it=row["target"] == asked.release,
        granted=row["granted"] is not None,
        pinned=_pinned(row, asked),
        never_again=asked.banned or (never if row["never"] is not None else ""),
    )


def _pinned(row: Any, asked: Question) -> str:
    for scope, whose in (("node", ""), ("fleet", "with its fleet: ")):
        until, release = row[f"{scope}_pin_until_ms"], row[f"{scope}_pin_release"]
        holds = row[f"{scope}_pin"] is not None and (until is None or until > asked.now_ms)
        if holds and release != asked.release:
            return f"{whose}{row[f'{scope}_pin_reason'] or 'no reason was given'}"
    if asked.rollout and (row["target_of"] or 0) > asked.rollout:
        return f"rollout {row['target_of']}, which is younger, gave it its target"
    return ""


def _candidate(row: Any, view: NodeView, asked: Question) -> Candidate:
    begun = asked.now_ms - asked.node_deadline_s * 1000
    stuck = view.state == NodeState.UPDATING and (
        row["needs_operator"] is not None or row["ordered_at_ms"] <= begun
    )
    awaited = view.state != NodeState.DARK and not stuck
    return Candidate(row["id"], view, standing(row, asked), awaited)
