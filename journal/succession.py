"""A new epoch in the place of an old one, after damage, a lost tail, a fork or a fence; power may go at any instant.

Rules
- The whole new journal is built under another name, and synced, before anything that is there is touched.
- `journal.next` in the directory means: the succession is decided. `finish`, called at every opening, completes it.
- Only then the old files go to `kept/<number>-<epoch>/`, the database first: a WAL never stands beside another database
  than its own, and a database never without its WAL under its old name. Then the new one gets its name.
- After each step its directories are synced before the next: a power cut leaves the old journal, a succession that
  `finish` completes, or the new one.
- A decided succession whose old journal was written to meanwhile (by an older program, which knows nothing of it) is
  dropped: what was written counts.
- On a full disk the reserve is spent, older kept folders go, and then less is carried, and the first note says so.

Order:  build journal.succession -> sync -> rename to journal.next -> sync
        -> kept/ and its folder -> sync -> journal.db -> sync -> journal.db-wal, -shm -> sync
        -> journal.next to journal.db -> sync -> older kept folders go.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journal import schema
from journal.connection import connect
from journal.facts import Stamp, StreamInfo
from journal.lock import WriterLock
from journal.problems import JournalProblem, NoSpace, NotWritable, translate
from journal.reserve import Reserve

if TYPE_CHECKING:
    from journal.salvage import Salvaged

BUILDING, NEXT, KEPT = "journal.succession", "journal.next", "kept"
KEPT_FOLDERS = 3
KEPT_BYTES = 64 << 20
"""Of all kept folders together; the newest one stays whatever its size: it took no room that was not taken before."""
_SUFFIXES = ("", "-wal", "-shm", "-journal")
Points = Callable[[str], None]


def _no_points(_name: str) -> None:
    """Nobody watches the steps."""


@dataclass(frozen=True, slots=True)
class Succession:
    """What became of the old epoch; `began` is the data of the new one's first fact."""

    epoch: str
    old_epoch: str
    kept_in: str
    began: dict[str, Any]
    carried: int
    evidence: int
    broken: tuple[str, ...]
    """Open or wanted streams that could not be carried."""

    @property
    def lost(self) -> int:
        """How many facts behind Cloudly's ack are gone."""
        ranges = [each for lane in self.began["lanes"].values() for each in lane["lost"]]
        return sum(last - first + 1 for first, last in ranges)


def begin_epoch(  # noqa: PLR0913 - each is a word of the note that explains the new epoch
    directory: Path,
    *,
    stamp: Callable[[], Stamp],
    new_epoch: Callable[[], str],
    why: str,
    problem: str,
    wanted: Callable[[StreamInfo], bool],
    final: Callable[[StreamInfo], bool] = lambda _: False,
    known: Mapping[str, object] | None = None,
    epochs: Iterable[str] = (),
    points: Points = _no_points,
) -> Succession:
    """The journal must be closed in this process. Raises AlreadyRunning, NotWritable, NoSpace, Foreign.

    `wanted` is asked of the streams that have ended: which will be read again. The open ones are carried in any case.
    `final` is asked where what is left does not say that a stream has ended: whether nothing may follow its state.
    `why` is salvaged, tail-lost, forked or fenced, `problem` a sentence; `known`, if anything outside this directory
    knew of an epoch, that `epoch` and how far its `lanes` had come; `epochs`: of which this journal may be, when it
    cannot say so itself. `points` hears every step (`finish`), and
    before them `built` and `decided`.
    """
    from journal.successor import write_what_fits

    now = stamp()
    lock = WriterLock(directory, since_ms=now.at_ms)
    try:
        finish(directory)
        found = _salvaged(directory, epochs, final)
        epoch, decision = new_epoch(), _prepare(directory, found.epoch)
        told = {
            "why": why,
            "from": found.epoch,
            "problem": problem[:2_000],
            "known": dict(known or {}),
            "kept_in": decision["kept_in"],
            "removed": [folder.name for folder in _too_many(directory, coming=True)],
        }
        load, told = write_what_fits(
            directory / BUILDING,
            found,
            wanted,
            meta={"epoch": epoch, "opened": "0", "succeeds": json.dumps(decision)},
            told=told,
            now=now,
            make_room=lambda: _make_room(directory),
        )
        points("built")
        (directory / BUILDING).rename(directory / NEXT)
        points("decided")
        _sync(directory, points)
        finish(directory, points=points)
    except (sqlite3.Error, OSError) as error:
        raise _translated(error, directory) from error
    finally:
        lock.release()
    counts = len(load.facts), len(load.evidence)
    broken = tuple(each.info.name for each in load.broken)
    return Succession(epoch, found.epoch, str(decision["kept_in"]), told, *counts, broken)


def _salvaged(
    directory: Path, epochs: Iterable[str], final: Callable[[StreamInfo], bool]
) -> Salvaged:
    from journal.salvage import salvage

    found = salvage(directory, epochs=epochs)
    return replace(found, streams=[_ended(info, final) for info in found.streams])


def _ended(info: StreamInfo, final: Callable[[StreamInfo], bool]) -> StreamInfo:
    """Damage may take the word that an attempt has ended; its last fact says so too."""
    if info.last_seq is not None or info.last is None or not final(info):
        return info
    return replace(info, last_seq=info.last.seq)


def finish(directory: Path, *, points: Points = _no_points) -> bool:
    """Complete a succession that was cut short; the caller holds the writer lock. False: there was none to complete.

    `points` hears `kept:<file>`, `named`, and `synced:<folder>` after each. Raises NotWritable, NoSpace.
    """
    chosen = directory / NEXT
    try:
        for leftover in directory.glob(BUILDING + "*"):
            leftover.unlink()
        if not chosen.exists():
            return False
        return _complete(directory, chosen, points)
    except OSError as error:
        raise _translated(error, directory) from error


def _complete(directory: Path, chosen: Path, points: Points) -> bool:
    kept_in, old = _decision(directory)
    if (directory / schema.FILE).exists() and _state(directory) != old:
        chosen.unlink()
        _sync(directory, points)
        return False
    _keep(directory, kept_in, points)
    chosen.rename(directory / schema.FILE)
    points("named")
    _sync(directory, points)
    for folder in _too_many(directory):
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _keep(directory: Path, kept_in: str, points: Points) -> None:
    """The old files, the database first; those that a cut had moved already are not there any more."""
    there = [path for path in _old_files(directory) if path.exists()]
    if there:
        _make_folder(directory / kept_in, points)
    for path in there:
        path.rename(directory / kept_in / path.name)
        points(f"kept:{path.name}")
        _sync(directory / kept_in, points)
        _sync(directory, points)


def _decision(directory: Path) -> tuple[str, object]:
    """What was decided, from the new journal itself.

    One that cannot say it counts for nothing beside an old one; in its absence it is all there is, to be salvaged.
    """
    try:
        with closing(connect(directory / NEXT, mode="ro&immutable=1")) as looking:
            query = "SELECT value FROM meta WHERE name = 'succeeds'"
            decided = json.loads(looking.execute(query).fetchone()[0])
    except (sqlite3.Error, TypeError, ValueError):
        return _next_folder(directory, ""), None
    return str(decided["kept_in"]), decided["old"]


# ------------------------------------------------------------------------------------------ the files


def _prepare(directory: Path, epoch: str) -> dict[str, object]:
    """Where the old files go (made now, while there is room; empty: there are none), and by what they are known."""
    kept_in = ""
    old = [path for path in _old_files(directory) if path.exists()]
    for abandoned in _folders(directory):
        with contextlib.suppress(OSError):  # it is not empty
            abandoned.rmdir()
    if old:
        kept_in = _next_folder(directory, epoch)
        _make_folder(directory / kept_in, _no_points)
    for path in old:
        with contextlib.suppress(OSError):  # else a power cut might turn back their time of change
            sync(path)
    return {"kept_in": kept_in, "old": _state(directory)}


def _old_files(directory: Path) -> list[Path]:
    return [directory / (schema.FILE + suffix) for suffix in _SUFFIXES]


def _state(directory: Path) -> dict[str, list[int]]:
    """By what the old journal is known again: nobody has written to it since. An empty WAL says nothing."""
    found = {}
    for path in _old_files(directory)[:2]:
        with contextlib.suppress(FileNotFoundError):
            seen = path.stat()
            if seen.st_size:
                found[path.name] = [seen.st_size, seen.st_mtime_ns]
    return found


def _next_folder(directory: Path, epoch: str) -> str:
    """`kept/3-0011aabb`."""
    number = 1 + max(map(_number, _folders(directory)), default=0)
    return f"{KEPT}/{number}-{epoch[:8] or 'unreadable'}"


def _folders(directory: Path) -> list[Path]:
    """The newest first."""
    kept = directory / KEPT
    found = [path for path in kept.iterdir() if _number(path)] if kept.is_dir() else []
    return sorted(found, key=_number, reverse=True)


def _number(folder: Path) -> int:
    number = folder.name.partition("-")[0]
    return int(number) if number.isdecimal() and number.isascii() else 0


def _too_many(directory: Path, *, coming: bool = False) -> list[Path]:
    """Which kept folders go; `coming`: the old files, which will be in the newest one, count already."""
    folders = _folders(directory)
    sizes = [_bytes(folder.iterdir()) for folder in folders]
    if coming and sizes:
        sizes[0] += _bytes(_old_files(directory))
    keep = 1
    while keep < min(len(folders), KEPT_FOLDERS) and sum(sizes[: keep + 1]) <= KEPT_BYTES:
        keep += 1
    return folders[keep:]


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


def _make_room(directory: Path) -> None:
    """The reserve, and all kept folders but the one that waits for the old files."""
    Reserve(directory).spend()
    for folder in _folders(directory)[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder(folder: Path, points: Points) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        _sync(folder.parent, points)
        _sync(folder.parent.parent, points)


def _sync(directory: Path, points: Points) -> None:
    sync(directory)
    points(f"synced:{directory.name}")


def _translated(error: sqlite3.Error | OSError, directory: Path) -> JournalProblem:
    tried = f"begin a new epoch in {directory}"
    if isinstance(error, sqlite3.Error):
        return translate(error, tried=tried)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(tried, str(error), "free some space; the old journal is untouched")
    return NotWritable(tried, str(error), "check the volume's mount and owner")


def sync(path: Path) -> None:
    """A file, or a directory: what is in it under which name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
