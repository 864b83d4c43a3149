"""Which server of a data directory this process is: the first one is 0, and most directories have no other.

Rules:
- A slot is a lock on a file (`serve.lock`, `serve-1.lock`, …) that dies with its process. What a server has for itself
  in the directory bears the number of its slot.
- With SQLite there is one server, slot 0. With PostgreSQL as many as wanted, on one machine.
- Files that one machine writes (the logs of devices, SQLite with a log of its own) cannot be read on another one: a
  directory that is shared by a network is refused as long as a server of another machine uses it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudly.problems import AlreadyServing

MOST = 64
"""Servers of one directory: more than a machine has cores for."""
ANY = "serve-any.lock"
"""Held while slots are looked at."""
FORM = re.compile(r"serve(?:-([1-9][0-9]?))?\.lock")


def lock_file(directory: Path, slot: int) -> Path:
    return directory / numbered("serve.lock", slot)


def numbered(name: str, slot: int) -> str:
    """`logs.db` of slot 0, `logs-1.db` of slot 1."""
    stem, dot, rest = name.partition(".")
    return name if slot == 0 else f"{stem}-{slot}{dot}{rest}"


@contextmanager
def taken(directory: Path, *, machine: str, shared: bool) -> Iterator[int]:
    """The first free slot, until the end of the block. Raises AlreadyServing, OSError.

    `machine`: the id of its present boot, which containers on it share.
    """
    with alone(directory / ANY):  # so that two that start together see one another
        if shared:
            _refuse_other_machines(directory, machine)
        held, slot = _first_free(directory, MOST if shared else 1)
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()} {machine}\n".encode(), 0)
    try:
        yield slot
    finally:
        os.close(held)


def in_use(directory: Path) -> dict[int, str]:
    """The slots that servers hold now, with the process of each. Raises OSError."""
    found = {}
    with alone(directory / ANY):  # whoever starts now must not take our look for a server
        for file in directory.glob("serve*.lock"):
            name = FORM.fullmatch(file.name)
            if name is not None and (words := _holder(file)) is not None:
                found[int(name[1] or 0)] = words[0]
    return dict(sorted(found.items()))


@contextmanager
def if_free(directory: Path, slot: int) -> Iterator[bool]:
    """Whether nobody held that slot; it is held until the end of the block."""
    held = _try(lock_file(directory, slot))
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Only one process at a time; waits. Raises OSError."""
    lock = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:  # the CLI run by root beside a server that is not
            owner = file.parent.stat()
            os.fchown(lock, owner.st_uid, owner.st_gid)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _first_free(directory: Path, most: int) -> tuple[int, int]:
    for slot in range(most):
        held = _try(lock_file(directory, slot))
        if held is not None:
            return held, slot
    process = (_holder(lock_file(directory, 0)) or ["unknown"])[0]
    raise AlreadyServing(f"{directory} is served already, by process {process}")


def _try(file: Path) -> int | None:
    lock = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _holder(file: Path) -> list[str] | None:
    """What who holds it has written there: his process and his machine; None: nobody holds it."""
    try:
        lock = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        return os.read(lock, 100).decode("ascii", "replace").split() or ["unknown"]
    finally:
        os.close(lock)


def _refuse_other_machines(directory: Path, machine: str) -> None:
    for slot in range(MOST):
        words = _holder(lock_file(directory, slot)) or []
        if len(words) > 1 and words[1] != machine:
            raise AlreadyServing(
                f"{directory} is served by process {words[0]} of another machine: the logs of devices"
                " cannot be shared by a network. Give this server a directory of its own, with copies"
                " of the keys (docs/scaling.md)"
            )
