"""What it costs to let a node into a rollout, among 10,000 nodes and among a million; prints Markdown.

usage: bench_admission.py [NODES]     of the big fleet (default 1000000)

A heartbeat with news that a rollout takes: the order is durable and in its answer. One phase takes everybody, so the
counters that decide are those of the whole fleet. CPU is that of the server's process and of PostgreSQL's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from typing import Any

from benchmarks.heartbeats import talk
from benchmarks.heartbeats.served import WARM, Load, Seen, Yard, run, yard
from benchmarks.yard import Row, table, title
from cloudly.leading import Leading
from cloudly.rollouts import orders
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.store import wanted
from cloudly.store.rollouts import making, story
from cloudly.store.store import Store
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy
from interfaces.world import RealWorld, new_id, now_ms

SMALL = 10_000
GRANTS = 1_200
ROUNDS = 3
EVERYBODY = Plan(phases=(Phase(name="all", share_bp=10_000, soak_s=0),), concurrency=1_000_000)
IMAGES = {"main": f"registry.example/app@sha256:{'0' * 64}"}


def opened(fleets: Yard, engine: str, size: int) -> Store:
    place = fleets.root / ("pg" if engine == "pg" else f"sqlite-{size}")
    url = fleets.urls[size] if engine == "pg" else None
    return Store.open(place, RealWorld(), database_url=url)


def begin(store: Store) -> None:
    """A rollout that takes everybody, started and admitting."""
    world = RealWorld()
    now = now_ms(world)

    def work(db: Any) -> None:
        release = wanted.define_release(db, NewRelease("c" * 32, "2.0.0", IMAGES, {}), now)
        policy = UpdatePolicy().model_dump_json()
        new = making.NewRollout(EVERYBODY, release, policy, "anna", new_id(world), now)
        number = making.create(db, new).number
        start = lambda rollout, plan: orders.start(rollout, plan, by="anna")  # noqa: E731
        story.order(db, number, start, now_ms=now)

    store.write_now(work)
    asyncio.run(Leading(store, world).tick())


def granted(store: Store, asked: list[range]) -> int:
    """How many of those nodes were let in. (A server that has just started knows of no rollout for a moment.)"""
    count = "SELECT count(*) FROM rollout_grant WHERE node BETWEEN ? AND ?"
    ends = [(one[0], one[-1]) for one in asked]
    counts = store.read_now(lambda db: [db.execute(count, each).fetchone()[0] for each in ends])
    return sum(int(one) for one in counts)


def measured(fleets: Yard, engine: str, sizes: tuple[int, ...]) -> dict[int, Seen]:
    seen: dict[int, list[Seen]] = {size: [] for size in sizes}
    asked: dict[int, list[range]] = {size: [] for size in sizes}
    for size in sizes:
        store = opened(fleets, engine, size)
        begin(store)
        store.close()
    for turn in range(ROUNDS):
        for size in sizes if turn % 2 == 0 else sizes[::-1]:
            fresh = fleets.nodes(engine, size, WARM + GRANTS)
            asked[size].append(fresh[WARM:])
            load = Load(talk.saying(None), fresh[:WARM], fresh[WARM:])
            seen[size].append(run(fleets, engine, size, load))
    for size in sizes:
        store = opened(fleets, engine, size)
        let_in = granted(store, asked[size])
        store.close()
        if let_in != ROUNDS * GRANTS:
            sys.exit(f"{engine}, {size} nodes: {let_in} were let in, not all that asked")
    return {
        size: sorted(found, key=lambda one: one.cpu_us)[ROUNDS // 2] for size, found in seen.items()
    }


def main() -> None:
    big = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows = []
    with yard((SMALL, big)) as fleets:
        for name, engine in (("SQLite", "sqlite"), ("PostgreSQL", "pg")):
            seen = measured(fleets, engine, (SMALL, big))
            small, large = seen[SMALL], seen[big]
            rows.append(
                Row(f"{name}, {big} nodes to {SMALL}", _told(large), _told(small),
                    large.cpu_us / small.cpu_us, most=1.5)
            )  # fmt: skip
    title("admission")
    table("A heartbeat that a rollout takes", "among fewer nodes", rows)


def _told(seen: Seen) -> str:
    middle = statistics.median(seen.took.heartbeats) * 1000
    return f"{seen.cpu_us:.0f} µs CPU, p50 {middle:.0f} ms at {seen.per_s:.0f} /s"


if __name__ == "__main__":
    main()
