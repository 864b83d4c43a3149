"""What the journal costs, as ratios to raw SQLite at the same durability, measured in one run in interleaved blocks.

usage: bench_journal.py [DIRECTORY]     on the disk that counts; takes about a minute, prints Markdown

A ratio is the median of the ratios of neighbouring blocks: neighbours on the machine disturb both alike. Absolute times
are this machine's, of this minute. Goals are the journal note's.
"""

from __future__ import annotations

import json
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from journal import chain, connection, schema
from journal.chart import Arrow, Chart, Waits
from journal.facts import Lane, Stamp, canonical
from journal.journal import Journal
from journal.reader import open_reader
from journal.recall import Machine, recall
from journal.verify import verify

BLOCKS, BLOCK = 60, 25
RECALLED = 100_000
SHORT, LONG = 1_000, 1_000_000
BOOT = "5f0c1e9e-6b57-4b0e-9a53-0c5a9d0f0001"
EPOCH = "00112233445566778899aabbccddeeff"
INSERT = (
    "INSERT INTO core (n, stream, kind, src, dst, at_ms, boot, mono_ms, data, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

WAITS = Waits("us", "the next one", None, "it comes", "go on")
CHART = Chart(
    name="bench",
    initial="even",
    arrows=(Arrow("odd", "even", "odd"), Arrow("even", "odd", "even"), Arrow("end", "odd", "end")),
    waits={"even": WAITS, "odd": WAITS},
    final=frozenset({"end"}),
)
MACHINE: Machine[int] = Machine(CHART, 0, lambda total, fact: total + int(fact.values["bytes"]))


def stamp() -> Stamp:
    return Stamp(time.time_ns() // 1_000_000, BOOT, time.monotonic_ns() // 1_000_000)


def values(i: int) -> dict[str, object]:
    """About 150 bytes of JSON: a transition with its reasons."""
    return {
        "attempt": i % 5,
        "release": f"2026.11.0-rc{i % 10}",
        "artifact": "sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "bytes": 123_456_789 + i,
        "reason": "scheduled check, the window is open",
    }


def open_at(place: Path) -> Journal:
    place.mkdir(exist_ok=True)
    return Journal.open(place, stamp=stamp, new_epoch=lambda: EPOCH)


def open_raw(place: Path) -> sqlite3.Connection:
    """The yardstick: the same file, settings and WAL; an INSERT of the same row and nothing else."""
    open_at(place).close()
    raw = connection.connect(place / schema.FILE, mode="rw")
    connection.settle(raw)
    connection.prewarm(raw, place / schema.FILE)
    return raw


def insert_raw(raw: sqlite3.Connection, i: int) -> None:
    now = stamp()
    names = ("bench/1", "odd", "even", "odd")
    data = json.dumps(values(i))
    raw.execute(INSERT, (i, *names, now.at_ms, now.boot_id, now.mono_ms, data, bytes(32)))


def interleaved(acts: dict[str, Callable[[int], object]]) -> dict[str, list[float]]:
    """The median time of each act in each block, in seconds; who comes first changes from block to block."""
    names = list(acts)
    medians: dict[str, list[float]] = {name: [] for name in acts}
    for block in range(BLOCKS):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            medians[name].append(
                statistics.median(timed(acts[name], block, i) for i in range(BLOCK))
            )
    return medians


def timed(act: Callable[[int], object], block: int, i: int) -> float:
    began = time.perf_counter()
    act(block * BLOCK + i)
    return time.perf_counter() - began


def ratio(of: list[float], to: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def us(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.0f} us"


def bench_append(root: Path) -> list[tuple[str, ...]]:
    raw, unsynced = open_raw(root / "raw"), open_raw(root / "unsynced")
    unsynced.execute("PRAGMA synchronous=NORMAL")
    bare, told, soon = (open_at(root / name) for name in ("bare", "told", "soon"))
    stream = recall(told, "bench/1", MACHINE)

    def append(journal: Journal, i: int, *, soon: bool) -> None:
        src, dst = ("even", "odd") if i % 2 else ("odd", "even")
        journal.append("bench/1", dst, src, dst, values(i), soon=soon)

    seen = interleaved(
        {
            "raw": lambda i: insert_raw(raw, i),
            "append": lambda i: append(bare, i, soon=False),
            "record": lambda i: stream.record(
                "odd" if stream.state == "even" else "even", values(i)
            ),
            "soon": lambda i: append(soon, i, soon=True),
            "raw unsynced": lambda i: insert_raw(unsynced, i),
        }
    )
    for opened in (raw, unsynced, bare, told, soon):
        opened.close()
    return [
        row("append, durable", seen, ("append", "raw"), "<= 1.2"),
        row("record (chart, fold, append)", seen, ("record", "raw"), ""),
        row("append, soon", seen, ("soon", "raw"), ""),
        row("append, soon, to raw unsynced", seen, ("soon", "raw unsynced"), ""),
    ]


def row(
    what: str, seen: dict[str, list[float]], names: tuple[str, str], goal: str
) -> tuple[str, ...]:
    of, to = (seen[name] for name in names)
    return what, us(of), us(to), f"{ratio(of, to):.2f}", goal


def grow(place: Path, facts: int) -> None:
    """A whole journal of ended updates and one open one, written beneath the API, which is quicker."""
    open_at(place).close()
    with closing(connection.connect(place / schema.FILE, mode="rw")) as raw:
        raw.execute("PRAGMA synchronous=OFF")
        raw.execute("BEGIN")
        raw.executemany("INSERT INTO core VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", chained(facts))
        raw.execute("INSERT INTO stream VALUES ('bench', 1, 'core', 1, NULL, '')")
        raw.execute("COMMIT")


def chained(facts: int) -> Iterator[tuple[object, ...]]:
    prev = chain.genesis(EPOCH, Lane.CORE)
    for seq in range(1, facts + 1):
        src, dst = ("even", "odd") if seq % 2 else ("odd", "even")
        data = canonical(values(seq))
        prev = chain.link(
            prev,
            lane="core",
            seq=seq,
            n=seq,
            stream="bench/1",
            kind=dst,
            src=src,
            dst=dst,
            at_ms=seq,
            boot_id=BOOT,
            mono_ms=seq,
            data=data,
        )
        yield seq, seq, "bench/1", dst, src, dst, seq, BOOT, seq, data, prev


def bench_recall(root: Path) -> list[tuple[str, ...]]:
    place = root / "recalled"
    grow(place, RECALLED)
    raw = connection.connect(place / schema.FILE, mode="ro")
    reader = open_reader(place)

    def fold_raw() -> int:
        rows = raw.execute("SELECT dst, data FROM core ORDER BY seq")
        return sum(json.loads(data)["bytes"] for _, data in rows)

    spent: dict[str, list[float]] = {"raw": [], "recall": [], "verify": []}
    for _ in range(3):
        spent["raw"].append(cpu(fold_raw))
        spent["recall"].append(cpu(lambda: recall(reader, "bench/1", MACHINE)))
        spent["verify"].append(cpu(lambda: verify(reader)))
    reader.close()
    raw.close()
    size = (place / schema.FILE).stat().st_size / RECALLED
    base = f"{statistics.median(spent['raw']):.2f} s CPU"
    rows: list[tuple[str, ...]] = [
        (
            f"{what} of {RECALLED:,} facts",
            f"{statistics.median(spent[name]):.2f} s CPU",
            f"{base} (rows, json.loads, fold)",
            f"{ratio(spent[name], spent['raw']):.2f}",
            goal,
        )
        for what, name, goal in (
            ("recall", "recall", "<= 1.8"),
            ("verify (chain, stories, SQLite's own)", "verify", "<= 1 s CPU"),
        )
    ]
    data = len(canonical(values(RECALLED)))
    return [
        *rows,
        ("file, per fact", f"{size:.0f} B", f"{data} B of data", f"{size / data:.2f}", ""),
    ]


def cpu(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def bench_open(root: Path) -> list[tuple[str, ...]]:
    seen: dict[str, list[float]] = {"short": [], "long": []}
    for name, facts in (("short", SHORT), ("long", LONG)):
        grow(root / name, facts)
        with open_at(root / name) as journal:
            end_the_long_stream(journal)
    for turn in range(31):
        for name in ("short", "long") if turn % 2 else ("long", "short"):
            began = time.perf_counter()
            journal = open_at(root / name)
            recall(journal, "bench/2", MACHINE)
            seen[name].append(time.perf_counter() - began)
            journal.close()
    times = [f"{statistics.median(seen[name]) * 1e3:.1f} ms" for name in ("long", "short")]
    what = f"open + recall of the open stream, {LONG:,} to {SHORT:,} facts"
    return [(what, *times, f"{ratio(seen['long'], seen['short']):.2f}", "<= 1.3")]


def end_the_long_stream(journal: Journal) -> None:
    head = journal.tail(1)[0]
    if head.dst == "even":
        journal.append("bench/1", "odd", "even", "odd")
    journal.append("bench/1", "end", "odd", "end", final=True)
    stream = recall(journal, "bench/2", MACHINE)
    for kind in ("odd", "even"):
        stream.record(kind, values(1))


PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""Not ru_maxrss: it counts the parent's memory from before exec."""
ALONE = """
import time
from pathlib import Path
from journal.facts import Stamp
from journal.journal import Journal
from journal import recall, reader
with Journal.open(Path({place!r}), stamp=lambda: Stamp(1, "boot", 1), new_epoch=lambda: "e" * 32) as journal:
    for i in range(500):
        journal.append("bench/3", "k", "a", "a", {{"i": i}}, soon=True)
    {then}
"""


def bench_memory(root: Path) -> list[tuple[str, ...]]:
    place = str(root / "bare")
    bare = peak("pass")
    alone = peak(ALONE.format(place=place, then="pass"))
    verified = peak(
        ALONE.format(
            place=str(root / "recalled"), then="from journal.verify import verify; verify(journal)"
        )
    )
    return [
        (
            "peak RSS, open and 500 appends",
            f"{alone:.1f} MB",
            f"{bare:.1f} MB (python -c pass)",
            f"{alone / bare:.2f}",
            "",
        ),
        (
            f"peak RSS, verify of {RECALLED:,} facts",
            f"{verified:.1f} MB",
            f"{bare:.1f} MB",
            f"{verified / bare:.2f}",
            "",
        ),
    ]


def peak(program: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", program + "\n" + PEAK], capture_output=True, text=True, check=True
    )
    return int(run.stdout) / 1024


def main() -> None:
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir())
    root = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=where))
    began = time.monotonic()
    try:
        rows = bench_append(root) + bench_recall(root) + bench_open(root) + bench_memory(root)
    finally:
        shutil.rmtree(root)
    took = time.monotonic() - began
    print(f"## journal, {datetime.now(UTC):%Y-%m-%d}\n")
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, "
        f"Linux {platform.release()}; {BLOCKS} blocks of {BLOCK}, interleaved; took {took:.0f} s\n"
    )
    print("| what | measured | yardstick | ratio | goal |")
    print("|---|---:|---:|---:|---|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
