"""SQLite as the store's engine: one connection, used inline by who asks.

Rules:
- Every transaction is BEGIN IMMEDIATE: each decision is alone with the database, whoever else has it open.
- Each decision has its own savepoint: a refusal or a bug undoes itself, not its neighbours.
- After an I/O error nothing more is written (a later fsync would lie); the process is to be started again.

The COMMIT runs inline, not in a thread: it costs throughput while the disk flushes, and keeps one order of events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Sequence

from cloudly.problems import StoreUnavailable
from cloudly.store.database import Pending, T, Work

PRIMARY = 0xFF  # the primary result code is the low byte of an extended one
FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteDatabase:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.identity: str | None = None
        self.gathers = False
        self.broken = False
        self.commits = 0
        self.decisions = 0

    def read_now(self, question: Work[T]) -> T:
        try:
            return question(self._connection)
        except sqlite3.OperationalError as problem:
            raise StoreUnavailable(f"nothing was read: {problem}") from problem

    async def read(self, question: Work[T]) -> T:
        return self.read_now(question)

    async def commit(self, batch: Sequence[Pending]) -> None:
        self.commit_now(batch)

    def commit_now(self, batch: Sequence[Pending]) -> None:
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

    async def version(self) -> Hashable:
        return self.read_now(lambda db: int(db.execute("PRAGMA data_version").fetchone()[0]))

    async def leave(self) -> None:
        """Nobody is there who would miss us."""

    def close(self) -> None:
        self._connection.close()

    def _decide(self, pending: Pending) -> None:
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

    def _abandon(self, batch: Sequence[Pending], problem: sqlite3.Error) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if getattr(problem, "sqlite_errorcode", 0) & PRIMARY in FATAL:
            self.broken = True
        for pending in batch:
            pending.error = StoreUnavailable(f"nothing was written: {problem}")
