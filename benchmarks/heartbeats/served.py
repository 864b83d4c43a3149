"""Databases of fleets, a server before one of them, and what it costs while nodes speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench_agent import cpu_s, memory_mb
from benchmarks.heartbeats import talk
from benchmarks.heartbeats.fleet import postgresql_fleet, sqlite_fleet
from benchmarks.heartbeats.talk import Client, Took
from tests.postgresql import Server

WARM = 300
CONNECTIONS = 128
PORT = 18_201


@dataclass
class Yard:
    """The databases, and which nodes have not spoken yet."""

    root: Path
    postgresql: Server
    urls: dict[int, str] = field(default_factory=dict)
    next_node: dict[tuple[str, int], int] = field(default_factory=dict)

    def nodes(self, engine: str, size: int, count: int) -> range:
        first = self.next_node.get((engine, size), 1)
        self.next_node[engine, size] = first + count
        assert first + count <= size, "more units than nodes"
        return range(first, first + count)

    def postgresql_pids(self) -> list[int]:
        postmaster = int((self.postgresql.home / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


@contextlib.contextmanager
def yard(sizes: Sequence[int]) -> Iterator[Yard]:
    """A fleet of each size in SQLite and in PostgreSQL, both on the disk."""
    os.environ["PYTHONPATH"] = "."
    with tempfile.TemporaryDirectory() as directory, Server.running(on_disk=True) as server:
        made = Yard(Path(directory), server)
        (made.root / "pg").mkdir()
        for size in sizes:
            sqlite_fleet(made.root / f"sqlite-{size}", size)
            server.sql(f"CREATE DATABASE fleet{size}")
            made.urls[size] = server.url(f"fleet{size}")
            asyncio.run(postgresql_fleet(made.urls[size], size))
        yield made


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


@dataclass(frozen=True)
class Load:
    """Who speaks, what each says, and how often; `per_s` None: as fast as it goes."""

    say: talk.Say
    warm: Sequence[int]
    nodes: Sequence[int]
    per_s: float | None = None


def run(yard: Yard, make: str, size: int, load: Load) -> Seen:
    """One server under that load."""
    with serving(yard, make, size) as process:
        asyncio.run(talk.closed_loop(PORT, iter(load.warm), CONNECTIONS, load.say))
        before, began = _cpu(yard, process.pid), time.perf_counter()
        if load.per_s is None:
            took = asyncio.run(talk.closed_loop(PORT, iter(load.nodes), CONNECTIONS, load.say))
        else:
            took = asyncio.run(_open_loop(load.nodes, load.per_s, load.say))
        lasted, after = time.perf_counter() - began, _cpu(yard, process.pid)
        app, database = (late - early for late, early in zip(after, before, strict=True))
        rss, _ = memory_mb(process.pid)
    units = len(load.nodes)
    return Seen(
        units / lasted,
        app / units * 1e6,
        database / units * 1e6,
        took,
        rss,
        (app + database) / lasted,
    )


def units(yard: Yard, make: str, size: int, count: int, per_s: float | None = None) -> Load:
    """Units, each of a node that has not spoken yet."""
    engine = "pg" if make.startswith("pg") else "sqlite"
    fresh = yard.nodes(engine, size, WARM + count)
    return Load(talk.saying(talk.batch()), fresh[:WARM], fresh[WARM:], per_s)


def _cpu(yard: Yard, pid: int) -> tuple[float, float]:
    return cpu_s(pid), sum(cpu_s(one) for one in yard.postgresql_pids())


async def _open_loop(nodes: Sequence[int], per_s: float, say: talk.Say) -> Took:
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
