"""The processes of the demo: started, killed, started again, ended; each with a log file of its own."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from interfaces.world import RealWorld, new_id

PAGE_PORT = 8480
PORT_TRIES = 3
LOCK = "demo.lock"
SHELL = "env.sh"
ROOMS = ("data", "cloudly", "supervisor", "locks", "local-api", "secrets", "logs")
END_OF_LOG = 5
STOP_WITHIN_S = 10.0
UP_WITHIN_S = 30.0


class StageFailure(Exception):
    """A process did not do what the story needs."""


@dataclass
class Stage:
    """One directory, three processes, and the secrets between them (in files and environments, never in arguments).

    Raises StageFailure for a directory that another demo is in, or that holds what no demo made: it is emptied.
    """

    directory: Path
    speed: float
    log_level: str = "INFO"
    local_api: bool = False
    """Whether the agent serves neighbours."""
    heartbeat_every_s: float = 2.0
    world: RealWorld = field(default_factory=RealWorld)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._lock = _emptied(self.directory)
        except OSError as error:
            raise StageFailure(f"cannot use {self.directory}: {error.strerror}") from None
        for name in ROOMS:
            (self.directory / name).mkdir(mode=0o700)
        self.page_port = PAGE_PORT
        self._held = [_held_port() for _ in range(2)]
        self.supervisor_port, self.control_port = (held.getsockname()[1] for held in self._held)
        self.uuid = new_id(self.world)
        self.supervisor_key = new_id(self.world)

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.page_port}"

    @property
    def told(self) -> list[dict[str, object]]:
        """What the Supervisor was told so far."""
        answer = httpx.get(f"http://127.0.0.1:{self.control_port}/told", timeout=5, trust_env=False)
        found: list[dict[str, object]] = answer.raise_for_status().json()
        return found

    async def start_cloudly(self) -> None:
        environment = {
            "CLOUDLY_DATA_DIR": str(self.directory / "cloudly"),
            "CLOUDLY_HEARTBEAT_EVERY_S": f"{self.heartbeat_every_s:g}",
            "CLOUDLY_LOG_LEVEL": self.log_level,
        }
        for left in reversed(range(PORT_TRIES)):
            self.page_port = _free_port(PAGE_PORT)
            self._start("cloudly", ["cloudly", "serve", "--port", str(self.page_port)], environment)
            try:
                # By its own word: another demo's Cloudly may answer at this very port.
                return await self._up("cloudly", f"{self.page}/healthz", f"on {self.page}")
            except StageFailure as failure:
                if "address already in use" not in str(failure) or not left:
                    raise  # otherwise another program was faster: there are other ports
        raise AssertionError  # the last try returns or raises

    async def start_supervisor(self, join_token: str) -> None:
        token_file = self.directory / "secrets" / "join-token"
        _write_secret(token_file, join_token)
        arguments = {
            "--port": self.supervisor_port,
            "--control-port": self.control_port,
            "--lock-dir": self.directory / "locks",
            "--state-dir": self.directory / "supervisor",
            "--cloudly-url": self.page,
            "--join-token-file": token_file,
            "--uuid": self.uuid,
            "--speed": self.speed,
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        self._start(
            "supervisor",
            ["simulators.supervisor", "--plain-logs", *words],
            {"SIMULATED_SUPERVISOR_API_KEY": self.supervisor_key},
        )
        await self._up("supervisor", f"http://127.0.0.1:{self.supervisor_port}/ping")

    def start_agent(self, join_token: str) -> int:
        """Start `baserunner run`; returns its pid."""
        environment = {**self.agent_environment, "BASEOS_JOIN_TOKEN": join_token}
        return self._start("baserunner", ["baserunner", "run"], environment)

    @property
    def agent_environment(self) -> dict[str, str]:
        """What the agent and its CLI need, without the join token."""
        local_api = {"BASEOS_LOCAL_API_DIR": str(self.directory / "local-api")}
        return {
            **(local_api if self.local_api else {}),
            "BASEOS_CLOUDLY_URL": self.page,
            "BASEOS_DATA_DIR": str(self.directory / "data"),
            "BASEOS_LOCK_DIR": str(self.directory / "locks"),
            "BASEOS_LOG_LEVEL": self.log_level,
            "BASEOS_SUPERVISOR_POLL_S": "0.3",
            "BALENA_SUPERVISOR_ADDRESS": f"http://127.0.0.1:{self.supervisor_port}",
            "BALENA_SUPERVISOR_API_KEY": self.supervisor_key,
            "BALENA_DEVICE_UUID": self.uuid,
            "SERVEZONE_RUNTIME": "baseos",
        }

    @property
    def shell(self) -> Path:
        return self.directory / SHELL

    def write_shell(self) -> None:
        """A file to source: the environment of the device's container and of Cloudly's, and both commands in PATH."""
        values = {**self.agent_environment, "CLOUDLY_DATA_DIR": str(self.directory / "cloudly")}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        _write_secret(self.shell, "\n".join(lines) + "\n")

    def kill_agent(self) -> int:
        """SIGKILL: no warning, no clean-up. Returns the pid that died."""
        agent = self.running.pop("baserunner")
        agent.send_signal(signal.SIGKILL)
        if agent.wait() != -signal.SIGKILL:
            raise StageFailure(f"baserunner ended by itself ({agent.returncode}) before the kill")
        return agent.pid

    def ask(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """Run one command of ours to its end; returns what it printed. Raises StageFailure."""
        done = subprocess.run(  # noqa: S603 - our own programs
            [sys.executable, "-m", *words],
            env={
                **_bare(),
                "CLOUDLY_DATA_DIR": str(self.directory / "cloudly"),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise StageFailure(
                f"`{' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def check_alive(self) -> None:
        """Raises StageFailure, with the end of its log, when a process has died."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise StageFailure(
                    f"{name} ended with {process.returncode}: {self._end_of_log(name)}"
                )

    def end(self) -> None:
        """SIGTERM to all, SIGKILL to what does not hear."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()
        for held in self._held:
            held.close()
        os.close(self._lock)

    def _start(self, name: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
        with (self.directory / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own programs
                [sys.executable, "-m", *words],
                env={**_bare(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is the demo's, which then ends them in order
            )
        self.running[name] = process
        return process.pid

    async def _up(self, name: str, url: str, word: str = "") -> None:
        """It has said this word, and answers there. Raises StageFailure."""
        deadline = self.world.monotonic() + UP_WITHIN_S
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while self.world.monotonic() < deadline:
                self.check_alive()
                try:
                    if word in self._log(name) and (await client.get(url)).is_success:
                        return
                except httpx.HTTPError:
                    pass
                await self.world.sleep(0.1)
        raise StageFailure(f"{name} did not come up: {self._end_of_log(name)}")

    def _log(self, name: str) -> str:
        path = self.directory / "logs" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace")

    def _end_of_log(self, name: str) -> str:
        return "\n".join(self._log(name).splitlines()[-END_OF_LOG:])


def _bare() -> dict[str, str]:
    """The environment without settings of ours that happen to be set in this shell."""
    ours = ("BASEOS_", "BALENA_", "CLOUDLY_", "SERVEZONE_", "SIMULATED_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _emptied(directory: Path) -> int:
    """Ours alone until this process ends, and empty. Returns the lock. Raises StageFailure, OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    strange = sorted({path.name for path in directory.iterdir()} - {*ROOMS, LOCK, SHELL})
    if strange:
        raise StageFailure(
            f"{directory} would be emptied, and no demo made {strange[0]} in it: name a new --directory"
        )
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StageFailure(
            f"another demo is up in {directory}: end it, or name another --directory"
        ) from None
    for name in ROOMS:
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / SHELL).unlink(missing_ok=True)
    return lock


def _held_port() -> socket.socket:
    """A port that is given to nobody else, and that a server which is named it can take: this socket never listens."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
    held.bind(("127.0.0.1", 0))
    return held


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StageFailure("no free port on loopback")


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret)
