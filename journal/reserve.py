"""A file of ballast beside the journal: given back to a full file system, so that there is room to say that it is full.

A full disk stops more than writing: a journal that was closed cannot even be read there (SQLite finds no room for its
32 KiB of shared memory), nor can old facts be deleted. 256 KiB of ballast brought all of that back (journal note, 4.4).
"""

from __future__ import annotations

import os
from hashlib import shake_256
from pathlib import Path

FILE = "ballast"
BYTES = 512 * 1024
ENOUGH_BYTES = 8 * BYTES
"""What must be free before the reserve is taken again: else it would flap on a disk that stays nearly full."""


class Reserve:
    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def is_there(self) -> bool:
        try:
            return self._path.stat().st_size >= BYTES
        except OSError:
            return False

    def spend(self) -> bool:
        """Give the room back. False: there was none left."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def restore(self) -> bool:
        """Take the room again. False: the disk has none to spare."""
        if self.is_there():
            return True
        try:
            if self._spare_bytes() < ENOUGH_BYTES:
                return False
            self._write()
        except OSError:
            self.spend()
            return False
        return True

    def _spare_bytes(self) -> int:
        seen = os.statvfs(self._path.parent)
        return seen.f_bavail * seen.f_frsize

    def _write(self) -> None:
        # Real blocks: not sparse, and nothing that a file system could compress away.
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            ballast = memoryview(shake_256(b"ballast").digest(BYTES))
            while ballast:
                ballast = ballast[os.write(fd, ballast) :]
            os.fsync(fd)
        finally:
            os.close(fd)
