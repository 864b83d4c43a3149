"""The simulator as a process of its own, over real sockets, and its control port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from baserunner.neighbours.bounded import Tail
from baserunner.neighbours.supervisor import UNIT, HttpSupervisor
from interfaces.world import RealWorld
from tests.simulators.lab import UUID, target

KEY = "canary0123456789abcdefcanary0123"
pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    child: subprocess.Popen[bytes]
    api: str
    control: str
    log: Path

    def get(self, path: str) -> Any:
        return self.ask("GET", path).json()

    def ask(self, method: str, path: str, **parts: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.request(method, self.api + path, headers=headers, trust_env=False, **parts)

    def until(self, true: Callable[[], bool], within_s: float = 20.0) -> None:
        async def wait() -> None:
            world = RealWorld()
            with anyio.fail_after(within_s):
                while not true():
                    await world.sleep(0.02)

        anyio.run(wait)

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/ping").text == "OK"
        except httpx.TransportError:
            return False


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """An unmanaged Supervisor, twenty times as fast as the recorded one."""
    api, control, log = _free_port(), _free_port(), tmp_path / "log"
    words = ["--port", api, "--control-port", control, "--uuid", UUID, "--speed", 20]
    words += ["--lock-dir", tmp_path / "locks", "--state-dir", tmp_path / "state"]
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "simulators.supervisor", *map(str, words)],
            env={**os.environ, "SIMULATED_SUPERVISOR_API_KEY": KEY},
            stdout=out,
            stderr=out,
        )
    running = Process(child, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{control}", log)
    running.until(running.answers)
    yield running
    if child.poll() is None:
        child.kill()
    child.wait()


def test_it_applies_a_target_and_its_control_port_tells_what_it_was_told(process: Process) -> None:
    process.ask("POST", "/v2/local/target-state", json={"local": target(1)[UUID]})
    process.until(lambda: process.get("/v2/state/status").get("release") is not None)

    process.ask("POST", "/v1/update", json={"cancel": True}, params={"apikey": KEY})

    told = httpx.get(process.control + "/told", trust_env=False).json()
    assert [(it["what"], it["body"]) for it in told] == [("update", {"cancel": True})]
    behaviour = {"service": "main", "behaviour": "crash-after-start"}
    stirred = httpx.post(process.control + "/behaviour", json=behaviour, trust_env=False)
    assert stirred.status_code == 204
    containers = "/v2/state/status"
    process.until(lambda: process.get(containers)["containers"][0]["status"] == "exited")


def test_a_reboot_closes_the_port_and_opens_it_again(process: Process) -> None:
    answer = process.ask("POST", "/v1/reboot")

    assert answer.status_code == 202
    process.until(lambda: not process.answers())
    process.until(process.answers)
    state = httpx.get(process.control + "/state", trust_env=False).json()
    assert state["boots"] == 2


def test_nonsense_on_the_control_port_is_refused(process: Process) -> None:
    for body in ({"service": "main", "behaviour": "dances"}, {}):
        answer = httpx.post(process.control + "/behaviour", json=body, trust_env=False)
        assert answer.status_code == 400


def test_the_journal_of_the_host_is_piped_and_the_agent_leaves_one_that_never_ends(
    process: Process,
) -> None:
    process.ask("POST", "/v2/local/target-state", json={"local": target(1)[UUID]})
    process.until(lambda: process.get("/v2/state/status").get("release") is not None)

    def newest() -> httpx.Response:
        return process.ask("POST", "/v2/journal-logs", json={"unit": UNIT, "count": 3})

    process.until(lambda: newest().text.endswith("[success] Device state apply success\n"))
    answer = newest()

    assert "content-type" not in answer.headers
    assert len(answer.text.splitlines()) == 3
    of_nobody = process.ask("POST", "/v2/journal-logs", json={"unit": "none.service"})
    assert of_nobody.text == "-- No entries --\n"
    stirred = httpx.post(process.control + "/journal", json={"manner": "endless"}, trust_env=False)
    assert stirred.status_code == 204
    tail = anyio.run(_host_journal, process.api)
    assert tail.cut == "it went on for more than 4 s"
    assert len(tail.lines) + tail.dropped > 10


async def _host_journal(address: str) -> Tail:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await HttpSupervisor(client, address, SecretStr(KEY)).host_journal(count=10)


def test_it_stops_on_sigterm_and_its_log_has_no_secret(process: Process) -> None:
    process.ask("GET", "/v1/device", params={"apikey": KEY})

    process.child.send_signal(signal.SIGTERM)

    assert process.child.wait(timeout=10) == 0
    log = process.log.read_text()
    assert UUID in log
    assert KEY not in log
