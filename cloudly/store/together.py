"""What comes together is done together: the first to come leads, and the others wait until theirs is done.

Rules:
- No task and no thread, so it works without a lifespan and under virtual time. Who leads lets everyone else who is
  ready queue up, then has all of it done.
- Who leads is not kept for others: what came meanwhile is led by the first of those who wait.
- A cancelled leader still has his part done: others wait for it, and his own client may have gone after asking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

MOST = 256  # throughput peaks at 256..512 a batch and falls at 1024 (server notes §2.2)


class Waiting:
    """One of those in the queue."""

    __slots__ = ("done", "error", "is_alone", "is_next")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: Exception | None = None
        self.is_next = False
        """It was not done: whoever waits for it is to lead what is in the queue now."""
        self.is_alone = False
        """Nobody waits for it any more."""


W = TypeVar("W", bound=Waiting)


class Together(Generic[W]):
    """`do` takes up to `MOST` of them; it sets what came of each, and raises nothing."""

    def __init__(self, do: Callable[[list[W]], Awaitable[None]]) -> None:
        self._do = do
        self._queue: list[W] = []
        self._led = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def done(self, one: W) -> None:
        """It is done when this returns. Raises what came of it."""
        self._queue.append(one)
        if self._led:
            await self._follow(one)
        else:
            self._led = True
            await self._lead()
        if one.error is not None:
            raise one.error

    async def _follow(self, one: W) -> None:
        try:
            await one.done.wait()
        finally:
            one.is_alone = True
            if one.is_next:  # also when he was cancelled: those behind him wait
                await self._lead()

    async def _lead(self) -> None:
        try:
            await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await self._do_some()
                while not self._hand_over():
                    await self._do_some()

    async def _do_some(self) -> None:
        some, self._queue = self._queue[:MOST], self._queue[MOST:]
        await self._do(some)
        for one in some:
            one.done.set()

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
