"""The directory shared with a neighbour: the lock that says who serves, the capability token, the socket.

Rules:
- The directory is ours, 0750; the socket is 0660; the token is 0600. With a group chosen, the directory hands its
  group on to what is made in it, and the group may read the token too.
- One agent serves at a time: flock first, and only then is a stale socket taken away. A killed agent leaves one, and
  `bind` would be refused for ever (measured, the reliability note).
- The token is made anew for each boot of the host. A restart of the agent within a boot keeps it.
- What is not as it should be is never repaired by trusting it: a link, another owner, a token that others could
  read is refused or replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from baserunner.problems import LocalApiProblem
from baserunner.settings import LocalApi
from interfaces.local import SOCKET_FILE, TOKEN_FILE
from interfaces.world import World, new_secret

LOCK_FILE, BOOT_FILE = "lock", "boot-id"
MOST_PATH_BYTES = 107
"""What fits into sockaddr_un, with its end. Source: unix(7)."""
BACKLOG = 64
"""Who waits to be taken in, as many as are taken in at once (limits.py); more are told at once that nobody is free."""
TOKEN = re.compile(rb"bct_[A-Za-z0-9_-]{43}")


@dataclass
class Door:
    """What is open, until `close`."""

    listeners: tuple[socket.socket, ...]
    token: SecretStr
    _path: Path
    _inode: int
    _held: list[int] = field(default_factory=list)

    @property
    def is_there(self) -> bool:
        """Whether a neighbour can still find it: a volume can be made anew under a running agent."""
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        if self.is_there:
            with contextlib.suppress(OSError):
                self._path.unlink()
        for listener in self.listeners:
            listener.close()
        while self._held:
            os.close(self._held.pop())


def open_door(chosen: LocalApi, world: World) -> Door:
    """Listen. Raises LocalApiProblem, with nothing left open."""
    with contextlib.ExitStack() as undo:
        try:
            _own(chosen)
            held = _lock(chosen.directory)
            undo.callback(os.close, held)
            token = _token(chosen, world)
            path = chosen.directory / SOCKET_FILE
            near = undo.enter_context(_listen_at(path))
            listeners = [near]
            if chosen.port is not None:
                listeners.append(undo.enter_context(_listen_on(chosen.port)))
            door = Door(tuple(listeners), token, path, path.lstat().st_ino, [held])
        except OSError as error:
            where = error.filename or chosen.directory
            raise LocalApiProblem(
                f"the local API cannot be served in {chosen.directory}: {where}: {error.strerror}"
            ) from None
        undo.pop_all()
    return door


def _own(chosen: LocalApi) -> None:
    place, mode = chosen.directory, 0o750
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=mode)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalApiProblem(
            f"the local API cannot be served in {place}: it must be a directory of uid {os.geteuid()}, "
            f"and is {_kind(found.st_mode)} of uid {found.st_uid}; the container's entrypoint makes it so"
        )
    if chosen.group is not None:
        _give_to(place, chosen.group, found.st_gid)
        mode |= stat.S_ISGID
    if stat.S_IMODE(found.st_mode) == mode:
        return
    place.chmod(mode)
    if (
        stat.S_IMODE(place.lstat().st_mode) != mode
    ):  # who is not in the group cannot hand it on: chmod(2)
        raise LocalApiProblem(
            f"{place} cannot hand its group on to what is made in it (BASEOS_LOCAL_API_GROUP): "
            f"the container's entrypoint does that as root; elsewhere make it with mode {mode:o}"
        )


def _give_to(place: Path, group: int, has: int) -> None:
    if has == group:
        return
    try:
        os.chown(place, -1, group)
    except PermissionError:
        raise LocalApiProblem(
            f"{place} has group {has} and cannot be given to {group} (BASEOS_LOCAL_API_GROUP): "
            "the container's entrypoint does that as root; elsewhere make the directory so"
        ) from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a link" if stat.S_ISLNK(mode) else "a file"


def _lock(directory: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    held = os.open(directory / LOCK_FILE, flags, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise LocalApiProblem(
            f"the local API cannot be served in {directory}: another agent serves it there"
        ) from None
    return held


def _token(chosen: LocalApi, world: World) -> SecretStr:
    """This boot's: the one that is there, or a new one. It is written before the boot id that makes it count."""
    mode = 0o600 if chosen.group is None else 0o640
    path, boot = chosen.directory / TOKEN_FILE, chosen.directory / BOOT_FILE
    kept = _read(path, mode)
    if _read(boot, 0o600) == world.boot_id().encode() and TOKEN.fullmatch(kept):
        return SecretStr(kept.decode())
    made = SecretStr("bct_" + new_secret(world))
    boot.unlink(missing_ok=True)
    _write(path, made.get_secret_value().encode(), mode)
    _write(boot, world.boot_id().encode(), 0o600)
    return made


def _read(path: Path, mode: int) -> bytes:
    """Empty if it is not there, or not ours alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        ours = found.st_uid == os.geteuid() and stat.S_ISREG(found.st_mode)
        return file.read(200) if ours and stat.S_IMODE(found.st_mode) == mode else b""


def _write(path: Path, content: bytes, mode: int) -> None:
    """In one piece: who reads it sees all of it. It need not survive a power cut, which is another boot."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
    new.replace(path)


def _listen_at(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MOST_PATH_BYTES:
        raise LocalApiProblem(
            f"{path} is too long for a socket ({MOST_PATH_BYTES} bytes): set BASEOS_LOCAL_API_DIR to a shorter one"
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _listen_on(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise LocalApiProblem(
            f"the local API cannot listen on 127.0.0.1:{port} (BASEOS_LOCAL_API_PORT): {error.strerror}"
        ) from None
    listener.setblocking(False)
    return listener
