"""A check-in: a node that asks is given the order of a rollout, or it is not, and most are not.

Rules:
- Three steps, each only for those whom the one before let through: what this process knows (no question at all), the
  node's row (one question for each rollout that may take it), and a decision that is alone with the database, which
  asks both again and the counters. So no race, and nobody is counted.
- All who ask while a decision waits for its turn are decided together, and their grants share its COMMIT.
- Of several rollouts that would take a node the oldest does; the others find it updating.
- A rollout that cannot be decided must not keep any node from its answer: that is logged, and the node asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cloudly.problems import StoreUnavailable
from cloudly.rollouts.admission import may_admit
from cloudly.rollouts.belief import Rollout, granting
from cloudly.store import wanted
from cloudly.store.rollouts import counters, grants
from cloudly.store.rollouts.candidates import governed, one, question
from cloudly.store.rollouts.known import Known, OpenRollouts, Read
from cloudly.store.rollouts.story import Story, caught_up, recall
from cloudly.store.sql import Connection

log = logging.getLogger("cloudly")


class Write(Protocol):
    """`Group.write`, of a decision that may be about anything."""

    async def __call__(self, work: Callable[[Connection], Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """A node that checks in."""

    node: int
    at_ms: int
    rollouts: tuple[int, ...]
    """Those that would take it, as far as is known."""


class CheckIns:
    def __init__(
        self, rollouts: OpenRollouts, read: Read, write: Write, new_id: Callable[[], str]
    ) -> None:
        self._rollouts = rollouts
        self._read = read
        self._write = write
        self._new_id = new_id
        self._asking: list[Asking] = []

    async def hopes(self, node_id: str, at_ms: int) -> list[Known]:
        """The rollouts that might take this node: usually none, and then nothing is asked of the database."""
        known = await self._rollouts.now()
        return [each for each in known.values() if not each.hopeless(node_id, at_ms)]

    async def ask(self, node: int, node_id: str, at_ms: int, hopes: list[Known]) -> bool:
        """Whether the node's target may have changed. Raises StoreUnavailable."""
        try:
            likely = await self._read(lambda db: _likely(db, node, at_ms, hopes))
            if not likely:
                return False
            self._asking.append(Asking(node, at_ms, likely))
            await self._write(self._decide)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("a check-in was not decided", extra={"values": {"node": node_id}})
            return False
        return True

    def _decide(self, db: Connection) -> None:
        """Everybody who asks by now; whoever was decided by another's turn finds nobody left."""
        asking, self._asking = self._asking, []
        stories: dict[int, tuple[Story, Rollout]] = {}
        for each in asking:
            for number in each.rollouts:
                if number not in stories:
                    stories[number] = self._as_it_is(db, number)
                story, live = stories[number]
                phase = _phase_for(db, each.node, each.at_ms, story, live)
                if phase is not None:
                    self._give(db, each, story, phase)
                    stories[number] = (story, granting(live))
                    break
        for number, (_, live) in stories.items():
            self._rollouts.counted(number, live)

    def _as_it_is(self, db: Connection, number: int) -> tuple[Story, Rollout]:
        known = self._rollouts.at_hand(number)
        story = recall(db, number) if known is None else caught_up(db, known.story)
        is_open = story.believed.state == "admitting"
        return story, counters.live(db, story) if is_open else story.believed

    def _give(self, db: Connection, asking: Asking, story: Story, phase: int) -> None:
        deployment, actor = self._new_id(), f"rollout/{story.number}"
        wanted.order(
            db,
            wanted.Order(
                asking.node, story.release, story.policy, deployment, asking.at_ms,
                rollout=story.number, actor=actor,
            ),
        )  # fmt: skip
        grants.give(
            db, story.number, asking.node, phase=phase, deployment=deployment, now_ms=asking.at_ms
        )


def _likely(db: Connection, node: int, at_ms: int, hopes: list[Known]) -> tuple[int, ...]:
    """Which of them take the node, by its rows as they are committed."""
    return tuple(
        each.story.number
        for each in hopes
        if _phase_for(db, node, at_ms, each.story, each.live) is not None
    )


def _phase_for(db: Connection, node: int, at_ms: int, story: Story, live: Rollout) -> int | None:
    """The phase that takes the node now; None: it is not let in. Governance is asked last."""
    asked = question(story, at_ms)
    candidate = one(db, node, asked)
    if candidate is None:
        return None
    said = may_admit(candidate.view, live, story.plan, at_ms, candidate.standing)
    if said.admitted:
        standing = governed(db, candidate, asked)
        said = may_admit(candidate.view, live, story.plan, at_ms, standing)
    return said.phase if said.admitted else None
