"""What this process knows of the rollouts that are not finished, so that a heartbeat need not ask.

Rules:
- Whether something changed is asked at most once a second, in one sentence; only what changed is read. What this
  process writes itself it knows at once.
- It may lag behind by that second: it says who has no hope, and whoever has is decided by the database (`admitting`).
- A rollout that cannot be read (a newer Cloudly wrote it) is parked: it takes nobody, is not led by this process, and
  holds up nothing else. It is told of once for each of its states.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from cloudly.problems import StoreUnavailable
from cloudly.rollouts.admission import No, objections
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.selector import NodeView
from cloudly.store.governance.bans import banned
from cloudly.store.rollouts import counters
from cloudly.store.rollouts.story import Story, caught_up, recall
from cloudly.store.sql import Connection
from interfaces.world import World

T = TypeVar("T")
log = logging.getLogger("cloudly")

LOOK_EVERY_S = 1.0
OPEN = (
    "SELECT r.id, r.seq, (SELECT count(*) FROM ban), (SELECT max(at_ms) FROM ban) FROM rollout r"
    " WHERE r.is_open=1 ORDER BY r.id"
)


class Read(Protocol):
    """`Store.read`."""

    def __call__(self, question: Callable[[Connection], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Known:
    """One open rollout."""

    story: Story
    live: Rollout
    """What is believed, with the newest counters that this process saw."""
    banned: str
    bans: tuple[int, int | None]
    """How many bans there were, and the newest: whether to ask again."""

    @property
    def commit(self) -> str:
        return self.live.release

    def hopeless(self, node_id: str, now_ms: int) -> bool:
        """Whether a node is refused whatever its labels and its standing are: by state, place, window or counters."""
        if self.live.state != "admitting" or self.banned:
            return True
        plan, phase = self.story.plan, self.live.phase
        unsure = {No.NOT_SELECTED} if plan.selector else set()
        if any(each.selector is not None for each in plan.phases[: phase + 1]):
            unsure.add(No.NOT_IN_PHASE)
        anybody = NodeView(node_id=node_id)
        return any(one.no not in unsure for one in objections(anybody, self.live, plan, now_ms))


class OpenRollouts:
    def __init__(self, read: Read, world: World) -> None:
        self._read = read
        self._world = world
        self._known: dict[int, Known] = {}
        self._looked_s: float | None = None
        self._parked: dict[int, int] = {}
        """Rollouts that cannot be read, and at which of their facts that was told."""

    async def now(self) -> Mapping[int, Known]:
        """The open rollouts by number, the oldest first; at most a second old."""
        present_s = self._world.monotonic()
        if self._looked_s is None or present_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = present_s  # whoever comes while it is read takes what is known
            try:
                self._known = await self._read(self._look)
            except BaseException:
                self._looked_s = None
                raise
        return self._known

    async def look(self) -> Mapping[int, Known]:
        """The same, as of now."""
        self._looked_s = None
        return await self.now()

    def at_hand(self, number: int) -> Known | None:
        """What was known last; None: nothing."""
        return self._known.get(number)

    def told(self, story: Story) -> None:
        """This process wrote a fact."""
        known = self._known.get(story.number)
        if story.believed.is_final:
            self._known.pop(story.number, None)
        elif known is None:
            self._looked_s = None
        else:
            self._known[story.number] = replace(known, story=story, live=story.believed)

    def park(self, number: int, seq: int, problem: Exception) -> None:
        """It cannot be read, or not be led, as it is at that fact."""
        if self._parked.get(number) != seq:
            self._parked[number] = seq
            log.error(
                "a rollout is parked: this Cloudly cannot read it, or lead it",
                extra={"values": {"rollout": number, "fact": seq, "why": str(problem)[:500]}},
            )

    def _look(self, db: Connection) -> dict[int, Known]:
        found = {}
        for number, seq, *bans in db.execute(OPEN).fetchall():
            known = self._known.get(number)
            try:
                found[number] = _fresh(db, known, number, seq, (bans[0], bans[1]))
            except StoreUnavailable:
                raise
            except Exception as problem:  # noqa: BLE001 - whatever is wrong with one, the others go on
                self.park(number, seq, problem)
        return found

    def counted(self, number: int, live: Rollout) -> None:
        """This process asked the counters."""
        known = self._known.get(number)
        if known is not None and known.live.state == live.state:
            self._known[number] = replace(known, live=live)


def _fresh(
    db: Connection, known: Known | None, number: int, seq: int, bans: tuple[int, int | None]
) -> Known:
    if known is not None and known.story.seq >= seq and known.bans == bans:
        return known
    story = recall(db, number) if known is None else caught_up(db, known.story)
    why = banned(db, story.release) if known is None or known.bans != bans else known.banned
    return Known(story, counters.live(db, story), why, bans)
