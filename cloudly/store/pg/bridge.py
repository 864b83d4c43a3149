"""One connection to PostgreSQL as the store's functions use it: they are called in a greenlet, and wait there.

Rules:
- A sentence is prepared once for each connection; its parameters are converted by what it says their types are.
- What PostgreSQL cannot hold in a text (U+0000) becomes a question mark, as halves of characters do everywhere here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy.util import await_only

from cloudly.problems import StoreUnavailable
from cloudly.store.pg.dialect import Sentence, translated

T = TypeVar("T")

KEPT_PREPARED = 500
FAILED = (
    OSError,
    TimeoutError,
    EOFError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""What is the server's trouble, or the way's to it, and not the sentence's."""
INTEGERS = frozenset({"int2", "int4", "int8"})


class Rows:
    """What a sentence answered."""

    __slots__ = ("_at", "_rows", "rowcount")

    def __init__(self, rows: list[Any], status: str) -> None:
        self._rows = rows
        self._at = 0
        count = status.rsplit(" ", 1)[-1]
        self.rowcount = int(count) if count.isdigit() else -1

    def fetchone(self) -> Any:
        if self._at >= len(self._rows):
            return None
        self._at += 1
        return self._rows[self._at - 1]

    def fetchall(self) -> list[Any]:
        rest = self._rows[self._at :]
        self._at = len(self._rows)
        return rest

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class Prepared:
    """A sentence as one connection knows it."""

    __slots__ = ("_convert", "sentence", "statement")

    def __init__(self, sentence: Sentence, statement: PreparedStatement[Any]) -> None:
        self.sentence = sentence
        self.statement = statement
        self._convert = [_converter(one.name) for one in statement.get_parameters()]

    def arguments(self, parameters: Sequence[Any]) -> list[Any]:
        return [
            convert(parameters[place])
            for convert, place in zip(self._convert, self.sentence.order, strict=True)
        ]


class Bridge:
    """The store's `Connection` over one of asyncpg's."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.raw = connection
        self.is_used = False
        """It was used before, and idled since."""
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()

    def execute(self, sentence: str, parameters: Sequence[Any] = (), /) -> Rows:
        return wait(self.ask(sentence, parameters))

    def executemany(self, sentence: str, rows: Iterable[Sequence[Any]], /) -> None:
        wait(self.ask_many(sentence, list(rows)))

    async def ask(self, sentence: str, parameters: Sequence[Any] = ()) -> Rows:
        """The same, for who is in no greenlet."""
        with telling():
            prepared = await self._known(sentence)
            rows = await prepared.statement.fetch(*prepared.arguments(parameters))
            return Rows(rows, prepared.statement.get_statusmsg() or "")

    async def ask_many(self, sentence: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            with telling():
                prepared = await self._known(sentence)
                await prepared.statement.executemany([prepared.arguments(row) for row in rows])

    async def say(self, command: str) -> None:
        """One that has no parameters and no rows."""
        with telling():
            await self.raw.execute(command)

    async def _known(self, sentence: str) -> Prepared:
        known = self._prepared.get(sentence)
        if known is None:
            theirs = translated(sentence)
            known = self._prepared[sentence] = Prepared(theirs, await self.raw.prepare(theirs.text))
            if len(self._prepared) > KEPT_PREPARED:
                self._prepared.popitem(last=False)
        return known


@contextmanager
def telling() -> Iterator[None]:
    """Raises StoreUnavailable for what is not the sentence's fault."""
    try:
        yield
    except asyncpg.DataError:  # a parameter of the wrong kind: ours
        raise
    except FAILED as problem:
        raise StoreUnavailable(f"PostgreSQL: {said(problem)}") from problem


def said(problem: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(problem, TimeoutError):
        return "it did not answer in time"
    lines = str(problem).splitlines()
    return f"{type(problem).__name__}: {lines[0][:200]}" if lines else type(problem).__name__


def wait(for_what: Awaitable[T]) -> T:
    """In a greenlet: the loop goes on until it is there."""
    result: T = await_only(for_what)
    return result


def _converter(type_name: str) -> Callable[[Any], Any]:
    if type_name in INTEGERS:
        return _as_integer
    if type_name in {"text", "varchar"}:
        return _as_text
    if type_name == "text[]":
        return _as_texts
    return _as_it_is


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _as_text(value: Any) -> Any:
    return value.replace("\0", "?") if isinstance(value, str) and "\0" in value else value


def _as_texts(value: Any) -> Any:
    return [_as_text(one) for one in value]


def _as_it_is(value: Any) -> Any:
    return value
