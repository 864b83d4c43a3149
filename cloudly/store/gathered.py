"""The same question of many who ask at once, answered by one sentence.

Where a database is reached by a network, what a question costs is the way there: those who ask while one is on its way
share the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from cloudly.store.database import T, Work
from cloudly.store.sql import Connection
from cloudly.store.together import Together, Waiting

K = TypeVar("K")
V = TypeVar("V")


class Read(Protocol):
    def __call__(self, question: Work[T], /) -> Awaitable[T]: ...


class Gathered(Generic[K, V]):
    def __init__(self, read: Read, ask: Callable[[Connection, Sequence[K]], Mapping[K, V]]) -> None:
        self._read = read
        self._ask = ask
        self._asking: Together[_Asking[K, V]] = Together(self._answer)

    async def of(self, key: K) -> V | None:
        """The answer for one key; None: there is none. Raises StoreUnavailable."""
        one: _Asking[K, V] = _Asking(key)
        await self._asking.done(one)
        return one.answer

    async def _answer(self, some: Sequence[_Asking[K, V]]) -> None:
        keys = list(dict.fromkeys(one.key for one in some))
        try:
            answers = await self._read(lambda db: self._ask(db, keys))
        except Exception as problem:  # noqa: BLE001 - whoever asked is told
            for one in some:
                one.error = problem
        else:
            for one in some:
                one.answer = answers.get(one.key)


class _Asking(Waiting, Generic[K, V]):
    """Who asks, and what he is answered."""

    def __init__(self, key: K) -> None:
        super().__init__()
        self.key = key
        self.answer: V | None = None
