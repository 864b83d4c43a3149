"""A reader beside the one writer: it never blocks it, and never makes or removes a file next to it.

While there is a WAL, readers share it (`mode=ro`). After a clean stop there is none, and SQLite would create one only
to read: such a journal is opened as immutable for one query at a time, and asked again when it changed meanwhile.
Immutable is never used while a WAL is there: it would silently show the journal without its newest facts (note, 4.4).

"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from journal import schema
from journal.connection import connect, wal_bytes
from journal.problems import AlreadyRunning, NoJournal, translate
from journal.reading import Reading, Row

_TRIES = 5


def open_reader(where: Path) -> Reader:
    """`where` is a data directory or a journal file. Raises NoJournal, Damaged, FromTheFuture."""
    return Reader(where / schema.FILE if where.is_dir() else where)


class Reader(Reading):
    def __init__(self, path: Path) -> None:
        super().__init__(self._ask)
        self._path = path
        self._connection: sqlite3.Connection | None = None
        if not path.exists():
            raise NoJournal(
                f"read {path}", "there is none", "check the directory; the agent makes it"
            )
        schema.recognise(self._rows, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, query: str, args: tuple[object, ...]) -> list[Row]:
        try:
            return self._answer(query, args)
        except sqlite3.Error as error:
            raise translate(error, tried=f"read {self._path}") from error

    def _answer(self, query: str, args: tuple[object, ...]) -> list[Row]:
        for _ in range(_TRIES):
            if self._connection is None and wal_bytes(self._path):
                self._connection = connect(self._path, mode="ro")
            if self._connection is not None:
                return self._connection.execute(query, args).fetchall()
            before = self._signature()
            with closing(connect(self._path, mode="ro&immutable=1")) as still:
                rows = still.execute(query, args).fetchall()
            if self._signature() == before:
                return rows
        raise AlreadyRunning(f"{self._path} for reading, which changes all the time", None, None)

    def _signature(self) -> tuple[int, int, int]:
        seen = self._path.stat()
        return seen.st_mtime_ns, seen.st_size, wal_bytes(self._path)
