"""Update locks, as the Supervisor sees them on disk.

Rules:
- A service is locked while its lock directory holds `updates.lock` or `resin-updates.lock`, a file or a directory.
- A lock owned by uid 65534 (nobody) is taken for a leftover of the Supervisor's own: ignored and deleted.
- `force` deletes locks. Deleting one counts, and is told to whoever asked for it.
- Lock directories are in a tmpfs: they are empty after a reboot of the host.

Source: the recordings `lock-edge` and `locked-idle`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOCK_NAMES: Final = ("updates.lock", "resin-updates.lock")
NOBODY: Final = 65534

LockDirectory = Callable[[int, str], Path]
"""Where the service (app id, service name) has its lock directory."""


def one_directory(path: Path) -> LockDirectory:
    """All services share one directory: a device with one service, the agent."""
    return lambda _app_id, _service: path


def directory_each(root: Path) -> LockDirectory:
    """The layout of a real device: `<root>/<app id>/<service name>`."""
    return lambda app_id, service: root / str(app_id) / service


class UpdatesLockedError(Exception):
    """A service holds an update lock. The message is the Supervisor's."""

    def __init__(self, app_id: int, service: str) -> None:
        super().__init__(f"Lockfile exists for {{ appId: {app_id}, service: {service} }}")


def owner_of(lock: Path) -> int:
    """The uid that the file system says; ours, when the lock has just gone."""
    try:
        return lock.lstat().st_uid
    except FileNotFoundError:
        return os.geteuid()


@dataclass(frozen=True, slots=True)
class Locks:
    directory: LockDirectory
    deleted: Callable[[Path], None]
    """Called for each lock of somebody else's that was deleted by force."""
    owner: Callable[[Path], int] = owner_of

    def check(self, app_id: int, service: str, *, force: bool) -> None:
        """Go on only if the service holds no lock, or by force.

        Raises:
            UpdatesLockedError: it holds one.

        """
        for lock in self._held(app_id, service):
            if self.owner(lock) == NOBODY:
                _delete(lock)
            elif force:
                _delete(lock)
                self.deleted(lock)
            else:
                raise UpdatesLockedError(app_id, service)

    def vanish(self, app_id: int, service: str) -> None:
        """The host reboots: the tmpfs is empty."""
        for lock in self._held(app_id, service):
            _delete(lock)

    def _held(self, app_id: int, service: str) -> Iterator[Path]:
        directory = self.directory(app_id, service)
        for name in LOCK_NAMES:
            lock = directory / name
            if lock.exists() or lock.is_symlink():
                yield lock


def _delete(lock: Path) -> None:
    if lock.is_dir() and not lock.is_symlink():
        shutil.rmtree(lock)
    else:
        lock.unlink(missing_ok=True)
