"""The same question of many who ask at once, answered by one sentence.

Where a database is reached by a network, what a question costs is the way there: those who ask while one is on its way
share the next one. It leads and is handed over as `group.Group` does it, which does the waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from cloudly.store.database import Pending, Work
from cloudly.store.group import Group
from cloudly.store.sql import Connection

K = TypeVar("K")
V = TypeVar("V")


class Gathered(Generic[K, V]):
    def __init__(self, read: Any, ask: Callable[[Connection, Sequence[K]], Mapping[K, V]]) -> None:
        self._read = read
        self._ask = ask
        self._group = Group(self)  # type: ignore[arg-type]  # of an engine it uses `commit` and `broken` only
        self.broken = False

    async def of(self, key: K) -> V | None:
        """The answer for one key; None: there is none. Raises StoreUnavailable."""
        return await self._group.write(_nothing, usual=_Key(key))

    async def commit(self, batch: Sequence[Pending]) -> None:
        keys = list(dict.fromkeys(one.usual.key for one in batch))  # type: ignore[union-attr]
        question: Work[Mapping[K, V]] = lambda db: self._ask(db, keys)  # noqa: E731
        try:
            answers = await self._read(question)
        except Exception as problem:  # noqa: BLE001 - whoever asked is told
            for pending in batch:
                pending.error = problem
        else:
            for pending in batch:
                pending.result = answers.get(pending.usual.key)  # type: ignore[union-attr]


class _Key:
    """What somebody asks about."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key


def _nothing(_db: Connection) -> Any:
    raise NotImplementedError
