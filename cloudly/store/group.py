"""Group commit: decisions that arrive together share one COMMIT, and nobody hears of his before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio

from cloudly.store.database import Database, Pending, T, Usual, Work
from cloudly.store.together import Together

Clock = Callable[[], float]
OnCommit = Callable[[int, float], None]
"""How many decisions were committed together, and how long it took."""


class Group:
    def __init__(self, database: Database, clock: Clock = lambda: 0.0) -> None:
        self._database = database
        self._clock = clock
        self.on_broken: Callable[[], None] = lambda: None
        self.on_commit: OnCommit = lambda _decisions, _seconds: None
        self._decisions = Together(self._commit)

    @property
    def waiting(self) -> int:
        return self._decisions.waiting

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
        pending = Pending(work, None if node is None else (node,), usual)
        await self._decisions.done(pending)
        result: T = pending.result
        return result

    async def write_beside(self, work: Work[T], nodes: Sequence[int]) -> T:
        """The same, of many nodes and at once: who decides about others shares no COMMIT with it and does not wait."""
        pending = Pending(work, nodes)
        with anyio.CancelScope(shield=True):
            await self._commit([pending])
        result: T = _outcome(pending)
        return result

    def write_now(self, work: Work[T], *, nodes: Sequence[int] | None = None) -> T:
        """The same, for the CLI and for start and stop: at once and alone."""
        pending = Pending(work, nodes)
        self._database.commit_now([pending])
        self.tell_if_broken()
        result: T = _outcome(pending)
        return result

    async def _commit(self, batch: Sequence[Pending]) -> None:
        began = self._clock()
        await self._database.commit(batch)
        self.on_commit(len(batch), self._clock() - began)
        self.tell_if_broken()

    def tell_if_broken(self) -> None:
        if self._database.broken:
            self.on_broken()


def _outcome(pending: Pending) -> Any:
    if pending.error is not None:
        raise pending.error
    return pending.result
