"""What a heartbeat with five facts costs Cloudly, a million nodes in the table, on SQLite and on PostgreSQL.

usage: bench_heartbeats.py [NODES]     of the big fleet (default 1000000); the small one has 10000; prints Markdown

A unit is two requests of one node: a heartbeat whose report has changed, and a batch of five facts of about 200 bytes;
both are durable before they are answered, and each unit is another node's. What is called CPU is that of the server's
process and of PostgreSQL's together, from /proc. Servers, database and client share the machine's cores, so rates are
low limits; a ratio is between servers that took turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench_agent import cpu_s, memory_mb
from benchmarks.heartbeats import talk
from benchmarks.heartbeats.fleet import postgresql_fleet, sqlite_fleet
from benchmarks.heartbeats.talk import Client, Took, percentile
from benchmarks.yard import Row, table, title
from tests.postgresql import Server

SMALL = 10_000
UNITS = 4_000
WARM = 300
CONNECTIONS = 128
ROUNDS = 2
PORT = 18_201
OPEN_PER_S = 1_000
OPEN_S = 8
SLOW_PER_S = 10_000 / 60
SLOW_S = 20


@dataclass
class Yard:
    """The databases, and which nodes have not spoken yet."""

    root: Path
    postgresql: Server
    urls: dict[int, str] = field(default_factory=dict)
    next_node: dict[tuple[str, int], int] = field(default_factory=dict)

    def nodes(self, engine: str, size: int, count: int) -> Iterator[int]:
        first = self.next_node.get((engine, size), 1)
        self.next_node[engine, size] = first + count
        assert first + count <= size, "more units than nodes"
        return iter(range(first, first + count))

    def postgresql_pids(self) -> list[int]:
        postmaster = int((self.postgresql.home / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


@dataclass(frozen=True)
class Seen:
    per_s: float
    app_us: float
    database_us: float
    took: Took
    rss_mb: float
    busy: float
    """Cores' worth of CPU while it ran."""

    @property
    def cpu_us(self) -> float:
        return self.app_us + self.database_us


@contextlib.contextmanager
def serving(yard: Yard, make: str, size: int) -> Iterator[subprocess.Popen[bytes]]:
    is_pg = make.startswith("pg")
    place = yard.root / ("pg" if is_pg else f"sqlite-{size}")
    words = [make, str(PORT), str(place), *([yard.urls[size]] if is_pg else [])]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.heartbeats.server", *words])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT)):
                break
            time.sleep(0.05)
        else:
            sys.exit(f"{make} did not begin to serve")
        yield process
    finally:
        process.terminate()
        process.wait()


def run(yard: Yard, make: str, size: int, *, per_s: float | None = None, for_s: float = 0) -> Seen:
    """One server through so many units: as fast as it goes, or at a rate of its own."""
    engine = "pg" if make.startswith("pg") else "sqlite"
    say = talk.saying(talk.batch())
    units = UNITS if per_s is None else int(per_s * for_s)
    with serving(yard, make, size) as process:
        warm = yard.nodes(engine, size, WARM)
        asyncio.run(talk.closed_loop(PORT, warm, CONNECTIONS, say))
        before, began = _cpu(yard, process.pid), time.perf_counter()
        nodes = yard.nodes(engine, size, units)
        if per_s is None:
            took = asyncio.run(talk.closed_loop(PORT, nodes, CONNECTIONS, say))
        else:
            took = asyncio.run(_open_loop(nodes, per_s, say))
        lasted, after = time.perf_counter() - began, _cpu(yard, process.pid)
        app, database = (late - early for late, early in zip(after, before, strict=True))
        rss, _ = memory_mb(process.pid)
    return Seen(
        units / lasted,
        app / units * 1e6,
        database / units * 1e6,
        took,
        rss,
        (app + database) / lasted,
    )


def _cpu(yard: Yard, pid: int) -> tuple[float, float]:
    return cpu_s(pid), sum(cpu_s(one) for one in yard.postgresql_pids())


async def _open_loop(nodes: Iterator[int], per_s: float, say: talk.Say) -> Took:
    """Nodes begin when they begin, whether or not others have been answered; latency is from then on."""
    chance = random.Random(1)  # noqa: S311
    took, free = Took(), asyncio.Queue[Client]()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Client().connect(PORT))
    running: set[asyncio.Task[None]] = set()
    at = time.perf_counter()

    async def one(number: int, planned: float) -> None:
        client = await free.get()
        await say(client, number, took, planned)
        free.put_nowait(client)

    for number in nodes:
        at += chance.expovariate(per_s)
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        task = asyncio.create_task(one(number, at))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    while not free.empty():
        free.get_nowait().close()
    return took


def in_turns(yard: Yard, makes: list[tuple[str, int]]) -> dict[tuple[str, int], Seen]:
    """Each of them so many times, forwards and backwards: the median by CPU and by rate."""
    seen: dict[tuple[str, int], list[Seen]] = {make: [] for make in makes}
    for turn in range(ROUNDS):
        for make in makes if turn % 2 == 0 else makes[::-1]:
            seen[make].append(run(yard, *make))
            print(
                f"    {make}: {seen[make][-1].per_s:.0f}/s {seen[make][-1].cpu_us:.0f} us",
                file=sys.stderr,
            )
    return {make: _median(found) for make, found in seen.items()}


def _median(found: list[Seen]) -> Seen:
    last = found[-1]
    return Seen(
        statistics.median(one.per_s for one in found),
        statistics.median(one.app_us for one in found),
        statistics.median(one.database_us for one in found),
        last.took, last.rss_mb, last.busy,
    )  # fmt: skip


def costs(yard: Yard, big: int) -> list[Row]:
    makes = [("null", big), ("sqlite", big), ("pg", big)]
    seen = in_turns(yard, makes)
    null = seen["null", big]
    rows = []
    for name, make in (("SQLite", "sqlite"), ("PostgreSQL", "pg")):
        one = seen[make, big]
        rows.append(
            Row(f"{name}, {big} nodes", f"{one.cpu_us:.0f} µs CPU", f"{null.cpu_us:.0f} µs CPU",
                one.cpu_us / null.cpu_us, most=4)
        )  # fmt: skip
    return rows


def groups(yard: Yard, big: int) -> list[Row]:
    seen = in_turns(
        yard,
        [("sqlite", big), ("sqlite-naive", big), ("sqlite-normal", big), ("sqlite", SMALL),
         ("pg", big), ("pg-one", big), ("pg", SMALL)],
    )  # fmt: skip
    rows = []
    for what, ours, theirs, least in (
        ("SQLite, to a COMMIT for each", ("sqlite", big), ("sqlite-naive", big), 3.0),
        ("PostgreSQL, to one statement for each", ("pg", big), ("pg-one", big), 2.0),
        ("SQLite, FULL to NORMAL", ("sqlite", big), ("sqlite-normal", big), 0.9),
        (f"SQLite, {big} nodes to {SMALL}", ("sqlite", big), ("sqlite", SMALL), 0.6),
        (f"PostgreSQL, {big} nodes to {SMALL}", ("pg", big), ("pg", SMALL), 0.6),
    ):
        one, other = seen[ours], seen[theirs]
        rows.append(
            Row(what, _told(one), _told(other),
                one.per_s / other.per_s, least=least)
        )  # fmt: skip
    return rows


def _told(seen: Seen) -> str:
    return f"{seen.per_s:.0f} /s, {seen.cpu_us:.0f} µs CPU"


def waits(yard: Yard, big: int) -> list[str]:
    """What a node waits for its answer, where nodes come at their own rate."""
    lines = []
    for name, make in (("SQLite", "sqlite"), ("PostgreSQL", "pg")):
        seen = run(yard, make, big, per_s=OPEN_PER_S, for_s=OPEN_S)
        both = seen.took.both
        lines.append(
            f"- {name}, {OPEN_PER_S} units a second, open loop: p50 {percentile(both, 0.5):.1f} ms, p99"
            f" {percentile(both, 0.99):.1f} ms, {seen.per_s:.0f} /s came through, {seen.busy:.2f} cores"
            f" (goals: p50 10 and p99 {250 if make == 'sqlite' else 50} ms)"
        )
    slow = run(yard, "sqlite", big, per_s=SLOW_PER_S, for_s=SLOW_S)
    lines.append(
        f"- SQLite, 10,000 nodes at 60 s ({SLOW_PER_S:.0f} units a second): {slow.busy * 100:.1f} % of a core,"
        f" {slow.rss_mb:.0f} MB (goals: 10 %, 150 MB)"
    )
    return lines


def main() -> None:
    big = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    os.environ["PYTHONPATH"] = "."
    with tempfile.TemporaryDirectory() as directory, Server.running(on_disk=True) as server:
        yard = Yard(Path(directory), server)
        (yard.root / "pg").mkdir()
        for size in (SMALL * 4, big):
            named = SMALL if size == SMALL * 4 else big
            sqlite_fleet(yard.root / f"sqlite-{named}", size)
            server.sql(f"CREATE DATABASE fleet{named}")
            yard.urls[named] = server.url(f"fleet{named}")
            asyncio.run(postgresql_fleet(yard.urls[named], size))
        title("heartbeats")
        table("Heartbeats with five facts, CPU", "a server that stores nothing", costs(yard, big))
        table("Rates", "named in the row", groups(yard, big))
        print("\n".join(waits(yard, big)))
        print()


if __name__ == "__main__":
    main()
