"""`python -m tests.load.run_load`: 500 devices, an agent and a Supervisor each, at one real Cloudly; exit 1: a miss.

They are switched on within ten seconds, enroll with one join token, poll, report, and update in one go. Then it asks:
- Was every fact of every journal taken, without a gap, and the last report of every Supervisor?
- How long does a Supervisor wait for its target that has not changed (a probe asks ten times a second)?
- What does Cloudly's memory do?
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PORT = 18_098
PROBE = "f" * 32
PROBE_KEY = "p" * 32
DIGEST = "a1" * 32
MOST_P99_MS = 50.0
MOST_GROWTH_MB = 8.0
"""What the memory may have grown by over the quiet minutes: caches of SQLite and malloc settle in."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    root: Path
    devices: int
    workers: int
    quiet_s: float
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    said: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _expected_to_end: bool = False

    @property
    def data(self) -> Path:
        return self.root / "cloudly"

    def cloudly(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env=self._environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def _environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "CLOUDLY_DATA_DIR": str(self.data),
            "CLOUDLY_LOG_LEVEL": "WARNING",
            **more,
        }

    def start(self, *words: object, **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)], env=self._environment(**more)
        )
        self.running.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.start("cloudly", "serve", "--port", PORT, "--no-page")
        self.until("Cloudly serves", _serves, within_s=30)
        return process

    def until(self, what: str, so: Callable[[], bool], *, within_s: float) -> float:
        """Seconds that it took; it is wrong when it does not come true."""
        began = time.monotonic()
        while not so():
            if time.monotonic() - began > within_s:
                self.wrong.append(f"not so after {within_s:.0f} s: {what}")
                break
            if not self._expected_to_end and any(one.poll() is not None for one in self.running):
                sys.exit("a process has ended by itself: what it printed is above")
            time.sleep(0.5)
        took = time.monotonic() - began
        print(f"{took:7.1f} s  {what}", flush=True)
        return took

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.data}/cloudly.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    def count(self, query: str) -> int:
        return int(self.ask(query)[0][0])

    def play(self) -> None:
        server = self.serve()
        token = self.cloudly("token", "create", "--uses", str(self.devices + 1))
        _register(token)
        took = self.root / "probe.json"
        shares = range(0, self.devices, -(-self.devices // self.workers))
        workers = [
            self.start(
                "tests.load.devices", self.root, first, min(shares.step, self.devices - first),
                f"http://127.0.0.1:{PORT}", LOAD_JOIN_TOKEN=token,
            )
            for first in shares
        ]  # fmt: skip
        everyone = self.devices
        self.until(
            "every Supervisor is registered and every agent enrolled",
            lambda: (
                self.count(
                    "SELECT count(*) FROM device d JOIN credential c ON c.node=d.node WHERE c.still_open=0"
                )
                == everyone
            ),
            within_s=600,
        )
        probe = self.start("tests.load.probe", took, PORT, PROBE, PROBE_KEY)
        self._rest(server, "polling")
        self.cloudly(
            "release", "set", "--all", "1.0.0", "--release", "c1", "--health-soak", "5",
            "--image", f"main=registry.example/v2/one@sha256:{DIGEST}",
        )  # fmt: skip
        succeeded = "SELECT count(*) FROM deployment WHERE state='succeeded'"
        self.until(
            "every update succeeded", lambda: self.count(succeeded) == everyone, within_s=900
        )
        self._rest(server, "after the update")
        self._end(probe)
        for worker in workers:
            worker.terminate()
        self._expected_to_end = True
        self.until(
            "the devices have ended",
            lambda: all(worker.poll() is not None for worker in workers),
            within_s=180,
        )
        self._judge_latency(json.loads(took.read_text()))
        self._judge_reports()

    def _rest(self, server: subprocess.Popen[bytes], when: str) -> None:
        """Nothing happens but polls and heartbeats: what that costs, and whether the memory stays."""
        time.sleep(10)
        before, cpu = _rss_mb(server.pid), _cpu_s(server.pid)
        time.sleep(self.quiet_s)
        after, spent = _rss_mb(server.pid), _cpu_s(server.pid) - cpu
        self.said[f"Cloudly, {when}"] = (
            f"{spent / self.quiet_s * 100:.1f} % of a core, {before:.0f} MB, then {after:.0f} MB"
        )
        if after - before > MOST_GROWTH_MB:
            self.wrong.append(f"memory grew from {before:.0f} to {after:.0f} MB {when}")

    def _judge_latency(self, took: list[tuple[int, float]]) -> None:
        times = sorted(seconds for status, seconds in took if status == 304)
        p50, p99 = (times[len(times) * share // 100] * 1000 for share in (50, 99))
        self.said["GET state, 304, as a device sees it"] = (
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(times)}"
        )
        if p99 > MOST_P99_MS:
            self.wrong.append(f"p99 of a state GET with 304 is {p99:.0f} ms")

    def _judge_reports(self) -> None:
        told: dict[str, Any] = {}
        for file in self.root.glob("result-*.json"):
            told |= json.loads(file.read_text())
        acks = {
            (node, epoch, lane): seq
            for node, epoch, lane, seq in self.ask(
                "SELECT n.node_id, e.epoch, l.lane, l.ack_seq FROM lane l JOIN node n ON n.id=l.node"
                " JOIN epoch e ON e.node=l.node AND e.n=l.epoch_n"
            )
        }
        reports = dict(
            self.ask("SELECT n.node_id, d.report FROM device d JOIN node n ON n.id=d.node")
        )
        facts = 0
        for uuid, end in told.items():
            facts += acks.get((uuid, end["epoch"], "core"), 0)
            self.wrong += _missing(uuid, end, acks, reports[uuid])
        gaps = self.count("SELECT count(*) FROM lane_gap")
        if gaps or len(told) != self.devices:
            self.wrong.append(f"{gaps} gaps, {len(told)} of {self.devices} devices told their end")
        self.said["reports"] = f"{facts} transitions of {len(told)} devices, {gaps} gaps"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(timeout=30)

    def end(self) -> None:
        for process in reversed(self.running):
            with suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(timeout=20)
            process.kill()


def _missing(
    uuid: str, end: dict[str, Any], acks: dict[tuple[str, str, str], int], report: str
) -> Iterator[str]:
    """What Cloudly does not have of a device. Its last breath (`run-ended`) is told with its next start."""
    acked, head = acks.get((uuid, end["epoch"], "core"), 0), end["heads"]["core"]
    if acked != head:
        yield f"{uuid}: {acked} of {head} transitions"
    kept, reported = json.loads(report), dict(end["reported"])
    reported.pop("api_secret", None)
    stable = {key for key in reported if key == "apps" or key.endswith("_version")}
    if any(kept.get(key) != reported[key] for key in stable):
        yield f"{uuid}: its Supervisor's last report is not what Cloudly has"


def _serves() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORT)).close()
    except OSError:
        return False
    return True


def _register(token: str) -> None:
    body = json.dumps({"uuid": PROBE, "api_key": PROBE_KEY}).encode()
    head = (
        f"POST /device/register HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {token}\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", PORT)) as line:
        line.sendall(head.encode() + body)
        assert b" 201 " in line.makefile("rb").readline()


def _rss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


@contextmanager
def _place() -> Iterator[Path]:
    """The devices' disks are in memory where they can be: they are not this machine's to write."""
    ram = Path("/dev/shm")  # noqa: S108 - a directory of our own in it
    place = Path(tempfile.mkdtemp(prefix="load-", dir=ram if ram.is_dir() else None))
    data = Path(tempfile.mkdtemp(prefix="load-cloudly-"))
    (place / "cloudly").symlink_to(data)
    try:
        yield place
    finally:
        shutil.rmtree(place)
        shutil.rmtree(data)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.run_load", description=__doc__)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2, help="processes that hold the devices")
    parser.add_argument("--quiet", type=float, default=120.0, help="seconds of nothing, twice")
    asked = parser.parse_args()
    with _place() as root:
        load = Load(root, asked.devices, asked.workers, asked.quiet)
        try:
            load.play()
        finally:
            load.end()
    for what, figures in load.said.items():
        print(f"{what}: {figures}")
    for one in load.wrong[:20]:
        print(f"wrong: {one}")
    print(
        f"{asked.devices} devices: {'nothing wrong' if not load.wrong else f'{len(load.wrong)} wrong'}"
    )
    return 1 if load.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
