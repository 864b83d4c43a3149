"""The update lock: what keeps the Supervisor from applying before the journal says so."""

from __future__ import annotations

import json
import os
from pathlib import Path

from baserunner.problems import LockProblem

FILE = "updates.lock"
OURS = {
    "owner": "baserunner",
    "reason": "an update is applied only when baserunner's journal says so",
}


class UpdateLock:
    """The file `updates.lock` in the agent's own lock directory, shared with the Supervisor.

    The Supervisor looks at its existence; it ignores and deletes a lock owned by uid 65534. It lies in a tmpfs: it
    survives a crash of the agent and goes with a reboot of the host. A lock that someone else put there is respected.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def take(self) -> None:
        """Hold it, whoever holds it already. Raises LockProblem if it cannot be written."""
        try:
            if not self._path.parent.is_dir():
                self._path.parent.mkdir(parents=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            if self.exists():
                return
            raise LockProblem(
                f"cannot take the update lock {self._path}: {error.strerror}; the container's entrypoint "
                "must own that directory"
            ) from None
        try:
            os.write(descriptor, json.dumps(OURS).encode())
        except OSError:
            return  # a full tmpfs: it is held by being there, and an empty one is ours
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of ours. A lock of someone else stays. Raises LockProblem."""
        if not self.is_ours():
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise LockProblem(
                f"cannot release the update lock {self._path}: {error.strerror}"
            ) from None

    def exists(self) -> bool:
        """Whether somebody holds it. Raises LockProblem where that cannot be seen."""
        try:
            self._path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise LockProblem(
                f"cannot see the update lock {self._path}: {error.strerror}"
            ) from None
        return True

    def is_ours(self) -> bool:
        """Whether we wrote it. An empty file is ours too: a power cut between creating and writing it."""
        try:
            content = self._path.read_bytes()[:1000]
        except OSError:
            return False
        if not content:
            return True
        try:
            return bool(json.loads(content) == OURS)
        except ValueError:
            return False
