"""Group commit: decisions that arrive together share one COMMIT, and nobody hears of his before it.

Rules:
- No task and no thread: the first to come leads. He lets everyone else who is ready queue up, then has all of it
  committed. So it works without a lifespan, and under virtual time.
- Who leads is not kept for others: what came while he waited for the disk is led by the first of those who wait.
- A cancelled leader still commits his batch: his followers wait for it, and his own client may have gone after asking.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from cloudly.store.database import Database, Pending, T, Usual, Work

Clock = Callable[[], float]
OnCommit = Callable[[int, float], None]
"""How many decisions were committed together, and how long it took."""
MAX_BATCH = 256  # throughput peaks at 256..512 a batch and falls at 1024 (server notes §2.2)


class Group:
    def __init__(self, database: Database, clock: Clock = lambda: 0.0) -> None:
        self._database = database
        self._clock = clock
        self.on_broken: Callable[[], None] = lambda: None
        self.on_commit: OnCommit = lambda _decisions, _seconds: None
        self._queue: list[Pending] = []
        self._led = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def broken(self) -> bool:
        """The database failed; nothing is written any more."""
        return self._database.broken

    async def write(
        self, work: Work[T], *, node: int | None = None, usual: Usual | None = None
    ) -> T:
        """What `work` returned or raised, after it is durable. Raises StoreUnavailable.

        `node`: the one that it is about, if it changes nothing else. `usual`: the same as one of many alike.
        """
        pending = Pending(work, node, usual)
        self._queue.append(pending)
        if self._led:
            await self._follow(pending)
        else:
            self._led = True
            await self._lead()
        result: T = pending.outcome()
        return result

    def write_now(self, work: Work[T]) -> T:
        """The same, for the CLI and for start and stop: at once and alone."""
        pending = Pending(work)
        self._database.commit_now([pending])
        self.tell_if_broken()
        result: T = pending.outcome()
        return result

    async def _follow(self, pending: Pending) -> None:
        try:
            await pending.done.wait()
        finally:
            pending.is_alone = True
            if pending.is_next:  # also when he was cancelled: those behind him wait
                await self._lead()

    async def _lead(self) -> None:
        try:
            await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await self._commit()
                while not self._hand_over():
                    await self._commit()

    async def _commit(self) -> None:
        batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        began = self._clock()
        await self._database.commit(batch)
        self.on_commit(len(batch), self._clock() - began)
        self.tell_if_broken()
        for pending in batch:
            pending.done.set()

    def _hand_over(self) -> bool:
        """To the first who waits; False when all that is left belongs to who went away."""
        if not self._queue:
            self._led = False
            return True
        heir = next((one for one in self._queue if not one.is_alone), None)
        if heir is None:
            return False
        heir.is_next = True
        heir.done.set()
        return True

    def tell_if_broken(self) -> None:
        if self._database.broken:
            self.on_broken()
