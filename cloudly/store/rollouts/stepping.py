"""One fact at a time: what the leading process writes of one rollout, each in a transaction of its own.

Rules:
- A look first, which writes nothing; only if it finds something to write, a decision, which sees all of it again.
- After each fact everything is asked anew. So whoever leads may die between any two: the next one goes on from there.
- A rollout of a banned release is paused: nobody can be given it, and that must not look as if nobody were left.
"""

from __future__ import annotations

from dataclasses import replace

from cloudly.governance.people import LONGEST_TEXT
from cloudly.rollouts.counting import Decision, Observed
from cloudly.rollouts.engine import BY, next_facts
from cloudly.rollouts.machine import COUNTING, RUNNING
from cloudly.store.governance.bans import banned
from cloudly.store.rollouts import observing, sweeping
from cloudly.store.rollouts.observing import Beside
from cloudly.store.rollouts.story import Story, append, caught_up, must_lead
from cloudly.store.sql import Connection

FIRST = ("outcomes-counted", "halted")
"""What is written before anything else is thought of."""


def waits(db: Connection, known: Story, beside: Beside, now_ms: int) -> bool:
    """Whether there is a fact to write."""
    known = caught_up(db, known)
    if known.believed.state in COUNTING and observing.has_gone(db, known, now_ms):
        return True
    return _next(db, known, beside, now_ms) is not None


def step(
    db: Connection, known: Story, beside: Beside, *, now_ms: int, lease_epoch: int
) -> Story | None:
    """Write the next fact; None: there is none. Raises Fenced."""
    must_lead(db, lease_epoch)
    known = caught_up(db, known)
    if known.believed.state in COUNTING:
        observing.supersede_gone(db, known, now_ms)
    decision = _next(db, known, beside, now_ms)
    if decision is None:
        return None
    told = append(db, known, decision, now_ms=now_ms, lease_epoch=lease_epoch)
    if decision.is_note:
        observing.has_told(db, known, decision)
    elif decision.kind == "outcomes-counted":
        observing.count_all(db, known)
    return told


def _next(db: Connection, known: Story, beside: Beside, now_ms: int) -> Decision | None:
    if known.believed.state in COUNTING:
        seen = _seen(db, known, beside, now_ms)
        decisions = next_facts(known.believed, known.plan, seen, now_ms)
        if decisions and decisions[0].kind in FIRST:
            return decisions[0]
        why = banned(db, known.release) if known.believed.state in RUNNING else ""
        if why:
            return Decision(
                "paused", {"by": BY, "reason": f"its release was banned: {why}"[:LONGEST_TEXT]}
            )
        for decision in decisions:
            return decision
    for note in observing.late(db, known):
        return note
    return None


def _seen(db: Connection, known: Story, beside: Beside, now_ms: int) -> Observed:
    silent = sweeping.still_silent(db, known, beside.silent, beside.watching_since_ms)
    return observing.observe(db, known, replace(beside, silent=silent), now_ms)
