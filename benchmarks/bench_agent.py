"""What the agent costs when nothing happens: a real process on loopback.

usage: bench_agent.py [SECONDS]     watches an idle, enrolled agent for so long (default 30); prints Markdown

CPU is read from /proc/PID/stat, memory from /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import anyio

from benchmarks.yard import Row, table, title
from simulators.demo.stage import Stage

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


def idle(stage: Stage, seconds: float) -> list[Row]:
    pid = stage.running["baserunner"].pid
    time.sleep(3)
    before = cpu_s(pid)
    time.sleep(seconds)
    spent = cpu_s(pid) - before
    rss, pss = memory_mb(pid)
    per_beat = spent / (seconds / IDLE_HEARTBEAT_S) * 1000
    return [
        Row("RSS", f"{rss:.1f} MB (PSS {pss:.1f})", most=55, unit=" MB", value=rss),
        Row(
            f"CPU, a heartbeat every {IDLE_HEARTBEAT_S} s",
            f"{spent / seconds * 100:.2f} % of a core",
        ),
        Row("the same, for one heartbeat", f"{per_beat:.1f} ms"),
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(Path(directory) / "stage", speed=1)
        try:
            anyio.run(enroll, stage)
            rows = idle(stage, seconds)
        finally:
            stage.end()
    title("agent")
    table("idle and enrolled", "yardstick", rows)


if __name__ == "__main__":
    main()
