"""What the agent costs when nothing happens, and how fast its CLI starts; real processes on loopback.

usage: bench_agent.py [SECONDS]     watches an idle, enrolled agent for so long (default 30); prints Markdown

CPU is read from /proc/PID/stat, memory from /proc/PID/smaps_rollup. The named peer of the CLI is the interpreter that
imports rich and sqlite3 and does nothing: what a table from SQLite costs at least.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio

from simulators.demo.stage import Stage

RUNS = 9
IDLE_HEARTBEAT_S = 2
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


async def enroll(stage: Stage) -> None:
    await stage.start_cloudly()
    made = json.loads(stage.ask(["cloudly", "token", "create", "--json"]))
    await stage.start_supervisor(made["token"])
    stage.start_agent(made["token"])
    state = stage.directory / "data/baseos/state.json"
    while not (state.exists() and json.loads(state.read_text()).get("node_token")):
        stage.check_alive()
        await stage.world.sleep(0.1)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_mb(pid: int) -> tuple[float, float]:
    """RSS and PSS in MB (10^6 bytes)."""
    found = {"Rss": 0.0, "Pss": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024 / 1e6
    return found["Rss"], found["Pss"]


def spent_by(words: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of one whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def start_up(stage: Stage) -> list[str]:
    environment = {**os.environ, **stage.agent_environment}
    commands = {
        "`baserunner journal list`": [sys.executable, "-m", "baserunner", "journal", "list"],
        "`baserunner status`": [sys.executable, "-m", "baserunner", "status"],
        "`baserunner --help`": [sys.executable, "-m", "baserunner", "--help"],
    }
    peer = [sys.executable, "-c", "import sqlite3, rich.table, rich.console"]
    spent: dict[str, list[float]] = {name: [] for name in commands}
    base: list[float] = []
    for _ in range(RUNS):  # interleaved: the neighbours disturb all alike
        base.append(spent_by(peer, environment))
        for name, words in commands.items():
            spent[name].append(spent_by(words, environment))
    rows = []
    for name, seconds in spent.items():
        ratio = statistics.median(s / b for s, b in zip(seconds, base, strict=True))
        rows.append(
            f"| {name}, CPU | {statistics.median(seconds) * 1000:.0f} ms "
            f"| {statistics.median(base) * 1000:.0f} ms | {ratio:.2f} | |"
        )
    return rows


def idle(stage: Stage, seconds: float) -> list[str]:
    pid = stage.running["baserunner"].pid
    time.sleep(3)
    before = cpu_s(pid)
    time.sleep(seconds)
    spent = cpu_s(pid) - before
    rss, pss = memory_mb(pid)
    per_beat = spent / (seconds / IDLE_HEARTBEAT_S) * 1000
    return [
        f"| RSS of the idle agent | {rss:.1f} MB (PSS {pss:.1f}) | | | <= 55 MB |",
        (
            f"| CPU of the idle agent, a heartbeat every {IDLE_HEARTBEAT_S} s "
            f"| {spent / seconds * 100:.2f} % of a core | | | |"
        ),
        f"| the same, for one heartbeat | {per_beat:.1f} ms | | | |",
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(Path(directory) / "stage", speed=1)
        try:
            anyio.run(enroll, stage)
            rows = idle(stage, seconds) + start_up(stage)
        finally:
            stage.end()
    print(f"## agent, {datetime.now(UTC):%Y-%m-%d}\n")
    print("The peer of the CLI: a process that imports sqlite3 and rich, and does nothing.\n")
    print("| what | measured | peer | ratio | goal |")
    print("|---|---:|---:|---:|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
