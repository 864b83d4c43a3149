"""Whether a server's memory grows: an hour of 10,000 nodes, as fast as it goes; prints Markdown.

usage: bench_hour.py [sqlite|pg]

First each node sends news and a batch of five facts; then an hour is 60 heartbeats of each that have nothing new.
SQLite's page cache grows with the database, up to 64 MB, so nothing is added to it in that hour.
"""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.bench_agent import memory_mb
from benchmarks.bench_heartbeats import SMALL
from benchmarks.heartbeats import talk
from benchmarks.heartbeats.served import CONNECTIONS, PORT, serving, yard
from benchmarks.yard import title

PARTS = 6
BEATS = 60
MOST_GROWN = 1.02


def speak(nodes: range, say: talk.Say) -> None:
    asyncio.run(talk.closed_loop(PORT, iter(nodes), CONNECTIONS, say))


def main() -> None:
    make = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    everyone = range(1, SMALL + 1)
    with yard((SMALL,)) as fleets, serving(fleets, make, SMALL) as process:
        title("hour")
        began, grown = time.perf_counter(), list[float]()
        speak(everyone, talk.saying(talk.batch()))
        for _ in range(PARTS):
            for _ in range(BEATS // PARTS):
                speak(everyone, talk.saying(None))
            grown.append(memory_mb(process.pid)[0])
            print(f"    {time.perf_counter() - began:.0f} s, {grown[-1]:.0f} MB", file=sys.stderr)
    ratio = grown[-1] / grown[0]
    verdict = "" if ratio <= MOST_GROWN else ", **missed**"
    told = ", ".join(f"{one:.0f}" for one in grown)
    print(
        f"- An hour of {SMALL} nodes ({make}), in {time.perf_counter() - began:.0f} s: {told} MB after each sixth;"
        f" the last to the first: {ratio:.3f} (goal: at most {MOST_GROWN}{verdict})"
    )


if __name__ == "__main__":
    main()
