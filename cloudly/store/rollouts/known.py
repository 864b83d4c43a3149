"""What this process knows of the rollouts that are not finished, so that a heartbeat need not ask.

Rules:
- Whether something changed is asked at most once a second, in one sentence; only what changed is read. What this
  process writes itself it knows at once.
- It may lag behind by that second: it says who has no hope, and whoever has is decided by the database (`admitting`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from cloudly.rollouts.admission import No, objections
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.selector import NodeView
from cloudly.store.governance.bans import banned
from cloudly.store.rollouts import counters
from cloudly.store.rollouts.story import Story, caught_up, recall
from cloudly.store.sql import Connection
from interfaces.world import World

T = TypeVar("T")

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

    async def now(self) -> Mapping[int, Known]:
        """The open rollouts by number, the oldest first; at most a second old."""
        present_s = self._world.monotonic()
        if self._looked_s is None or present_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = present_s  # whoever comes while it is read takes what is known
            try:
                self._known = await self._read(partial(_look, known=self._known))
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

    def counted(self, number: int, live: Rollout) -> None:
        """This process asked the counters."""
        known = self._known.get(number)
        if known is not None and known.live.state == live.state:
            self._known[number] = replace(known, live=live)


def _look(db: Connection, known: Mapping[int, Known]) -> dict[int, Known]:
    found = {}
    for number, seq, *bans in db.execute(OPEN).fetchall():
        found[number] = _fresh(db, known.get(number), number, seq, (bans[0], bans[1]))
    return found


def _fresh(
    db: Connection, known: Known | None, number: int, seq: int, bans: tuple[int, int | None]
) -> Known:
    if known is not None and known.story.seq >= seq and known.bans == bans:
        return known
    story = recall(db, number) if known is None else caught_up(db, known.story)
    why = banned(db, story.release) if known is None or known.bans != bans else known.banned
    return Known(story, counters.live(db, story), why, bans)
