"""An ext4 of its own in a file, whose power can be cut: whatever was not synced is gone then.

FS_IOC_SHUTDOWN without flushing the log is as near as one machine comes to it (journal note, 4.2).
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

FS_IOC_SHUTDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2  # include/uapi/linux/fs.h, ext4.h
IMAGE_BYTES = 48 << 20


@dataclass
class LoopDisk:
    image: Path
    at: Path

    def make(self) -> str:
        """Make and mount it. Why that is not possible here; empty: it is there."""
        if os.geteuid() != 0:
            return "not root"
        self.at.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        return _done("mkfs.ext4", "-q", str(self.image)) or self.mount()

    def mount(self) -> str:
        """Why not; empty: it is mounted."""
        return _done("mount", "-o", "loop,noatime", str(self.image), str(self.at))

    def cut_the_power(self) -> None:
        root = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(root, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(root)

    def unmount(self, *, busy: bool = False) -> None:
        """`busy`: also while somebody has a file open there; it goes when they are done."""
        _done("umount", *(["--lazy"] if busy else []), str(self.at))


def _done(*words: str) -> str:
    """Why it was not; empty: it was."""
    try:
        run = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    return run.stderr.strip() or f"{words[0]} ended with {run.returncode}" if run.returncode else ""
