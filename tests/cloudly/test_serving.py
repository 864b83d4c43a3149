"""`cloudly serve` as a real process: it starts, it is killed, it stops, and nothing that was acked is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from interfaces.world import RealWorld, new_secret
from journal.chain import genesis, link
from tests.cloudly.given import NODE, bearer, report

pytestmark = pytest.mark.slow


T = TypeVar("T")


def until(ask: Callable[[], T], is_it: Callable[[T], bool]) -> T:
    """The first answer that is so; a server takes a moment to hear a signal."""
    for _ in range(200):
        answer = ask()
        if is_it(answer):
            return answer
    raise AssertionError(f"still {answer}")


class Served:
    """A server on a free port, and one device that talks to it."""

    def __init__(
        self, directory: Path, planted: str = "", *, env: dict[str, str] | None = None
    ) -> None:
        self._planted = planted
        self._env = {"PATH": os.environ["PATH"], "CLOUDLY_DATA_DIR": str(directory)} | (env or {})
        self.secret = new_secret(RealWorld())
        self.prev = genesis("e1", "core")
        self.acked = 0
        self.start()

    def start(self) -> None:
        program = f"{self._planted}\nfrom cloudly.cli import main\nmain()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "--port", "0"],
            env=self._env, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"running on (http://[\d.:]+)", line)
            if found:
                self.first_line = line
                self.client = httpx.Client(base_url=found[1], timeout=20)
                return
        raise AssertionError("the server did not start")

    def cli(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env=self._env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def enroll(self) -> None:
        self.join_token = self.cli("token", "create")
        self.token = self.ask()["node_token"]

    def ask(self) -> Any:
        body = {
            "node_id": "n1",
            "enrollment_secret": self.secret,
            "epoch": "e1",
            "agent_version": "1",
        }
        answer = self.client.post(NODE + "register", json=body, headers=bearer(self.join_token))
        assert answer.status_code == 201, answer.text
        return answer.json()

    def beat(self) -> Any:
        body = {
            "node_id": "n1",
            "epoch": "e1",
            "agent_version": "1",
            "sent_at_ms": 1,
            "reported": report(),
        }
        return self.client.post(NODE + "heartbeat", json=body, headers=bearer(self.token)).json()

    def ship(self) -> None:
        """One more fact; counted only when it was acked."""
        seq = self.acked + 1
        event: dict[str, Any] = {
            "seq": seq, "n": seq, "stream": "app-update/1", "kind": "k", "src": "a", "dst": f"b{seq}",
            "at_ms": 1, "boot_id": "b", "mono_ms": 1, "data": "{}",
        }  # fmt: skip
        hashed = link(self.prev, lane="core", **event)
        batch = {
            "epoch": "e1", "lane": "core", "prev_hash": self.prev.hex(), "oldest": 1,
            "events": [event | {"hash": hashed.hex()}], "head": {"seq": seq, "hash": hashed.hex()},
        }  # fmt: skip
        answer = self.client.post(NODE + "journal", json=batch, headers=bearer(self.token))
        assert answer.status_code == 200, answer.text
        self.acked, self.prev = (
            answer.json()["ack"]["seq"],
            bytes.fromhex(answer.json()["ack"]["hash"]),
        )

    def end(self, how: signal.Signals | None) -> int:
        """Its exit code, after that signal or by itself."""
        if how is not None:
            self.process.send_signal(how)
        code = self.process.wait(timeout=20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.client.close()
        return code


@pytest.fixture
def served(directory: Path) -> Iterator[Served]:
    served = Served(directory)
    yield served
    if served.process.poll() is None:
        served.end(signal.SIGKILL)


def test_what_was_acked_survives_kill_9_again_and_again(served: Served) -> None:
    served.enroll()
    for round_ in range(4):
        for _ in range(10 + round_):
            served.ship()
        acked = served.acked

        assert served.end(signal.SIGKILL) == -signal.SIGKILL
        served.start()

        acks = {ack["lane"]: ack for ack in served.beat()["acks"]}
        assert (acks["core"]["seq"], acks["core"]["hash"]) == (acked, served.prev.hex())
    shown = json.loads(served.cli("node", "show", "n1", "--json"))
    assert [one["dst"] for one in reversed(shown["transitions"])][-1] == f"b{served.acked}"


HASTY = """
from cloudly.store.sqlite import SqliteDatabase
async def commit(self, batch):
    if self._connection.in_transaction and self.decisions % 10 == 9:
        self._connection.execute("COMMIT")
    if not self._connection.in_transaction:
        self._connection.execute("BEGIN IMMEDIATE")
    for pending in batch:
        self._decide(pending)
        self.decisions += 1
"""


def test_and_this_harness_sees_a_server_that_answers_before_it_commits(directory: Path) -> None:
    served = Served(directory)
    served.enroll()
    served.end(signal.SIGTERM)
    served._planted = HASTY + "SqliteDatabase.commit = commit"
    served.start()
    for _ in range(25):
        served.ship()

    served.end(signal.SIGKILL)
    served._planted = ""
    served.start()
    acks = {ack["lane"]: ack for ack in served.beat()["acks"]}
    served.end(signal.SIGKILL)

    assert acks["core"]["seq"] < served.acked == 25


def test_an_enrollment_whose_server_was_killed_goes_on(served: Served) -> None:
    served.enroll()
    served.end(signal.SIGKILL)
    served.start()

    assert served.ask()["node_token"] == served.token
    assert served.beat()["desired"]["generation"] == 0


def test_sigterm_ends_live_pages_saves_presence_and_exits_with_zero(served: Served) -> None:
    served.enroll()
    served.beat()
    served.beat()  # nothing new: in memory only
    with served.client.stream("GET", "/live") as live:
        lines = live.iter_lines()
        assert next(lines) == ": live"
        served.process.send_signal(signal.SIGTERM)
        list(lines)  # the stream ends

    assert served.end(None) == 0
    assert json.loads(served.cli("node", "list", "--json"))[0]["state"] == "online"


def test_sigterm_makes_it_not_ready_first_and_it_goes_on_answering(directory: Path) -> None:
    served = Served(directory, env={"CLOUDLY_DRAIN_S": "30"})
    assert served.client.get("/readyz").json()["ready"]

    served.process.send_signal(signal.SIGTERM)
    body = until(lambda: served.client.get("/readyz").json(), lambda one: not one["ready"])
    served.enroll()  # who did not hear of it yet is served
    beat = served.beat()
    still = served.process.poll()

    assert list(body["problems"]) == ["stopping"]
    assert beat["desired"]["generation"] == 0
    assert still is None
    assert served.end(signal.SIGTERM) == 0  # the second one does not wait


def test_without_a_drain_sigterm_stops_at_once(served: Served) -> None:
    served.enroll()

    assert served.end(signal.SIGTERM) == 0


def test_logs_are_text_for_people_where_that_is_asked_for(directory: Path) -> None:
    served = Served(directory, env={"CLOUDLY_LOG_FORMAT": "text"})

    assert not served.first_line.startswith("{")
    assert served.end(signal.SIGTERM) == 0


def test_a_second_server_on_one_directory_names_the_first(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloudly", "serve", "--port", "0"],
        env=served._env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert f"process {served.process.pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_operator_works_beside_the_running_server(served: Served) -> None:
    served.enroll()
    served.beat()
    served.cli(
        "release", "set", "n1", "1.0.0", "--release", "c1", "--image", "main=x@sha256:" + "0" * 64
    )

    assert served.beat()["desired"]["app"]["version"] == "1.0.0"


def test_a_taken_port_is_an_error_not_a_hang(served: Served, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", "serve", "--port", str(taken.getsockname()[1])],
            env=served._env | {"CLOUDLY_DATA_DIR": str(tmp_path / "other")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert done.returncode != 0
    assert "address already in use" in done.stderr
