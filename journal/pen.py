"""The one connection that writes: a transaction, its durability, and what is known after it failed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from journal.problems import NoSpace, WriteFailed, is_full, said, translate
from journal.reading import Row

CLOSED = "it was closed"


class Pen:
    """`is_as_before` asks whether the journal still ends where its writer remembers."""

    def __init__(self, connection: sqlite3.Connection, *, is_as_before: Callable[[], bool]) -> None:
        self._connection = connection
        self._is_as_before = is_as_before
        self._unusable: str | None = None
        self._syncs = True  # settle() has read back synchronous=FULL

    def ask(self, query: str, args: tuple[object, ...]) -> list[Row]:
        self.must_be_usable()
        try:
            return self._connection.execute(query, args).fetchall()
        except sqlite3.Error as error:
            raise translate(error, tried="read the journal") from error

    def insert(self, statement: str, row: Row, *, kind: str, soon: bool) -> None:
        """One statement is a transaction of its own: it saves 10 us of a BEGIN. Raises as `transaction` does."""
        self.must_be_usable()
        try:
            self._sync(soon=soon)
            self._connection.execute(statement, row)
        except sqlite3.Error as error:
            raise self._after_failure(error, kind) from error

    @contextlib.contextmanager
    def transaction(self, kind: str, *, soon: bool) -> Iterator[sqlite3.Connection]:
        """Committed when it ends; synced too unless `soon`. Raises NoSpace (nothing was written) or WriteFailed."""
        self.must_be_usable()
        try:
            self._sync(soon=soon)
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._after_failure(error, kind) from error
        except BaseException:
            self._connection.rollback()
            raise

    def must_be_usable(self) -> None:
        if self._unusable:
            raise WriteFailed("use the journal", self._unusable, "close it and open it again")

    def close(self) -> bool:
        """False: it was closed already."""
        if self._unusable == CLOSED:
            return False
        self._unusable = CLOSED
        self._connection.close()
        return True

    def _sync(self, *, soon: bool) -> None:
        if self._syncs == soon:
            self._connection.execute(f"PRAGMA synchronous={'NORMAL' if soon else 'FULL'}")
            self._syncs = not soon

    def _after_failure(self, error: sqlite3.Error, kind: str) -> NoSpace | WriteFailed:
        tried, seen = f"write {kind!r}", said(error)
        if is_full(error) and self._rolled_back():
            todo = (
                "free some space, or spend_reserve() for last words; the journal goes on by itself"
            )
            return NoSpace(tried, seen, todo)
        self._unusable = seen
        todo = "its outcome is unknown: close the journal and open it again"
        return WriteFailed(tried, seen, todo)

    def _rolled_back(self) -> bool:
        try:
            self._connection.rollback()
            return self._is_as_before()
        except Exception:  # noqa: BLE001 - whatever it is: then we do not know
            return False
