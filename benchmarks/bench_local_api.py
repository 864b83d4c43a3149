"""What a hostile neighbour costs the agent: a real process, flooded over its real socket while it heartbeats.

usage: bench_local_api.py [SECONDS]     floods it for so long in each way (default 8); prints Markdown

Heartbeats are read from the agent's own log, one every half second. A gap is the time between two of them; what is told
is the longest one. The attackers run beside the agent on the same cores, as on a device, and as a uid of their own; a
neighbour of another uid asks for the status all the while. Takes root, for the uids.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import anyio

from benchmarks.bench_agent import cpu_s
from benchmarks.yard import Row, table, title
from interfaces.local import RuntimeStatus
from onebox.line import Call, Line, read_address
from onebox.problems import OneboxProblem
from simulators.demo.stage import Stage

BEAT_S = 0.5
MOST_GAP_S = BEAT_S * 1.1 + 0.3
"""Its jitter, and a third of a second for the way there and back on a busy machine."""
RATE, THREADS = 1000, 100
"""Requests a second, of all threads together."""
ATTACKER, STRANGER = 4321, 4322
TEN_MB = b"x" * (10 * 1024 * 1024)
STATUS = Call("GET", "/v1/status", RuntimeStatus)


@dataclass(frozen=True, slots=True)
class Told:
    """What one kind of attack did."""

    beats: list[float]
    cpu: float
    """Share of a core."""
    seen: Counter[str]
    """What the attackers were answered."""
    served: int
    unserved: int
    """How often the neighbour was."""

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.beats)]


class Yard:
    """An enrolled agent, and what is done to it."""

    def __init__(self, directory: Path) -> None:
        self.stage = Stage(directory / "s", speed=1, local_api=True, heartbeat_every_s=BEAT_S)
        self.place = self.stage.directory / "local-api"

    async def begin(self) -> None:
        stage = self.stage
        await stage.start_cloudly()
        made = json.loads(stage.ask(["cloudly", "token", "create", "--json"]))
        await stage.start_supervisor(made["token"])
        stage._start(
            "baserunner",
            ["baserunner", "run"],
            {
                **stage.agent_environment,
                "BASEOS_JOIN_TOKEN": made["token"],
                "BASEOS_HEARTBEAT_MIN_S": "0.1",
                "BASEOS_LOCAL_API_GROUP": str(ATTACKER),
                "BASEOS_LOCAL_API_UIDS": f"0,{ATTACKER}",
            },
        )
        while len(self.beats()) < 3:
            stage.check_alive()
            await stage.world.sleep(0.1)
        for folder in (self.place, *self.place.parents[:2]):
            folder.chmod(
                folder.stat().st_mode | 0o011
            )  # the attackers must come as far as the socket
        (self.place / "agent.sock").chmod(0o666)

    def beats(self) -> list[float]:
        log = (self.stage.directory / "logs/baserunner.log").read_text()
        sent = (line.split()[0] for line in log.splitlines() if " heartbeat-sent: " in line)
        return [datetime.fromisoformat(at).timestamp() for at in sent]

    def under(self, attack: Callable[[], str] | None, uid: int, seconds: float) -> Told:
        pid = self.stage.running["baserunner"].pid
        began, spent = time.time(), cpu_s(pid)
        attackers = None if attack is None else Attackers(attack, uid, seconds)
        served, unserved = self._be_a_neighbour(seconds)
        seen = Counter[str]() if attackers is None else attackers.end()
        took = time.time() - began
        beats = [at for at in self.beats() if at >= began - BEAT_S]
        return Told(beats, (cpu_s(pid) - spent) / took, seen, served, unserved)

    def _be_a_neighbour(self, seconds: float) -> tuple[int, int]:
        line = Line(read_address(f"unix://{self.place / 'agent.sock'}", None))
        served = unserved = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                line.ask(STATUS)
                served += 1
            except OneboxProblem:
                unserved += 1
            time.sleep(0.25)
        line.close()
        return served, unserved

    # -- the attacks: each one request, told by what came of it ----------------------------------

    def asks(self, authorization: str = "") -> Callable[[], str]:
        request = f"GET /v1/status HTTP/1.1\r\nhost: baseos\r\n{authorization}\r\n".encode()
        return lambda: _answer(self.place, request)

    def posts_ten_megabytes(self) -> Callable[[], str]:
        """Made once: copying them would keep both cores busy, whoever is asked."""
        head = "POST /v1/locks HTTP/1.1\r\nhost: baseos\r\ncontent-length: 10485760\r\n"
        token = (self.place / "token").read_text()
        kind = "content-type: application/json\r\n"
        request = f"{head}{kind}authorization: Bearer {token}\r\n\r\n".encode() + TEN_MB
        return lambda: _answer(self.place, request)

    def begins_and_waits(self) -> str:
        return _answer(self.place, b"GET /v1/sta", hold_s=1.0)


def _answer(place: Path, request: bytes, hold_s: float = 0.0) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.setblocking(False)
        try:
            line.connect(str(place / "agent.sock"))
        except BlockingIOError:
            return "left waiting by the kernel"
        line.settimeout(1.0)
        try:
            line.sendall(request)
            time.sleep(hold_s)
            said = line.recv(4096)
        except TimeoutError:
            return "no answer in 1 s"
        except OSError:
            try:
                said = line.recv(4096)
            except OSError:
                return "hung up"
    return said.split(b" ", 2)[1].decode() if said else "hung up"


class Attackers:
    """A process of its own, with many threads."""

    def __init__(self, attack: Callable[[], str], uid: int, seconds: float) -> None:
        self._told, tell = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(tell)
            return
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(tell, json.dumps(self._attack(attack, seconds)).encode())
        finally:
            os._exit(0)

    def end(self) -> Counter[str]:
        with os.fdopen(self._told) as told:
            seen = json.loads(told.read())
        os.waitpid(self._pid, 0)
        return Counter(seen)

    def _attack(self, attack: Callable[[], str], seconds: float) -> Counter[str]:
        seen: Counter[str] = Counter()
        until = time.monotonic() + seconds

        def go_on() -> None:
            due = time.monotonic()
            while due < until:
                seen[attack()] += 1
                due = max(due + THREADS / RATE, time.monotonic() - 0.1)
                time.sleep(max(0.0, due - time.monotonic()))

        threads = [threading.Thread(target=go_on) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seen


def measured(yard: Yard, seconds: float) -> dict[str, Told]:
    """By the name of the attack; the first one is none."""
    token = (yard.place / "token").read_text()
    good = f"authorization: Bearer {token}\r\n"
    old = f"authorization: Bearer bct_{'o' * 43}\r\n"
    ways: dict[str, tuple[Callable[[], str] | None, int]] = {
        "nobody": (None, 0),
        "no token": (yard.asks(), ATTACKER),
        "an old token": (yard.asks(old), ATTACKER),
        "another uid, with the token": (yard.asks(good), STRANGER),
        "a neighbour gone mad, with the token": (yard.asks(good), ATTACKER),
        "bodies of 10 MB, with the token": (yard.posts_ten_megabytes(), ATTACKER),
        "requests that never end": (yard.begins_and_waits, ATTACKER),
    }
    return {name: yard.under(attack, uid, seconds) for name, (attack, uid) in ways.items()}


def row(name: str, told: Told, peace: Told, seconds: float) -> Row:
    asked = sum(told.seen.values())
    answers = ", ".join(f"{what}: {times}" for what, times in told.seen.most_common(4))
    said = f"; {asked / seconds:.0f} requests/s ({answers})" if asked else ""
    return Row(
        name,
        f"{max(told.gaps):.2f} s of {len(told.gaps)}; CPU {told.cpu * 100:.0f} %{said}; "
        f"neighbour served {told.served} of {told.served + told.unserved}",
        f"{max(peace.gaps):.2f} s",
        ratio=max(told.gaps) / max(peace.gaps),
        most=MOST_GAP_S,
        unit=" s",
        value=max(told.gaps),
    )


def run(seconds: float) -> dict[str, Told]:
    if os.geteuid() != 0:
        sys.exit("this takes root: the attackers have uids of their own")
    with tempfile.TemporaryDirectory(prefix="flood-") as directory:
        yard = Yard(Path(directory))
        try:
            anyio.run(yard.begin)
            return measured(yard, seconds)
        finally:
            yard.stage.end()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    told = run(seconds)
    title("local API under attack")
    rows = [row(name, one, told["nobody"], seconds) for name, one in told.items()]
    table("attacked by", "nobody", rows, measured="longest gap between heartbeats")


if __name__ == "__main__":
    main()
