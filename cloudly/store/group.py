"""Group commit: decisions that arrive together share one COMMIT, and nobody hears of his before it.

Rules:
- No task and no thread: the first to come leads. He lets everyone else who is ready queue up, then runs all of it
  inline and commits. So it works without a lifespan, and under virtual time.
- Each decision has its own savepoint: a refusal or a bug undoes itself, not its neighbours.
- A cancelled leader still commits the queue: his followers wait for it, and his own client may have gone after asking.
- After an I/O error nothing more is written (a later fsync would lie); the process is to be started again.

The COMMIT runs inline, not in a thread: it costs throughput while the disk flushes, and keeps one order of events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from cloudly.problems import StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_BATCH = 256  # throughput peaks at 256..512 a batch and falls at 1024 (server notes §2.2)
PRIMARY = 0xFF  # the primary result code is the low byte of an extended one
FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Pending:
    """One decision in the queue and, later, what came of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.done = anyio.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Group:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.on_broken: Callable[[], None] = lambda: None
        self._queue: list[_Pending] = []
        self._led = False
        self.commits = 0
        self.decisions = 0
        self.broken = False
        """An I/O error was met in a transaction; nothing is written any more."""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def write(self, work: Work[T]) -> T:
        """What `work` returned or raised, after it is durable. Raises StoreUnavailable."""
        pending = _Pending(work)
        self._queue.append(pending)
        if self._led:
            await pending.done.wait()
        else:
            await self._lead()
        result: T = pending.outcome()
        return result

    def write_now(self, work: Work[T]) -> T:
        """The same, for the CLI and for start and stop: at once and alone."""
        pending = _Pending(work)
        self._commit([pending])
        result: T = pending.outcome()
        return result

    async def _lead(self) -> None:
        self._led = True
        try:
            await checkpoint()
        finally:
            self._led = False
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                self._commit(batch)

    def _commit(self, batch: list[_Pending]) -> None:
        try:
            if self.broken:
                raise sqlite3.OperationalError("the database failed before")
            self._connection.execute("BEGIN IMMEDIATE")
            for pending in batch:
                self._decide(pending)
            self._connection.execute("COMMIT")
        except sqlite3.Error as problem:
            self._abandon(batch, problem)
        else:
            self.commits += 1
            self.decisions += len(batch)
        finally:
            for pending in batch:
                pending.done.set()

    def _decide(self, pending: _Pending) -> None:
        execute = self._connection.execute
        execute("SAVEPOINT decision")
        try:
            pending.result = pending.work(self._connection)
        except Exception as problem:
            if isinstance(problem, sqlite3.OperationalError) or not self._connection.in_transaction:
                raise  # full, busy or failing: the transaction is not to be trusted
            execute("ROLLBACK TO decision")
            pending.error = problem
        execute("RELEASE decision")

    def _abandon(self, batch: list[_Pending], problem: sqlite3.Error) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if getattr(problem, "sqlite_errorcode", 0) & PRIMARY in FATAL:
            self.broken = True
            self.on_broken()
        for pending in batch:
            pending.error = StoreUnavailable(f"nothing was written: {problem}")
