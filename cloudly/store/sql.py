"""What the store's functions ask of a database, whichever it is: sentences with `?`, rows by place and by name.

Rules:
- One text for SQLite and PostgreSQL: what only one of them understands is not said. `?` and `?1` are parameters.
- A function that takes a `Connection` is called in a transaction, or for an answer of one moment; it never commits.
- It is an ordinary function on both: where the database is reached by a network it runs in a greenlet, and waits there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Row(Protocol):
    """A row, by place or by name; `dict(row)` and unpacking work too."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def keys(self) -> Any: ...


class Result(Protocol):
    @property
    def rowcount(self) -> int:
        """How many rows a sentence changed."""
        ...

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    def execute(self, sentence: str, parameters: Sequence[Any] = ..., /) -> Result: ...
    def executemany(self, sentence: str, rows: Iterable[Sequence[Any]], /) -> Any: ...
