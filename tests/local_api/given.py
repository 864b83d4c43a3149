"""A real agent with its local API, as a process of its own; nobody else is there: Cloudly does not answer."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from interfaces.local import SOCKET_FILE, TOKEN_FILE
from interfaces.world import RealWorld

WITHIN_S = 30.0


@dataclass
class Device:
    """Its directory is short: a socket's path may have 107 bytes."""

    more: dict[str, str] = field(default_factory=dict)
    """Settings of the agent, besides those that it needs."""
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="local-api-")))
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        (self.root / "data").mkdir()
        self.root.chmod(0o755)

    @property
    def place(self) -> Path:
        return self.root / "api"

    @property
    def socket(self) -> Path:
        return self.place / SOCKET_FILE

    @property
    def token(self) -> str:
        return (self.place / TOKEN_FILE).read_text()

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    @property
    def neighbour(self) -> dict[str, str]:
        """The environment of a neighbour app."""
        return {"SERVEZONE_RUNTIME": "baseos", "BASEOS_AGENT_URL": f"unix://{self.socket}"}

    @property
    def settings(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "BASEOS_CLOUDLY_URL": "http://127.0.0.1:9",
            "BASEOS_DATA_DIR": str(self.root / "data"),
            "BASEOS_LOCK_DIR": str(self.root / "locks"),
            "BASEOS_LOCAL_API_DIR": str(self.place),
            "BASEOS_LOG_LEVEL": "DEBUG",
            "SERVEZONE_RUNTIME": "baseos",
            **self.more,
        }

    def start(self) -> None:
        """Returns when it serves, and has forgotten who looked whether it does."""
        self.launch()
        self.until(self.answers)
        pause(0.2)

    def launch(self) -> None:
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "baserunner", "run"],
                env=self.settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def until(self, true: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        world = RealWorld()
        deadline = world.monotonic() + within_s
        while not true():
            assert world.monotonic() < deadline, self.log[-3000:]
            assert self.process is None or self.process.poll() is None, self.log[-3000:]
            pause()

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """SIGTERM."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.root)

    # -- asking it -------------------------------------------------------------------------------

    def client(self, token: str | None = None) -> httpx.Client:
        """With this boot's token, or another one. An empty one: none."""
        given = self.token if token is None else token
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        return httpx.Client(transport=transport, base_url="http://baseos", headers=headers)

    def says(self, sent: bytes) -> bytes:
        """What it answers to these bytes, until it hangs up."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(self.socket))
            said = b""
            try:
                line.sendall(sent)
                while chunk := line.recv(65_536):
                    said += chunk
            except (BrokenPipeError, ConnectionResetError):
                while chunk := _rest(line):
                    said += chunk
            return said


def _rest(line: socket.socket) -> bytes:
    try:
        return line.recv(65_536)
    except ConnectionResetError:
        return b""


def pause(seconds: float = 0.05) -> None:
    """A real process has a clock of its own: it is looked at again and again."""
    signal.sigtimedwait([], seconds)
