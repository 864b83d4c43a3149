"""Opening what a journal command is pointed at: the agent's own journal, a copy taken off a device, or an export.

A copy is evidence: reading one leaves no file beside it. SQLite can read a WAL only with a shared-memory file beside
it, and makes one; so a copy that has a WAL and no such file, which means that nobody has it open, is read from a
second copy that goes away with the command.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journal import schema
from journal.connection import wal_bytes
from journal.problems import Malformed, NotWritable
from journal.survey import Survey, open_survey


@contextmanager
def opened(where: Path) -> Iterator[Survey]:
    """`where`: a folder, a journal file or an export. Raises JournalProblem."""
    path = where / schema.FILE if where.is_dir() else where
    if is_export(path):
        with _room() as room:
            load_file(path, room)
            with open_survey(room) as survey:
                yield survey
    elif wal_bytes(path) and not _beside(path, "-shm").exists():
        with _room() as room:
            _copy(path, room)
            with open_survey(room / path.name) as survey:
                yield survey
    else:
        with open_survey(path) as survey:
            yield survey


def is_export(path: Path) -> bool:
    """Whether the file begins as lines of JSON do. A database begins with its own magic."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"{"


def load_file(path: Path, directory: Path) -> int:
    """Make a journal in `directory` from an export; how many facts. Raises JournalProblem, OSError."""
    from journal.export import load

    with path.open(encoding="utf-8") as lines:
        try:
            return load(lines, directory).events
        except UnicodeDecodeError as error:
            seen = f"it is not UTF-8 text ({error.reason})"
            raise Malformed(f"read the export {path}", seen, "pass a whole export") from error


def _copy(path: Path, room: Path) -> None:
    try:
        for file in (path, _beside(path, "-wal")):
            shutil.copyfile(file, room / file.name)
    except OSError as error:
        seen = f"{error.strerror}, and it has a WAL that nobody has open"
        todo = f"make room in {room.parent}, or set TMPDIR"
        raise NotWritable(f"copy {path} to read it", seen, todo) from error


@contextmanager
def _room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="baserunner-journal-") as room:
        yield Path(room)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
