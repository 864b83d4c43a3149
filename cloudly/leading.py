"""The process that leads the rollouts: once a second it looks at each open one and writes what is to be written.

Rules:
- Any number of processes try; the lease lets one. It is taken only while there is something to lead, renewed every two
  seconds, and taken over at most ten seconds after its owner was killed. Who lost it unawares is fenced by the store.
- All that is kept here is where walks over many rows are: whoever takes over begins them again, and writes the same.
- Nobody's silence counts for longer than the leader watches: since it got the lease, or last missed `GAP_MS`.
  While Cloudly or its database was away nobody could be heard, and the nodes are well.
- A tick is short: facts first, then so many slices of each walk. What takes longer goes on in the next tick.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from anyio.lowlevel import checkpoint

from cloudly.problems import StoreUnavailable
from cloudly.rollouts.counting import Grant, Sweep
from cloudly.rollouts.machine import COUNTING
from cloudly.store.rollouts import lease, observing, stepping, sweeping, turning
from cloudly.store.rollouts.observing import Beside
from cloudly.store.rollouts.story import LEASE, Fenced, Story, recall
from cloudly.store.store import Store
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

EVERY_S = 1.0
GAP_MS = 60_000
"""Between two looks: a database that was away, a machine that slept, a clock that was set. A tick takes a second."""
MOST_FACTS = 50
"""Of one rollout in one tick: more than a phase ever needs; notes of late outcomes may be more."""
MOST_SLICES = 8
"""Of one walk in one tick: 4,000 nodes, some ten milliseconds each 500."""


NOT_TURNING = turning.Turning()


@dataclass(slots=True)
class Walks:
    """Where the walks of one rollout are."""

    fleet: sweeping.Walk | None = None
    sweep: Sweep | None = None
    silent_at: int = 0
    silent: tuple[Grant, ...] = ()
    turning: turning.Turning = NOT_TURNING

    def found(self, watching_since_ms: int) -> Beside:
        return Beside(self.sweep, self.silent, self.turning.ended, watching_since_ms)


class Leading:
    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world
        self._owner = ""
        self._lease: lease.Lease | None = None
        self._walks: dict[int, Walks] = {}
        self._watching_since_ms = 0
        self._looked_at_ms = 0

    @property
    def leads(self) -> bool:
        """Whether this process led when it last looked."""
        return self._lease is not None

    async def tick(self) -> None:
        """Everything that is to be done now. Raises StoreUnavailable."""
        rollouts = await self._store.rollouts.look()
        led = [each.story for each in rollouts.values() if each.story.believed.state in COUNTING]
        led += [
            story
            for number in await self._store.read(observing.ended_with_news)
            if (story := await self._ended(number)) is not None
        ]
        if not led:
            await self.leave()
            return
        try:
            if await self._is_ours():
                for story in led:
                    await self._lead_or_park(story)
                numbers = {story.number for story in led}
                self._walks = {one: walks for one, walks in self._walks.items() if one in numbers}
        except Fenced as problem:
            log.warning(
                "another process leads the rollouts", extra={"values": {"why": str(problem)}}
            )
            self._forget()

    async def leave(self) -> None:
        """Give the lease back: another process need not wait for its end."""
        if self._lease is not None:
            self._forget()
            await self._store.write(partial(lease.give_back, name=LEASE, owner=self._owner))

    async def _is_ours(self) -> bool:
        present_ms = now_ms(self._world)
        held = self._lease
        if held is not None and held.until_ms - present_ms > lease.LASTS_MS - lease.RENEW_MS:
            return True
        self._owner = self._owner or new_id(self._world)
        if await self._store.read(lambda db: lease.seen(db, LEASE, self._owner, present_ms)):
            self._forget()
            return False
        taken = await self._store.write(lambda db: lease.take(db, LEASE, self._owner, present_ms))
        if taken is None or held is None or taken.epoch != held.epoch:
            self._forget()
            self._watching_since_ms = self._looked_at_ms = present_ms
        self._lease = taken
        return taken is not None

    def _forget(self) -> None:
        self._lease = None
        self._walks = {}

    async def _ended(self, number: int) -> Story | None:
        try:
            return await self._store.read(partial(recall, number=number))
        except StoreUnavailable:
            raise
        except Exception as problem:  # noqa: BLE001 - the others go on
            self._store.rollouts.park(number, -1, problem)
            return None

    async def _lead_or_park(self, story: Story) -> None:
        """One that cannot be led holds up no other."""
        try:
            await self._lead(story)
        except (Fenced, StoreUnavailable):
            raise
        except Exception as problem:  # noqa: BLE001 - the others go on
            self._store.rollouts.park(story.number, story.seq, problem)

    def _look(self) -> int:
        """The present, for who holds a lease that was renewed: after a gap the watch begins with it."""
        present_ms = now_ms(self._world)
        if present_ms - self._looked_at_ms > GAP_MS:
            self._watching_since_ms = present_ms
        self._looked_at_ms = present_ms
        return present_ms

    async def _lead(self, story: Story) -> None:
        walks = self._walks.setdefault(story.number, Walks())
        story = await self._write(story, walks)
        match story.believed.state:
            case "admitting":
                await self._sweep(story, walks)
            case "rolling-back":
                await self._turn(story, walks)
        if story.believed.state in {"admitting", "settling", "soaking"}:
            await self._watch(story, walks)
        await self._write(story, walks)

    async def _write(self, story: Story, walks: Walks) -> Story:
        """Every fact that there is, each durable before the next is thought of."""
        for _ in range(MOST_FACTS):
            present_ms = self._look()
            found = walks.found(self._watching_since_ms)
            if not await self._store.read(
                partial(stepping.waits, known=story, beside=found, now_ms=present_ms)
            ):
                return story
            told = await self._store.write(
                partial(
                    stepping.step,
                    known=story,
                    beside=found,
                    now_ms=present_ms,
                    lease_epoch=self._epoch,
                )
            )
            if told is None:
                return story
            story = told
            self._store.rollouts.told(story)
        return story

    @property
    def _epoch(self) -> int:
        assert self._lease is not None  # noqa: S101 - only who leads writes
        return self._lease.epoch

    async def _sweep(self, story: Story, walks: Walks) -> None:
        for _ in range(MOST_SLICES):
            walks.fleet, ended = await self._store.read(
                partial(
                    sweeping.walk,
                    known=story,
                    before=walks.fleet,
                    now_ms=now_ms(self._world),
                )
            )
            if ended is not None:
                walks.sweep = ended
                return
            await checkpoint()

    async def _watch(self, story: Story, walks: Walks) -> None:
        """One slice: who succeeded in the present phase and fell silent since."""
        present_ms = self._look()
        walks.silent_at, walks.silent = await self._store.read(
            partial(
                sweeping.fell_silent,
                known=story,
                after=walks.silent_at,
                watching_since_ms=self._watching_since_ms,
                now_ms=present_ms,
            )
        )

    async def _turn(self, story: Story, walks: Walks) -> None:
        for _ in range(MOST_SLICES):
            going, present_ms = walks.turning, self._look()
            if await self._store.read(partial(turning.waits, known=story, at=going.at)):
                work = partial(
                    turning.turn,
                    known=story,
                    going=going,
                    watching_since_ms=self._watching_since_ms,
                    now_ms=present_ms,
                    new_id=partial(new_id, self._world),
                    lease_epoch=self._epoch,
                )
                walks.turning = await self._store.write(work)
            else:
                walks.turning = await self._store.read(
                    partial(
                        turning.counted,
                        known=story,
                        going=going,
                        watching_since_ms=self._watching_since_ms,
                        now_ms=present_ms,
                    )
                )
            if walks.turning.is_round:
                return
            await checkpoint()
