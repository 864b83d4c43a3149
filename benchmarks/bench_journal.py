"""What the journal costs, as ratios to raw SQLite at the same durability, measured in one run in interleaved blocks.

usage: bench_journal.py [DIRECTORY]     on the disk that counts; takes about a minute, prints Markdown

The yardstick of an append is one INSERT of the same row into the same file with the same settings; of a recall, the
rows with json.loads and the same sum. Goals are the journal note's.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.yard import (
    CHART,
    MACHINE,
    Row,
    append_to,
    cpu,
    grow,
    insert_raw,
    interleaved,
    open_at,
    open_raw,
    ratio,
    table,
    title,
    us,
    values,
)
from journal import connection, schema
from journal.facts import Lane, canonical
from journal.recall import Stream, recall
from journal.verify import verify

BLOCKS, BLOCK = 60, 25
RECALLED = 100_000


def bench_append(
    root: Path, blocks: int = BLOCKS, block: int = BLOCK, most: float = 1.2
) -> list[Row]:
    raw, unsynced = open_raw(root / "raw"), open_raw(root / "unsynced")
    unsynced.execute("PRAGMA synchronous=NORMAL")
    bare, told, soon = (open_at(root / name) for name in ("bare", "told", "soon"))
    stream = recall(told, "bench/1", MACHINE)

    seen = interleaved(
        {
            "raw": lambda i: insert_raw(raw, i),
            "append": append_to(bare),
            "record": lambda i: stream.record(
                "odd" if stream.state == "even" else "even", values(i)
            ),
            "soon": append_to(soon, soon=True),
            "raw unsynced": lambda i: insert_raw(unsynced, i),
        },
        blocks,
        block,
    )
    for opened in (raw, unsynced, bare, told, soon):
        opened.close()

    def row(what: str, name: str, most: float | None = None, peer: str = "raw") -> Row:
        return Row(what, us(seen[name]), us(seen[peer]), ratio(seen[name], seen[peer]), most)

    return [
        row("append: validated, chained, durable (p50)", "append", most),
        row("record: the same, legal by its chart and folded (p50)", "record", most),
        row("append, soon", "soon"),
        row("append, soon, to raw without its sync", "soon", peer="raw unsynced"),
    ]


def bench_recall(root: Path) -> list[Row]:
    place = root / "recalled"
    grow(place, RECALLED, one_stream=True)
    raw = connection.connect(place / schema.FILE, mode="ro")
    journal = open_at(place)

    def fold_raw() -> int:
        rows = raw.execute("SELECT dst, data FROM core ORDER BY seq")
        return sum(json.loads(data)["bytes"] for _, data in rows)

    def recall_and_follow() -> None:
        """What `recall` does, and each fact's hash: no program of ours does both in one go."""
        stream = Stream(journal, "bench/1", MACHINE, state=CHART.initial)
        prev = journal.prev_hash(Lane.CORE, 1)
        for page in journal.pages(Lane.CORE, stream="bench/1"):
            for fact in page:
                assert fact.follows(prev)
                stream.read(fact)
                prev = fact.hash

    acts = {
        "raw": fold_raw,
        "recall": lambda: recall(journal, "bench/1", MACHINE),
        "both": recall_and_follow,
        "verify": lambda: verify(journal),
    }
    spent: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(7):
        for name, act in acts.items():
            spent[name].append(cpu(act))
    journal.close()
    raw.close()
    size = (place / schema.FILE).stat().st_size / RECALLED
    data = len(canonical(values(RECALLED)))

    def row(what: str, name: str, most: float | None = None) -> Row:
        ours, raw = (f"{statistics.median(spent[each]):.2f} s CPU" for each in (name, "raw"))
        return Row(what, ours, raw, ratio(spent[name], spent["raw"]), most)

    whole = statistics.median(spent["verify"])
    return [
        row(f"recall of {RECALLED:,} facts", "recall", 1.8),
        row("the same, with its chain followed", "both", 1.8),
        Row(
            "verify: chain, stories, streams, SQLite's own",
            f"{whole:.2f} s CPU",
            most=1,
            unit=" s CPU",
            value=whole,
        ),
        Row("file, per fact", f"{size:.0f} B", f"{data} B of data", size / data),
    ]


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


def bench_memory(root: Path) -> list[Row]:
    bare = peak("pass")
    alone = peak(ALONE.format(place=str(root / "bare"), then="pass"))
    check = "from journal.verify import verify; verify(journal)"
    verified = peak(ALONE.format(place=str(root / "recalled"), then=check))
    peer = f"{bare:.1f} MB (python -c pass)"
    return [
        Row("peak RSS, open and 500 appends", f"{alone:.1f} MB", peer, alone / bare),
        Row(f"peak RSS, verify of {RECALLED:,} facts", f"{verified:.1f} MB", peer, verified / bare),
    ]


def peak(program: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", program + "\n" + PEAK], capture_output=True, text=True, check=True
    )
    return int(run.stdout) / 1024


def main() -> None:
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir())
    root = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=where))
    try:
        rows = [*bench_append(root), *bench_recall(root), *bench_memory(root)]
    finally:
        shutil.rmtree(root)
    title("journal")
    table(f"{BLOCKS} blocks of {BLOCK}, interleaved", "raw sqlite3", rows)


if __name__ == "__main__":
    main()
