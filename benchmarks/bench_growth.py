"""What grows with a journal: appending to it, opening it, forgetting, and beginning a new epoch in its place.

usage: bench_growth.py [FACTS ...]     default 1000 100000 1000000, and 10000000 where there is room for 3 GB

CPU time of this process, because its neighbours do not change that much. An unclean stop is a process that opened the
journal, wrote 20 facts and was gone. The journals are lived-in ones (yard.grow), their newest 2,000 facts not acked.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.yard import (
    MACHINE,
    Row,
    Seen,
    append_to,
    grow,
    interleaved,
    ms,
    open_at,
    ratio,
    stamp,
    table,
    title,
    us,
)
from journal.facts import Lane
from journal.journal import Journal
from journal.recall import freezer, recall
from journal.retention import Limits
from journal.succession import begin_epoch

LENGTHS = (1_000, 100_000, 1_000_000)
LONGEST, ITS_BYTES = 10_000_000, 6 << 30
TURNS = 15
RETAINED = 60_000
NOT_ACKED = 2_000
COPIES = 3
LIMITS = {
    "what Cloudly has goes": Limits(),
    "all goes, for space": Limits(max_bytes=0, keep_log=200, keep_core=200),
}
SUCCESSIONS = (1_000, 10_000, 100_000)
OPEN = "bench/0"
"""The attempt that goes on."""


def acked(journal: Journal) -> None:
    """As on a device that ships: all but the newest."""
    for lane in Lane:
        seq = max(journal.head(lane).seq - NOT_ACKED // 2, 0)
        if seq and (linked := journal.hash_at(lane, seq)):
            journal.ack(lane, seq, linked)


def ready(place: Path) -> Journal:
    """What an agent waits for before its first step: the journal, and the open attempt as it stands."""
    journal = open_at(place)
    recall(journal, OPEN, MACHINE)
    return journal


def begin_the_open_attempt(place: Path) -> None:
    with open_at(place) as journal:
        acked(journal)
        stream = recall(journal, OPEN, MACHINE)
        for i in range(6):
            stream.record("even" if i % 2 else "odd", {"bytes": i})


def die_at_work(place: Path) -> None:
    child = os.fork()
    if child == 0:
        journal = open_at(place)
        for i in range(20):
            journal.note(OPEN, "progressed", {"percent": i})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the process that was to die failed before"


def bench_open(places: dict[int, Path]) -> list[Row]:
    """Clean and unclean in turn, all lengths side by side."""
    seen: dict[bool, dict[int, list[float]]] = {
        unclean: {facts: [] for facts in places} for unclean in (False, True)
    }
    for _ in range(TURNS):
        for facts, place in places.items():
            for unclean in (False, True):
                if unclean:
                    die_at_work(place)
                began = time.process_time()
                journal = ready(place)
                seen[unclean][facts].append(time.process_time() - began)
                journal.close()
    least = min(places)
    return [
        Row(
            f"open to ready after {'an unclean' if unclean else 'a proper'} stop, {facts:,} facts",
            f"{ms(spent)} CPU",
            f"{ms(of[least])} CPU",
            ratio(spent, of[least]),
            15,
            " ms CPU",
            statistics.median(spent) * 1e3,
        )
        for unclean, of in seen.items()
        for facts, spent in of.items()
    ]


def bench_append(places: dict[int, Path]) -> list[Row]:
    journals = {facts: open_at(place) for facts, place in places.items()}
    acts = {str(facts): append_to(each, stream=OPEN) for facts, each in journals.items()}
    seen: Seen = interleaved(acts, blocks=60, block=15)
    for journal in journals.values():
        journal.close()
    short = seen[str(min(places))]
    return [
        Row(
            f"append, durable, to {facts:,} facts",
            us(seen[str(facts)]),
            us(short),
            ratio(seen[str(facts)], short),
            1.1,
        )
        for facts in places
    ]


def bench_retention(root: Path) -> list[Row]:
    """All steps until there is nothing more to do: what Cloudly has goes, then all that may go for space.

    Of COPIES copies of one journal each takes the same steps: the median of a step is without its neighbours' noise.
    """
    one = root / "retained-0"
    grow(one, RETAINED)
    with open_at(one) as journal:
        acked(journal)
    places = [one] + [Path(shutil.copytree(one, root / f"retained-{n}")) for n in range(1, COPIES)]
    told: list[list[tuple[str, float]]] = [[] for _ in places]
    for place, steps in zip(places, told, strict=True):
        with open_at(place) as journal:
            for what, limits in LIMITS.items():
                steps.extend(_retain(journal, what, limits))
    rows: dict[str, list[float]] = {}
    for same in zip(*told, strict=True):
        rows.setdefault(same[0][0], []).append(statistics.median(took for _, took in same))
    return [_steps(what, times) for what, times in rows.items()]


def _retain(journal: Journal, what: str, limits: Limits) -> Iterator[tuple[str, float]]:
    freeze = freezer(journal, {"bench": MACHINE})
    more = True
    while more:
        began = time.process_time()
        done = journal.retain(limits, freeze)
        took, more = time.process_time() - began, done.more
        name = "a step of 500 facts" if done.forgotten else "a step of giving space back"
        yield f"{what}: {name}", took


def _steps(what: str, times: list[float]) -> Row:
    slowest = max(times) * 1e3
    said = f"p50 {ms(times)}, max {slowest:.1f} ms CPU"
    return Row(f"{what} ({len(times)} steps)", said, most=10, unit=" ms CPU", value=slowest)


def bench_succession(root: Path) -> list[Row]:
    rows = []
    for facts in SUCCESSIONS:
        place = root / f"succeeded-{facts}"
        grow(place, facts)
        begin_the_open_attempt(place)
        began = time.process_time()
        begin_epoch(
            place,
            stamp=stamp,
            new_epoch=lambda: "f" * 32,
            why="fenced",
            problem="a benchmark",
            wanted=lambda _: False,
        )
        spent = time.process_time() - began
        rows.append(Row(f"a new epoch after {facts:,} facts", f"{spent * 1e3:,.0f} ms CPU"))
        shutil.rmtree(place)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as directory:
        root = Path(directory)
        has_room = shutil.disk_usage(root).free > ITS_BYTES
        lengths = tuple(map(int, sys.argv[1:])) or (*LENGTHS, *[LONGEST] * has_room)
        places = {facts: root / str(facts) for facts in lengths}
        for facts, place in places.items():
            grow(place, facts)
            begin_the_open_attempt(place)
        flat = [*bench_open(places), *bench_append(places)]
        steps, epochs = bench_retention(root), bench_succession(root)
    title("growth")
    table("as the journal grows", f"with {min(lengths):,} facts", flat)
    table("forgetting", "yardstick", steps)
    table("a new epoch in the place of an old one", "yardstick", epochs)


if __name__ == "__main__":
    main()
