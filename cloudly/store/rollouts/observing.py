"""What the leading process sees of one rollout, beside its facts: how many, which failed, who is silent.

Rules:
- A node that was revoked, quarantined, retired or pinned in mid-flight is superseded here, and not where that was
  ordered: so it holds for whoever orders it.
- `closes` and `news` are asked again in the decision that writes the fact; a look that finds nothing writes nothing.
- A node's last heartbeat may be in the memory of the process that got it: silence is counted from `SLACK_MS` later.
- Where nobody listens nobody is silent: silence counts from `Beside.watching_since_ms` at the earliest. And nobody is
  overdue before he had `return_ms` to tell what became of him while nobody listened.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudly.rollouts.counting import Bad, Decision, Grant, Observed, Sweep, cutoffs, late_outcome
from cloudly.rollouts.counts import BAD, Outcome
from cloudly.store.rollouts import counters
from cloudly.store.rollouts.counters import NEWS
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection, Row

SLACK_MS = 30_000
"""Presence goes to the database every 15 s (`store.PRESENCE_EVERY_S`), with the process's next look."""
RETURN_MS = 300_000
"""Five heartbeats of 60 s: so long a node may need to find Cloudly again after an outage, and to ship its journal."""
RETURN_BEATS = 3
"""Or so many of its own, where they are slower."""
GONE = (
    "SELECT {what} FROM rollout_grant g JOIN node n ON n.id=g.node WHERE g.rollout=?1 AND g.outcome IS NULL"
    " AND (n.revoked_at_ms IS NOT NULL OR n.quarantined_at_ms IS NOT NULL OR n.retired_at_ms IS NOT NULL"
    " OR EXISTS (SELECT 1 FROM pin p WHERE (p.until_ms IS NULL OR p.until_ms>?3)"
    "  AND coalesce(p.release, n.last_good)<>?2 AND ((p.scope='node' AND p.scope_id=n.id)"
    "  OR (p.scope='fleet' AND p.scope_id=n.fleet AND NOT EXISTS (SELECT 1 FROM pin o WHERE o.scope='node'"
    "   AND o.scope_id=n.id AND (o.until_ms IS NULL OR o.until_ms>?3))))))"
)
"""A pin as `governance.pins` reads it: a node's own wins, and one without a release holds to what it runs."""
NOBODY_MS = -1
"""A cutoff that no grant lies before."""
MOST_NOTES = 100
"""Late outcomes told by one look: each is a fact of its own."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What was found by walks beside the hot path."""

    sweep: Sweep | None = None
    silent: tuple[Grant, ...] = ()
    """Grants that succeeded and whose nodes are not heard of (`sweeping`)."""
    to_turn_back: int | None = None
    watching_since_ms: int = 0
    """Since when there was somebody to hear the nodes, without a gap (`leading`)."""
    return_ms: int = RETURN_MS
    """How long they have from then on to find Cloudly again."""
    watched_ms: int = 0
    """When the last whole round of the watch over those who succeeded began."""


def observe(db: Connection, known: Story, beside: Beside, now_ms: int) -> Observed:
    """As of now."""
    return Observed(
        counts=counters.counts(db, known),
        bad=_bad(db, known),
        quiet=(*_quiet(db, known, beside, now_ms), *beside.silent),
        sweep=beside.sweep,
        to_turn_back=beside.to_turn_back,
        watched_ms=beside.watched_ms,
    )


def has_gone(db: Connection, known: Story, now_ms: int) -> bool:
    """Whether a node in flight is none any more that could tell of the release."""
    row = db.execute(
        GONE.format(what="1") + " LIMIT 1", (known.number, known.release, now_ms)
    ).fetchone()
    return row is not None


def supersede_gone(db: Connection, known: Story, now_ms: int) -> None:
    db.execute(
        "UPDATE rollout_grant SET outcome=?4, outcome_at_ms=?3,"  # noqa: S608 - ours
        " reason='it was revoked, quarantined, retired or pinned'"
        f" WHERE rollout=?1 AND outcome IS NULL AND node IN ({GONE.format(what='g.node')})",
        (known.number, known.release, now_ms, Outcome.SUPERSEDED),
    )


def count_all(db: Connection, known: Story) -> None:
    """The fact that is written in this transaction has counted every outcome that there is."""
    db.execute(
        f"UPDATE rollout_grant SET counted=outcome WHERE rollout=? AND {NEWS} AND counted<>outcome",  # noqa: S608 - ours
        (known.number,),
    )


def late(db: Connection, known: Story) -> tuple[Decision, ...]:
    """What came too late to be counted and was not told yet: after the grant's outcome, or after the end."""
    everything = "" if known.believed.is_final else " AND late<>''"
    rows = db.execute(
        "SELECT (SELECT node_id FROM node WHERE id=g.node), outcome, counted, late FROM rollout_grant g"  # noqa: S608 - ours
        f" WHERE rollout=? AND {NEWS}{everything} ORDER BY outcome_at_ms, node LIMIT ?",
        (known.number, MOST_NOTES),
    ).fetchall()
    return tuple(_note(*row) for row in rows)


def _note(node_id: str, outcome: str, counted: str, told: str) -> Decision:
    if told:
        return late_outcome(node_id, Outcome(told), Outcome(outcome))
    return late_outcome(node_id, Outcome(outcome), Outcome(counted) if counted else None)


def has_told(db: Connection, known: Story, note: Decision) -> None:
    """The note is written in this transaction: it is not to be told again."""
    db.execute(
        "UPDATE rollout_grant SET late='', counted=CASE WHEN late='' THEN outcome ELSE counted END"
        " WHERE rollout=? AND node=(SELECT id FROM node WHERE node_id=?)",
        (known.number, note.data["node"]),
    )


def ended_with_news(db: Connection) -> list[int]:
    """Finished rollouts of which something came after their end."""
    rows = db.execute(
        f"SELECT DISTINCT g.rollout FROM rollout_grant g JOIN rollout r ON r.id=g.rollout WHERE r.is_open=0 AND {NEWS}"  # noqa: S608 - ours
    ).fetchall()
    return [int(row[0]) for row in rows]


def _bad(db: Connection, known: Story) -> tuple[Bad, ...]:
    bad = ", ".join(f"'{outcome}'" for outcome in BAD)
    rows = db.execute(
        "SELECT (SELECT node_id FROM node WHERE id=g.node), outcome, reason FROM rollout_grant g"  # noqa: S608 - ours
        f" WHERE rollout=? AND {NEWS} AND counted<>outcome AND outcome IN ({bad}) ORDER BY outcome_at_ms, node",
        (known.number,),
    ).fetchall()
    return tuple(Bad(row[0], Outcome(row[1]), row[2]) for row in rows)


def _quiet(db: Connection, known: Story, beside: Beside, now_ms: int) -> list[Grant]:
    watching_since_ms = beside.watching_since_ms
    overdue_ms, dark_ms = cutoffs(known.plan, now_ms)
    if watching_since_ms > now_ms - beside.return_ms:
        overdue_ms = NOBODY_MS
    if watching_since_ms > dark_ms:
        dark_ms = NOBODY_MS
    rows = db.execute(
        "SELECT n.node_id, g.phase, g.at_ms, l.last_seen_at_ms FROM rollout_grant g JOIN node n ON n.id=g.node"
        " LEFT JOIN node_live l ON l.node=g.node WHERE g.rollout=? AND g.outcome IS NULL"
        " AND (g.at_ms<=? OR (g.at_ms<=? AND coalesce(l.last_seen_at_ms, 0)<=?))",
        (known.number, overdue_ms, dark_ms, dark_ms - SLACK_MS),
    ).fetchall()
    return sorted(
        grant(row, watching_since_ms) for row in rows
    )  # by SQL it would be by the key, over all grants there ever were


def grant(row: Row, watching_since_ms: int, *, succeeded: bool = False) -> Grant:
    """The check-in that was given the order counts as heard, and so does the time when nobody listened."""
    at_ms, seen_at_ms = row["at_ms"], row["last_seen_at_ms"]
    heard_ms = max(at_ms, seen_at_ms + SLACK_MS if seen_at_ms else 0, watching_since_ms)
    return Grant(row["node_id"], row["phase"], at_ms, heard_ms, succeeded)
