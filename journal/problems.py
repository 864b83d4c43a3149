"""The one family of errors that leaves this room; each says what was tried, what was seen and what to do.

JournalProblem
├── IllegalFact      our own mistake: the chart has no such arrow; nothing was written
├── Malformed        our own mistake: a fact, a name or a chart that cannot be; nothing was written
├── Parked           the stream holds what this program cannot read (written by a newer one)
├── AlreadyRunning   another process writes here
├── NoJournal        there is none here to read
├── NotWritable      the place is missing, read-only or somebody else's
├── NotDurable       the place cannot keep the promise: no WAL, or no synchronous=FULL
├── NoSpace          the disk is full; nothing was written, and the journal goes on when there is room
├── Damaged          what is there cannot be read, or does not hang together
├── Foreign          another application's database lies where the journal should be
├── FromTheFuture    written by a newer program, in a schema that this one does not know
├── WriteFailed      a commit failed: its outcome is unknown until the journal is closed and opened again
└── Fork             Cloudly holds another history of this epoch than we do
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.facts import Fact


class JournalProblem(Exception):
    """What was tried, what was seen, what to do."""

    def __init__(self, tried: str, seen: str, todo: str) -> None:
        super().__init__(f"{tried}: {seen}; {todo}")
        self.tried = tried
        self.seen = seen
        self.todo = todo


class IllegalFact(JournalProblem):
    """The chart has no such arrow. Nothing was written."""

    def __init__(self, machine: str, src: str, kind: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            f"record {kind!r} in {machine}",
            f"the state is {src!r}, where only {', '.join(allowed) or 'nothing'} may follow",
            "this is a mistake of the program, please report it",
        )
        self.machine = machine
        self.src = src
        self.kind = kind
        self.allowed = allowed


class Malformed(JournalProblem, ValueError):
    """A fact, a name, a chart or an export that cannot be."""


class Parked(JournalProblem):
    """The stream holds a fact that this program cannot read. It is never skipped."""

    def __init__(self, stream: str, fact: Fact | None, reason: str) -> None:
        super().__init__(
            f"recall {stream}",
            f"fact {fact.seq} ({fact.kind!r}): {reason}" if fact else reason,
            "a newer program wrote it: run that one again, or end the stream with it",
        )
        self.stream = stream
        self.fact = fact
        self.reason = reason


class AlreadyRunning(JournalProblem):
    """Another process is the one writer. `pid` and `since` (ms since 1970) are None where it could not say."""

    def __init__(self, where: str, pid: int | None, since: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"open {where} for writing",
            f"{who} is writing it",
            "there is one writer per data directory: stop the first, or read with open_reader",
        )
        self.pid = pid
        self.since = since


class NoJournal(JournalProblem):
    """There is none here to read."""


class NotWritable(JournalProblem):
    """The place is missing, read-only or somebody else's."""


class NotDurable(JournalProblem):
    """The place cannot keep the promise that a fact is durable when append returns."""


class NoSpace(JournalProblem):
    """The disk is full. Nothing was written; `Journal.spend_reserve` makes room for last words."""


GOES_ON = "nothing was changed; when the agent starts, it keeps the files aside and goes on with what can be read"
"""What becomes of a damaged journal, and that nobody has to do it by hand."""


class Damaged(JournalProblem):
    """What is there cannot be read or does not hang together. Nothing was deleted or renamed."""


class Foreign(JournalProblem):
    """Another application's database lies there. It is never touched: salvage is for journals."""


class FromTheFuture(JournalProblem):
    """The schema is newer than this program. Nothing was changed."""

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            f"open {where}",
            f"its schema is version {found}, this program knows up to {known}",
            "run the newer program again; it is left untouched",
        )
        self.found = found
        self.known = known


class WriteFailed(JournalProblem):
    """The outcome of a commit is unknown. Close, open again, recall: the journal then says what happened."""


class Fork(JournalProblem):
    """Cloudly's history of this epoch is not ours: our tail was lost, or a copy of this journal lives elsewhere."""


def translate(error: sqlite3.Error, *, tried: str) -> JournalProblem:
    """What SQLite said while opening or reading, in this family. Codes as seen under real faults (note, 4.3, 4.4)."""
    if isinstance(error, sqlite3.ProgrammingError):
        raise error  # our own mistake: a query that cannot be, or another thread
    seen = said(error)
    code = _code(error)
    if is_full(error):
        return NoSpace(tried, seen, "free some space")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return NotWritable(tried, seen, "check the volume's mount, its owner and its mode")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return AlreadyRunning(tried, None, None)
    return Damaged(tried, seen, GOES_ON)


def is_full(error: sqlite3.Error) -> bool:
    """No room for a page, or for the shared memory beside the journal."""
    return _code(error) in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}


def said(error: sqlite3.Error) -> str:
    return f"SQLite said {_code(error)} ({error})"


def _code(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
