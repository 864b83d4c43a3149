"""The engine for who is in no event loop: a loop of its own in a thread of its own, asked and waited for.

The CLI, a server's start and end, and tests that look from beside use it; a request never does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from cloudly.store.pg.database import PgDatabase

T = TypeVar("T")


class Aside:
    def __init__(self, make: Callable[[], PgDatabase]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="store")
        self._thread.start()
        self.database = make()

    def call(self, ask: Callable[[PgDatabase], Awaitable[T]]) -> T:
        """What `ask` returned or raised, after it is done over there."""

        async def asked() -> T:
            return await ask(self.database)

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def close(self) -> None:
        self.call(lambda database: database.leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
