"""A partition of an image, changed on a copy first and then block by block: nothing beside it is ever written.

Rules:
- All work is done and checked on a copy. What fails there (no room, a damaged file system) has changed nothing.
- Only blocks that differ are written, from the end to the beginning: on a FAT the contents of files come first, then
  the directory, then the table that says what is in use. After each step everything is on the medium.
- A write that fails takes back what was written before it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cloudly.problems import BadOrder

BLOCK = 4096
CHUNK = 1 << 20

Changes = dict[int, tuple[bytes, bytes]]
"""Place in the partition: before, after."""


@contextmanager
def opened(image: Path) -> Iterator[int]:
    """The image, to be written, by us alone. Raises BadOrder."""
    mode = image.stat().st_mode
    if stat.S_ISREG(mode) and not mode & 0o222:
        raise BadOrder(f"{image} is read-only (mode {stat.S_IMODE(mode):o}): nothing was changed")
    alone = os.O_EXCL if stat.S_ISBLK(mode) else 0  # of a device: not while it is mounted
    try:
        descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC | alone)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BadOrder(f"{image} is in use: unmount its partitions first") from None
        raise BadOrder(
            f"{image} cannot be written: {error.strerror}; nothing was changed"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadOrder(f"{image} is being changed by another process") from None
        yield descriptor
    finally:
        os.close(descriptor)


def change(image: int, start: int, size: int, steps: list[Callable[[Path], None]]) -> None:
    """Do the steps to a copy of the partition, then write what each of them changed. Raises what a step raises."""
    with TemporaryDirectory(prefix="cloudly-image-") as folder:
        copy = Path(folder) / "partition"
        _copy_out(image, start, size, copy)
        done: list[Changes] = []
        for step in steps:
            step(copy)
            done.append(_differences(image, start, size, copy, done))
    for one in done:
        _write(image, start, one)


def _copy_out(image: int, start: int, size: int, copy: Path) -> None:
    """Sparse: blocks of zeros take no room."""
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for place in range(0, size, CHUNK):
            chunk = _read(image, start + place, min(CHUNK, size - place))
            if chunk.strip(b"\0"):
                file.seek(place)
                file.write(chunk)
        file.truncate(size)


def _differences(image: int, start: int, size: int, copy: Path, earlier: list[Changes]) -> Changes:
    """Between the copy and the image as it is once the earlier changes are written."""
    found: Changes = {}
    with copy.open("rb") as file:
        for base in range(0, size, CHUNK):
            length = min(CHUNK, size - base)
            ours, theirs = file.read(length), _read(image, start + base, length)
            pending = any(base <= place < base + length for one in earlier for place in one)
            if ours == theirs and not pending:
                continue
            for place in range(base, base + length, BLOCK):
                after = ours[place - base : place - base + BLOCK]
                before = theirs[place - base : place - base + BLOCK]
                for one in earlier:
                    before = one[place][1] if place in one else before
                if before != after:
                    found[place] = (before, after)
    return found


def _write(image: int, start: int, changes: Changes) -> None:
    """All of it, or nothing that stays. Raises OSError."""
    written: list[int] = []
    try:
        for place in sorted(changes, reverse=True):
            written.append(place)
            _pwrite(image, changes[place][1], start + place)
        os.fsync(image)
    except OSError:
        for place in reversed(written):
            _pwrite(image, changes[place][0], start + place)
        os.fsync(image)
        raise


def _read(image: int, place: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.pread(image, length, place)
        if not part:
            raise BadOrder("the image ended while it was read")
        parts.append(part)
        place, length = place + len(part), length - len(part)
    return b"".join(parts)


def _pwrite(image: int, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(image, view, place)
        view, place = view[count:], place + count
