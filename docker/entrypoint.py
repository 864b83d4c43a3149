"""The container's first process: make what the agent needs its own, give up root for good, become the agent.

    entrypoint.py PROGRAM [ARGUMENT ...]

Rules:
- The agent never runs as root. When root cannot be given up, nothing is started.
- Healing is best effort: what cannot be mended is said on stderr, and the agent, which starts all the same, reports
  itself degraded. A volume first written by root would otherwise lock the agent out of its own identity.
- Only `<BASEOS_DATA_DIR>/baseos` changes owner with all it holds. In the lock directory only the directory itself
  does: a lock in it belongs to whoever took it.
- uid 1001 and never 65534: the Supervisor deletes update locks of 65534 as its own leftovers.
- Started as another user, for example by `docker exec --user`, it changes no owner and no user.

It uses the standard library only and runs with `python -I`: nothing from the environment or the volume is imported.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys
from pathlib import Path
from typing import NoReturn

AGENT = 1001
"""Both uid and gid. From the first release on: another number would need another healing."""

PR_SET_NO_NEW_PRIVS = 38
"""From linux/prctl.h."""

LOCK_DIR_MODE = 0o1777
"""What the Supervisor itself sets when it takes its first lock there (its lib/lockfile.ts); before that it is 0755."""

LOCAL_API_MODE = 0o750
"""Whoever is not in its group does not even reach the socket."""


def main(argv: list[str]) -> NoReturn:
    if not argv:
        sys.exit("usage: entrypoint.py PROGRAM [ARGUMENT ...]")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the node token
    if os.geteuid() == 0:
        heal(
            home=Path(os.environ.get("BASEOS_DATA_DIR") or "/data") / "baseos",
            lock_dir=Path(os.environ.get("BASEOS_LOCK_DIR") or "/tmp/balena"),  # noqa: S108 - the Supervisor's place
            local_api=local_api(),
        )
        give_up_root()
    forbid_new_privileges()
    try:
        os.execvp(argv[0], argv)
    except OSError as problem:
        sys.exit(f"entrypoint: cannot start {argv[0]}: {problem.strerror}")


def local_api() -> Path | None:
    """Where neighbours reach the agent; None: nowhere."""
    place = os.environ.get("BASEOS_LOCAL_API_DIR", "").strip()
    return Path(place) if place.startswith("/") else None


def heal(*, home: Path, lock_dir: Path, local_api: Path | None = None) -> None:
    """Each part on its own: a read-only volume is no reason to leave the lock directory as it is."""
    parts = [(own_home, home), (own_lock_dir, lock_dir)]
    for mend, place in parts if local_api is None else [*parts, (own_local_api, local_api)]:
        try:
            mend(place)
        except OSError as problem:
            say(f"cannot mend {problem.filename or place}: {problem.strerror}")


def own_home(home: Path) -> None:
    """Make the agent's folder if its volume is there, and give it and all it holds to the agent.

    A missing volume stays missing: a folder made in its place would be lost with the container.
    """
    if not home.parent.is_dir():
        say(f"{home.parent} is missing: is a volume mounted there?")
        return
    home.mkdir(mode=0o700, exist_ok=True)
    taken = sum(
        take(name, within)
        for _, folders, files, within in os.fwalk(home, onerror=_raise)
        for name in (".", *folders, *files)
    )
    if taken:
        say(f"gave {taken} files and folders in {home} to uid {AGENT}")


def take(name: str, within: int) -> bool:
    """Give one entry of an open folder to the agent, never what a link points at. True if it had another owner."""
    found = os.stat(name, dir_fd=within, follow_symlinks=False)
    if (found.st_uid, found.st_gid) == (AGENT, AGENT):
        return False
    os.chown(name, AGENT, AGENT, dir_fd=within, follow_symlinks=False)
    return True


def own_lock_dir(lock_dir: Path) -> None:
    """Let the agent create and delete its update lock. Without a Supervisor there is no such folder."""
    if not lock_dir.is_dir() or lock_dir.is_symlink():
        return
    found = lock_dir.stat()
    if found.st_uid != AGENT:
        os.chown(lock_dir, AGENT, -1)
    if stat.S_IMODE(found.st_mode) != LOCK_DIR_MODE:
        lock_dir.chmod(LOCK_DIR_MODE)


def own_local_api(place: Path) -> None:
    """The agent's own, and of the group of neighbours where there is one: the agent is not in it, so root gives it."""
    if place.is_symlink() or not place.is_dir():
        say(f"{place} is missing: is a volume mounted there (BASEOS_LOCAL_API_DIR)?")
        return
    chosen = os.environ.get("BASEOS_LOCAL_API_GROUP", "").strip()
    group = int(chosen) if chosen.isdecimal() and len(chosen) < 10 else AGENT
    found = place.stat()
    if (found.st_uid, found.st_gid) != (AGENT, group):
        os.chown(place, AGENT, group)
    for entry in place.iterdir():
        os.chown(entry, AGENT, group, follow_symlinks=False)
    mode = LOCAL_API_MODE if group == AGENT else LOCAL_API_MODE | stat.S_ISGID
    if stat.S_IMODE(found.st_mode) != mode:
        place.chmod(mode)


def give_up_root() -> None:
    """Groups first, user last: after the user is gone the rest would be refused. Capabilities go with the user."""
    try:
        os.setgroups([])
        os.setresgid(AGENT, AGENT, AGENT)
        os.setresuid(AGENT, AGENT, AGENT)
    except OSError as problem:
        sys.exit(
            f"entrypoint: cannot become uid {AGENT}: {problem.strerror}; "
            "the container needs cap_add: [SETUID, SETGID]"
        )


def forbid_new_privileges() -> None:
    """No program that starts from here can gain anything, by set-uid bit or file capability."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit(f"entrypoint: prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")


def say(what: str) -> None:
    print(f"entrypoint: {what}", file=sys.stderr, flush=True)


def _raise(problem: OSError) -> NoReturn:
    raise problem


if __name__ == "__main__":
    main(sys.argv[1:])
