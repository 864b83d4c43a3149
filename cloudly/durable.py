"""Small files that must be whole at any time: temporary file, fsync, rename, fsync of the directory."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace the file; when this returns, a power cut cannot take it back. Raises OSError; then the old one is there.

    The mode is the new file's from its first byte on; its owner is the old file's where we may give it away.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            os.fchmod(descriptor, mode)
            _keep_owner(descriptor, path)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_owner(descriptor: int, path: Path) -> None:
    if os.geteuid() != 0:
        return
    try:
        before = path.stat()
    except FileNotFoundError:
        before = path.parent.stat()  # the CLI run by root beside a server that is not
    os.fchown(descriptor, before.st_uid, before.st_gid)
