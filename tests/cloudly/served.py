"""Real `cloudly serve` processes for stories that kill, freeze and end them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx

from interfaces.world import RealWorld


class Served:
    """One server as a process, on a free port. `planted`: Python that it runs before it begins."""

    def __init__(self, directory: Path, url: str, planted: str = "") -> None:
        self._env = {
            "PATH": os.environ["PATH"],
            "CLOUDLY_DATA_DIR": str(directory),
            "CLOUDLY_DATABASE_URL": url,
        }
        self._planted = planted
        self.start()

    def start(self) -> None:
        program = f"{self._planted}\nfrom cloudly.cli import main\nmain()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "--port", "0"],
            env=self._env, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        errors = self.process.stderr
        assert errors is not None
        self.said: list[str] = []
        """Its log, line by line."""
        for line in errors:
            self.said.append(line)
            found = re.search(r"running on http://[\d.]+:(\d+)", line)
            if found:
                self.port = int(found[1])
                self.reader = threading.Thread(target=self._read_on, daemon=True)
                self.reader.start()
                return
        raise AssertionError(f"the server did not start: {''.join(self.said)}")

    def _read_on(self) -> None:
        """So that the server never waits for us to read."""
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            self.said.extend(errors)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @property
    def is_frozen(self) -> bool:
        """Stopped by SIGSTOP, its own or another's."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        code = self.process.wait(timeout=20)
        self.reader.join(timeout=20)
        return code


@dataclass
class Wire:
    """What a device needs of a control plane: a way there, and a clock."""

    client: httpx.AsyncClient
    world: RealWorld
