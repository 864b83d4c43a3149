"""Orders to rollouts, as programs give them: a draft, a start, a halt, a yes; each is one decision.

Rules:
- An order that stands already, by the same person in the same words, is answered again and not written again: its first
  answer may have been lost. Any other that the state does not allow is refused, with what may be ordered.
- What this process writes it knows at once: a pause holds from the next heartbeat on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloudly.rollouts import orders
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.plan import Plan
from cloudly.service.rollouts import caught_up, near
from cloudly.store.releases import find_release
from cloudly.store.rollouts import making, story
from cloudly.store.rollouts.making import NewRollout
from cloudly.store.rollouts.story import Story
from cloudly.store.sql import Connection
from cloudly.store.store import Store

Decide = Callable[[Rollout, Plan], Decision]


@dataclass(frozen=True, slots=True)
class Ask:
    """A rollout that somebody wants."""

    release: str
    """Its commit, the beginning of it, or its version."""
    plan: Plan
    policy: str
    """Of its deployments, as JSON."""
    by: str
    start: bool
    """At once."""


def create(db: Connection, ask: Ask, *, salt: str, now_ms: int) -> Story:
    """Raises BadOrder; then nothing was written."""
    new = NewRollout(ask.plan, find_release(db, ask.release), ask.policy, ask.by, salt, now_ms)
    told = making.create(db, new)
    if not ask.start:
        return told
    decision = orders.start(told.believed, told.plan, by=ask.by)
    return story.append(db, told, decision, now_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody orders of a rollout that there is."""

    kind: str
    """Of the fact that it is."""
    by: str
    said: str
    """The reason, or the note."""
    decide: Decide


async def give(store: Store, number: int, order: Order, *, now_ms: int) -> Story:
    """The rollout after it. Raises BadOrder; then nothing was written."""
    known = await near(store, number)

    def work(db: Connection) -> tuple[Story, bool]:
        told = caught_up(db, known)
        if orders.stands(told.believed, order.kind, by=order.by, said=order.said):
            return told, False
        decision = order.decide(told.believed, told.plan)
        return story.append(db, told, decision, now_ms=now_ms), True

    told, is_new = await store.write(work)
    if is_new:
        store.rollouts.told(told)
    return told
