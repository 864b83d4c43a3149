"""A PostgreSQL server for tests: Debian's package, started by whoever needs it, its files in memory.

It runs as `postgres` where the tests run as root, because the server refuses to. Everything durable is on (`fsync`):
in memory it costs nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cloudly.store.pg.opening import open_postgresql

PROGRAMS = "/usr/lib/postgresql"
MEMORY = "/dev/shm"  # noqa: S108 - a directory of our own in it
DISK = "/var/tmp"  # noqa: S108 - the same; where TMPDIR is may be in memory, too
TEMPLATE = "empty"
OPTIONS = (
    "-c listen_addresses='' -c max_connections=200 -c shared_buffers=64MB -c logging_collector=off"
)


@dataclass
class Server:
    home: Path
    programs: Path
    numbers: Iterator[int] = field(default_factory=count)

    @classmethod
    @contextmanager
    def running(cls, *, on_disk: bool = False) -> Iterator[Server]:
        """Until the end of the block; skips the test where PostgreSQL is not installed, fails it in CI."""
        programs = _programs()
        in_memory = not on_disk and os.access(MEMORY, os.W_OK)
        room = MEMORY if in_memory else DISK
        home = Path(tempfile.mkdtemp(prefix="baseos-pg-", dir=room))
        server = cls(home, programs)
        try:
            if _owner() is not None:
                shutil.chown(home, *_owner_names())
            server.run(
                "initdb", "-D", server.data, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"
            )
            server.start()
            server.sql(f"CREATE DATABASE {TEMPLATE}")
            open_postgresql(server.url(TEMPLATE)).close()
            yield server
        finally:
            server.stop()
            shutil.rmtree(home, ignore_errors=True)

    @property
    def data(self) -> str:
        return str(self.home / "data")

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.home}"

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """The URL of a new database, gone at the end of the block."""
        name = f"story{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def sql(self, sentence: str, database: str = "postgres") -> str:
        done = self.run(
            "psql",
            "-h",
            str(self.home),
            "-d",
            database,
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sentence,
        )
        return done.stdout.strip()

    def start(self) -> None:
        options = f"{OPTIONS} -c unix_socket_directories={self.home}"
        self.run(
            "pg_ctl",
            "-D",
            self.data,
            "-o",
            options,
            "-l",
            str(self.home / "log"),
            "-w",
            "-t",
            "60",
            "start",
        )

    def stop(self) -> None:
        if (self.home / "data" / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def kill(self) -> None:
        """Like a power cut for it: SIGKILL to all of its processes."""
        postmaster = int((self.home / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (postmaster, *map(int, children)):
            os.kill(process, signal.SIGKILL)
        _wait_until_gone(postmaster)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        owner = _owner()
        given: dict[str, Any] = (
            {}
            if owner is None
            else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        )
        # pg_ctl hands its stdout to the server it starts: a pipe would never end.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/", check=False, timeout=90,
                **given,
            )  # fmt: skip
            out.seek(0)
            said = out.read()
        assert done.returncode == 0, f"{program}: {said}"
        return subprocess.CompletedProcess(done.args, 0, said, "")


def _programs() -> Path:
    found = sorted(Path(PROGRAMS).glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    words = "PostgreSQL is not installed (apt install postgresql): nothing of it was tried"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _owner_names() -> tuple[str, str]:
    return "postgres", "postgres"


def _wait_until_gone(process: int) -> None:
    """Its parent is not us, so it cannot be waited for; it is gone when nobody answers to its number."""
    for _ in range(1000):
        try:
            os.kill(process, 0)
            os.sched_yield()
            subprocess.run(["sleep", "0.01"], check=True)
        except ProcessLookupError:
            return
    raise AssertionError(f"process {process} lives")
