"""What a heartbeat with five facts costs Cloudly, a million nodes in the table, on SQLite and on PostgreSQL.

usage: bench_heartbeats.py [NODES]     of the big fleet (default 1000000); the small one has 10000; prints Markdown

A unit is two requests of one node: a heartbeat whose report has changed, and a batch of five facts of about 200 bytes;
both are durable before they are answered, and each unit is another node's. What is called CPU is that of the server's
process and of PostgreSQL's together, from /proc. Servers, database and client share the machine's cores, so rates are
low limits; a ratio is between servers that took turns.
"""

from __future__ import annotations

import statistics
import sys

from benchmarks.heartbeats import talk
from benchmarks.heartbeats.served import Load, Seen, Yard, run, units, yard
from benchmarks.heartbeats.talk import percentile
from benchmarks.yard import Row, table, title

SMALL = 10_000
UNITS = 3_000
ROUNDS = 2
OPEN_PER_S = 1_000
OPEN_S = 16
MINUTE_S = 60
SLOW_S = 15


def in_turns(yard: Yard, makes: list[tuple[str, int]]) -> dict[tuple[str, int], Seen]:
    """Each of them so many times, forwards and backwards: the median by CPU and by rate."""
    seen: dict[tuple[str, int], list[Seen]] = {make: [] for make in makes}
    for turn in range(ROUNDS):
        for make in makes if turn % 2 == 0 else makes[::-1]:
            seen[make].append(run(yard, *make, units(yard, *make, UNITS)))
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
    """What a node waits for its answer, where nodes come at their own rate; a unit is two requests."""
    lines = []
    for name, make, middle, most in (("SQLite", "sqlite", 10, 250), ("PostgreSQL", "pg", None, 50)):
        load = units(yard, make, big, OPEN_PER_S // 2 * OPEN_S, OPEN_PER_S / 2)
        seen = run(yard, make, big, load)
        both = seen.took.both
        lines.append(
            f"- {name}, open loop of {OPEN_PER_S} requests a second: p50 {told(percentile(both, 0.5), middle)},"
            f" p99 {told(percentile(both, 0.99), most)}; {seen.per_s * 2:.0f} /s came through, {seen.busy:.2f} cores"
        )
    return lines


def minutes(yard: Yard) -> list[str]:
    """What 10,000 nodes cost that speak once a minute."""
    per_s = SMALL / MINUTE_S
    count = int(per_s * SLOW_S)
    news = units(yard, "sqlite", SMALL, count, per_s)
    plain = Load(talk.saying(None), range(1, SMALL + 1), range(1, count + 1), per_s)
    lines = []
    for load, what, most in (
        (news, "send news and five facts each time", None),
        (plain, "have nothing new", 10),  # after the others: now Cloudly knows what they say
    ):
        seen = run(yard, "sqlite", SMALL, load)
        lines.append(
            f"- SQLite, {SMALL} nodes that speak once a minute and {what}:"
            f" {told(seen.busy * 100, most, '% of a core')}, {told(seen.rss_mb, 150, 'MB')}"
        )
    return lines


def told(seen: float, most: float | None, unit: str = "ms") -> str:
    goal = "" if most is None else f" (goal: {most}{'' if seen <= most else ', **missed**'})"
    return f"{seen:.1f} {unit}{goal}"


def main() -> None:
    big = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with yard((SMALL, big)) as fleets:
        title("heartbeats")
        table("Heartbeats with five facts, CPU", "a server that stores nothing", costs(fleets, big))
        table("Rates", "named in the row", groups(fleets, big))
        print("\n".join([*waits(fleets, big), *minutes(fleets)]))
        print()


if __name__ == "__main__":
    main()
