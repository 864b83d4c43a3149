"""One writer per data directory: a flock on a file of its own, which dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from journal.problems import AlreadyRunning, NoSpace, NotWritable

FILE = "journal.lock"
_LOOKS = 1_000
"""How often a writer steps aside for somebody who looks."""


class WriterLock:
    """Held until `release` or death. The file says who holds it, for people; the lock itself is the kernel's."""

    def __init__(self, directory: Path, *, since_ms: int) -> None:
        self._fd = _open(directory / FILE)
        if not _take(self._fd):
            pid, since = _holder(self._fd)
            os.close(self._fd)
            raise AlreadyRunning(str(directory), pid, since)
        with contextlib.suppress(OSError):  # On a full disk the lock holds without a name in it.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {since_ms}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        tried, seen = f"open {path}", os.strerror(error.errno or 0)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(tried, seen, "free some space") from error
        raise NotWritable(tried, seen, "mount the data volume, and give it to this user") from error


def _take(fd: int) -> bool:
    """Alone, or not at all. Somebody who only looks (`holder`) shares the lock for microseconds: that is no writer."""
    for _ in range(_LOOKS):
        if _lock(fd, fcntl.LOCK_EX):
            return True
        if not _lock(fd, fcntl.LOCK_SH):
            return False
        os.sched_yield()
    return False


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> tuple[int | None, int | None]:
    words = os.pread(fd, 64, 0).split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        return int(words[0]), int(words[1])
    return None, None


def holder(directory: Path) -> int | None:
    """The pid of the writer that has this directory now; None when there is none. Never waits, makes no file."""
    try:
        fd = os.open(directory / FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _lock(fd, fcntl.LOCK_SH) else _holder(fd)[0] or 0
    finally:
        os.close(fd)
