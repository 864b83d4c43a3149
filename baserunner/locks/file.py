"""The update lock as a file: what keeps the Supervisor from applying before the journal says so.

Rules:
- `updates.lock` in the agent's own lock directory is there whenever the Supervisor must not act (`take`, `release`).
- While a neighbour holds a lease (`hold`, `let_go`) there is also `resin-updates.lock`, the other name that it looks
  for, and this process holds a flock on both, for whoever on the host asks that way.
- The Supervisor looks at existence; it ignores and deletes a lock owned by uid 65534. The directory is a tmpfs: files
  survive a crash of the agent and go with a reboot of the host; a flock goes with the process.
- A lock that someone else put there, under either name, is respected: neither changed nor deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from pathlib import Path

from baserunner.problems import LockProblem

FILE, SECOND = "updates.lock", "resin-updates.lock"
TEMPORARY = "baserunner-lock.new"
"""No name that the Supervisor takes for a lock."""
OURS = {
    "owner": "baserunner",
    "reason": "an update is applied only when baserunner's journal says so",
}


class UpdateLock:
    """One for each process: what it holds a flock on is its own."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._second = directory / SECOND
        self._flocks: dict[Path, int] = {}

    # -- the agent's own -------------------------------------------------------------------------

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
        """Let go of ours, under both names. A lock of someone else stays. Raises LockProblem."""
        self.let_go()
        if self.is_ours():
            _remove(self._path)

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
        content = _content(self._path)
        return content is not None and (not content or _is_ours(content))

    # -- for leases ------------------------------------------------------------------------------

    def hold(self) -> None:
        """Be there under both names, with a flock on each that is ours. Idempotent. Raises LockProblem."""
        self.take()
        self._take_second()
        for path in (self._path, self._second):
            self._take_flock(path)

    def let_go(self) -> None:
        """The second name and the flocks go; `updates.lock` stays for the agent to decide on. Raises LockProblem."""
        if _is_ours(_content(self._second)):
            _remove(self._second)
        self.close()

    def close(self) -> None:
        """Let go of the flocks, as the end of the process does; the files stay."""
        while self._flocks:
            _, descriptor = self._flocks.popitem()
            os.close(descriptor)

    def _take_second(self) -> None:
        """Never there without its content: an empty file of this name is somebody else's."""
        if os.path.lexists(self._second):
            return
        temporary = self._path.with_name(TEMPORARY)
        try:
            temporary.unlink(missing_ok=True)
            temporary.write_text(json.dumps(OURS), encoding="utf-8")
            os.link(temporary, self._second)
        except FileExistsError:
            pass
        except OSError as error:
            raise LockProblem(
                f"cannot take the update lock {self._second}: {error.strerror}; the container's "
                "entrypoint must own that directory"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _take_flock(self, path: Path) -> None:
        held = self._flocks.get(path)
        if held is not None:
            if _is_same(held, path):
                return
            os.close(self._flocks.pop(path))  # somebody deleted the file: another one stands there
        if not _is_ours(_content(path)):
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise LockProblem(f"cannot open the update lock {path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            why = (
                "another process holds it; it may be about to change what runs here"
                if error.errno == errno.EWOULDBLOCK
                else error.strerror
            )
            raise LockProblem(f"cannot take the flock on {path}: {why}") from None
        self._flocks[path] = descriptor


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _content(path: Path) -> bytes | None:
    """None: it is not there, is no file (a pipe would hold us up), or cannot be read."""
    try:
        return path.read_bytes()[:1000] if stat.S_ISREG(path.lstat().st_mode) else None
    except OSError:
        return None


def _is_ours(content: bytes | None) -> bool:
    if not content:
        return False
    try:
        return bool(json.loads(content) == OURS)
    except ValueError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LockProblem(f"cannot release the update lock {path}: {error.strerror}") from None
