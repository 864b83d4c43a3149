"""The walks of who leads, of one rollout: over the fleet, over those who succeeded, over those to be turned back.

Rules:
- A call is so many slices of one walk, and what is left goes on with the next call.
- Where a walk is, is kept here and nowhere else: whoever takes over begins it again.
- A soak that is over waits for one whole round over those who succeeded, which then takes as many slices as a sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio.lowlevel import checkpoint

from cloudly.listening import Listening
from cloudly.rollouts.counting import Grant, Sweep
from cloudly.rollouts.engine import soak_until_ms
from cloudly.store.rollouts import sweeping, turning
from cloudly.store.rollouts.observing import Beside
from cloudly.store.rollouts.story import Story
from cloudly.store.store import Store

MOST_SLICES = 8
"""Of one walk in one tick: 4,000 nodes, some ten milliseconds each 500."""


class Walks:
    def __init__(self, store: Store, listening: Listening, new_id: Callable[[], str]) -> None:
        self._store = store
        self._listening = listening
        self._new_id = new_id
        self._fleet: sweeping.Walk | None = None
        self._swept: Sweep | None = None
        self._silent_at = 0
        self._silent: tuple[Grant, ...] = ()
        self._round_began_ms = 0
        self._watched_ms = 0
        """When the last whole round over those who succeeded began."""
        self._turning = turning.Turning()

    @property
    def found(self) -> Beside:
        """What they found so far."""
        return Beside(
            self._swept,
            self._silent,
            self._turning.ended,
            self._listening.since_ms,
            self._listening.return_ms,
            self._watched_ms,
        )

    async def sweep(self, story: Story) -> None:
        """Who is still to come."""
        for _ in range(MOST_SLICES):
            present_ms = self._listening.look()
            step = partial(
                sweeping.walk,
                known=story,
                before=self._fleet,
                now_ms=present_ms,
                is_dark_awaited=self._listening.is_anew(present_ms),
            )
            self._fleet, ended = await self._store.read(step)
            if ended is not None:
                self._swept = ended
                return
            await checkpoint()

    async def watch(self, story: Story) -> None:
        """Who succeeded in the present phase and fell silent since: a slice, or several where the soak is over."""
        over_ms = soak_until_ms(story.believed, story.plan)
        is_over = story.believed.state == "soaking" and self._listening.look() >= over_ms
        if is_over and self._round_began_ms < over_ms:
            self._silent_at = 0
        for _ in range(MOST_SLICES if is_over else 1):
            present_ms = self._listening.look()
            if self._silent_at == 0:
                self._round_began_ms = present_ms
            step = partial(
                sweeping.fell_silent,
                known=story,
                after=self._silent_at,
                watching_since_ms=self._listening.since_ms,
                now_ms=present_ms,
            )
            self._silent_at, self._silent = await self._store.read(step)
            if self._silent_at == 0:
                self._watched_ms = self._round_began_ms
            if self._silent or self._silent_at == 0:  # these are to be written first
                return
            await checkpoint()

    async def turn(self, story: Story, *, lease_epoch: int) -> None:
        """Who is to be turned back, and how many are not there yet. Raises Fenced."""
        for _ in range(MOST_SLICES):
            present_ms = self._listening.look()
            how = partial(
                turning.counted,
                known=story,
                going=self._turning,
                watching_since_ms=self._listening.since_ms,
                now_ms=present_ms,
            )
            if await self._store.read(partial(turning.waits, known=story, at=self._turning.at)):
                work = partial(
                    turning.turn, **how.keywords, new_id=self._new_id, lease_epoch=lease_epoch
                )
                self._turning = await self._store.write(work)
            else:
                self._turning = await self._store.read(how)
            if self._turning.is_round:
                return
            await checkpoint()
