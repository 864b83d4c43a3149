"""The process that leads the rollouts: once a second it looks at each open one and writes what is to be written.

Rules:
- Any number of processes try; the lease lets one. It is taken only while there is something to lead, renewed every two
  seconds, and taken over at most ten seconds after its owner was killed. Who lost it unawares is fenced by the store.
- A rollout that rests (paused, halted, waiting for a yes) is looked at by all and led by nobody, until there is a fact
  to write: the lease runs out, and nothing is written.
- All that is kept here is where walks over many rows are (`walking`): whoever takes over begins them again, and writes
  the same.
- Nobody's silence counts for longer than this process listens (`listening`): while Cloudly or its database was away
  nobody could be heard, and the nodes are well.
- A tick is short: facts first, then so many slices of each walk. What takes longer goes on in the next tick.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from cloudly.listening import Listening
from cloudly.problems import StoreUnavailable
from cloudly.rollouts.machine import COUNTING, RESTING
from cloudly.store.rollouts import lease, observing, stepping
from cloudly.store.rollouts.story import LEASE, Fenced, Story, recall
from cloudly.store.store import Store
from cloudly.walking import Walks
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

EVERY_S = 1.0
MOST_FACTS = 50
"""Of one rollout in one tick: more than a phase ever needs; notes of late outcomes may be more."""


class Leading:
    def __init__(self, store: Store, world: World, *, heartbeat_every_s: float = 60.0) -> None:
        self._store = store
        self._world = world
        self._listening = Listening(world, heartbeat_every_s=heartbeat_every_s)
        self._owner = ""
        self._lease: lease.Lease | None = None
        self._walks: dict[int, Walks] = {}

    @property
    def leads(self) -> bool:
        """Whether this process led when it last looked."""
        return self._lease is not None

    async def tick(self) -> None:
        """Everything that is to be done now. Raises StoreUnavailable."""
        rollouts = await self._store.rollouts.look()
        self._listening.look()
        led = [each.story for each in rollouts.values() if each.story.believed.state in COUNTING]
        led += [
            story
            for number in await self._store.read(observing.ended_with_news)
            if (story := await self._ended(number)) is not None
        ]
        if not led:
            await self.leave()
            return
        if not await self._is_needed(led):
            self._let_go_by_time()
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

    async def _is_needed(self, led: Sequence[Story]) -> bool:
        """Whether one of them goes on by itself, or rests and has a fact to write."""
        for story in led:
            if story.believed.state not in RESTING:
                return True
            present_ms = self._listening.look()
            ask = partial(
                stepping.waits,
                known=story,
                beside=self._new_walks().found,
                now_ms=present_ms,
            )
            try:
                if await self._store.read(ask):
                    return True
            except StoreUnavailable:
                raise
            except Exception as problem:  # noqa: BLE001 - the others go on
                self._store.rollouts.park(story.number, story.seq, problem)
        return False

    def _let_go_by_time(self) -> None:
        """Giving it back would be a write; and the next fact may come in a second."""
        if self._lease is not None and self._lease.until_ms <= now_ms(self._world):
            self._forget()

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

    async def _lead(self, story: Story) -> None:
        walks = self._walks_of(story)
        story = await self._write(story, walks)
        match story.believed.state:
            case "admitting":
                await walks.sweep(story)
            case "rolling-back":
                await walks.turn(story, lease_epoch=self._epoch)
        if story.believed.state in {"admitting", "settling", "soaking"}:
            await walks.watch(story)
        await self._write(story, walks)

    async def _write(self, story: Story, walks: Walks) -> Story:
        """Every fact that there is, each durable before the next is thought of."""
        for _ in range(MOST_FACTS):
            present_ms, found = self._listening.look(), walks.found
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

    def _walks_of(self, story: Story) -> Walks:
        if story.number not in self._walks:
            self._walks[story.number] = self._new_walks()
        return self._walks[story.number]

    def _new_walks(self) -> Walks:
        return Walks(self._store, self._listening, partial(new_id, self._world))

    @property
    def _epoch(self) -> int:
        assert self._lease is not None  # noqa: S101 - only who leads writes
        return self._lease.epoch
