"""What the store asks of an engine: an answer of one moment, and many decisions in one durable transaction.

Rules:
- A decision is a function of the database; each is undone by itself when it refuses or fails, and nobody hears of his
  before all of them are durable.
- A decision about nodes names them: decisions about nodes, each other's or the same one's, may be committed by several
  processes at once. Every other decision is alone with the database while it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

from cloudly.store.sql import Connection
from cloudly.store.together import Waiting

T = TypeVar("T")
Work = Callable[[Connection], T]


class Usual(Protocol):
    """A decision that is nearly always the same few rows: an engine may take many of them in a few sentences.

    Whatever is not usual about it is left to the decision's own function.
    """


class Pending(Waiting):
    """One decision in the queue and, later, what came of it."""

    __slots__ = ("nodes", "result", "usual", "work")

    def __init__(
        self, work: Work[Any], nodes: Sequence[int] | None = None, usual: Usual | None = None
    ) -> None:
        super().__init__()
        self.work = work
        self.nodes = nodes
        """Those that it is about, one where it is usual; None: it may be about anything."""
        self.usual = usual
        """What it is as one of many alike; None: nothing of the kind."""
        self.result: Any = None


class Database(Protocol):
    """An engine, opened and migrated."""

    gathers: bool
    """Whether questions of many are better asked as one: the database is behind a network."""
    broken: bool
    """It failed in a way that only another process can go on from."""
    identity: str | None
    """Another one once the database was restored; None: the engine cannot tell."""
    commits: int
    decisions: int

    def read_now(self, question: Work[T]) -> T:
        """For who is in no event loop: the CLI, start and end. Raises StoreUnavailable."""
        ...

    async def read(self, question: Work[T]) -> T:
        """From what is committed. Raises StoreUnavailable."""
        ...

    def commit_now(self, batch: Sequence[Pending]) -> None: ...

    async def commit(self, batch: Sequence[Pending]) -> None:
        """Every outcome is set when it returns; it raises nothing."""
        ...

    async def version(self) -> Hashable:
        """Differs whenever something was written by another process. Raises StoreUnavailable."""
        ...

    async def leave(self) -> None:
        """Say goodbye, before the event loop ends; what is asked after that is asked anew."""
        ...

    def close(self) -> None: ...
