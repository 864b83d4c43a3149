"""The recurring job that lets go of what is old (`store/forgetting.py`), a little at a time.

Rules:
- A tick takes a fraction of a second and then leaves the database to others; a walk over all nodes goes on in the next.
- Decisions about several nodes at once share a commit, and on PostgreSQL run beside everyone else's.
- Of several servers the one that has the lease walks. Two that believe to have it do no harm: each slice looks anew.
- With `CLOUDLY_JOURNAL_DAYS=0` no fact is ever let go.
"""

from __future__ import annotations

import logging
from functools import partial

import anyio

from cloudly.problems import StoreUnavailable
from cloudly.settings import Settings
from cloudly.store import forgetting
from cloudly.store.forgetting import OldLane
from cloudly.store.rollouts import lease
from cloudly.store.store import Store
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

JOB = "forgetting"
EVERY_S = 2.0
AT_ONCE = 8
"""Lanes of which a slice is let go by one commit."""
BUDGET_S = 0.2
"""Of a tick: a tenth of the time at most."""
WALK_EVERY_S = 3600.0
DAY_MS = 86_400_000
EVENT_DAYS = 7
"""So far back can webhooks be told again what happened."""
LEASE = "forgetting"


class Forgetting:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._store = store
        self._world = world
        self._keeps_ms = int(settings.journal_days * DAY_MS)
        self._owner = ""
        self._again_s = 0.0
        self._walking = False
        self._at_node = 0
        self._old: list[OldLane] = []
        self.slices = 0
        """Since the start."""

    async def tick(self) -> None:
        """A little of what is old. Raises StoreUnavailable."""
        began_s = self._world.monotonic()
        if not self._walking and began_s < self._again_s:
            return
        if not await self._leads():
            self._stop()
            return
        self._walking = True
        while self._world.monotonic() - began_s < BUDGET_S:
            if not await self._some():
                self._stop()
                await self.leave()
                return

    async def leave(self) -> None:
        """Give the lease back."""
        if self._owner:
            owner, self._owner = self._owner, ""
            await self._store.write(partial(lease.give_back, name=LEASE, owner=owner))

    def _stop(self) -> None:
        self._walking, self._at_node, self._old = False, 0, []
        self._again_s = self._world.monotonic() + WALK_EVERY_S

    async def _leads(self) -> bool:
        self._owner = self._owner or new_id(self._world)
        owner, present = self._owner, now_ms(self._world)
        if await self._store.read(lambda db: lease.seen(db, LEASE, owner, present)):
            return False
        taken = await self._store.write(lambda db: lease.take(db, LEASE, owner, present))
        return taken is not None

    async def _some(self) -> bool:
        """A few slices, or a look at the next nodes; False: the walk is over."""
        present = now_ms(self._world)
        if self._old:
            await self._forget(self._old[:AT_ONCE], present)
            return True
        if self._keeps_ms and await self._look(present):
            return True
        return await self._forget_events(present)

    async def _look(self, present_ms: int) -> bool:
        if self._at_node < 0:
            return False
        look = partial(
            forgetting.old_lanes, after=self._at_node, before_ms=present_ms - self._keeps_ms
        )
        self._old, last = await self._store.read(look)
        self._at_node = -1 if last is None else last
        return last is not None

    async def _forget(self, lanes: list[OldLane], present_ms: int) -> None:
        async def one(lane: OldLane) -> None:
            slice_ = partial(
                forgetting.forget,
                lane=lane,
                before_ms=present_ms - self._keeps_ms,
                now_ms=present_ms,
            )
            try:
                if not await self._store.decide_about(lane.node, slice_):
                    done.add(lane)
            except StoreUnavailable as problem:
                problems.append(problem)

        done: set[OldLane] = set()
        problems: list[StoreUnavailable] = []
        async with anyio.create_task_group() as group:
            for lane in lanes:
                group.start_soon(one, lane)
        if problems:
            raise problems[0]
        self.slices += len(lanes)
        self._old = [lane for lane in self._old if lane not in done]

    async def _forget_events(self, present_ms: int) -> bool:
        before_ms = present_ms - EVENT_DAYS * DAY_MS
        if not await self._store.read(lambda db: forgetting.old_events(db, before_ms)):
            return False
        return await self._store.write(lambda db: forgetting.forget_events(db, before_ms))
