"""What an append costs where each sync takes 10 ms, as on an SD card: raw SQLite beside it, in the same slow process.

usage: bench_card.py     15 s, prints Markdown; needs a C compiler. The syncs are slowed by `slow_sync.c`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench_journal import bench_append
from benchmarks.yard import table, title

SYNC_US = 10_000
BLOCKS, BLOCK = 75, 5
SOURCE = Path(__file__).with_name("slow_sync.c")


def compiled(into: Path) -> Path:
    library = into / "slow_sync.so"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]
    subprocess.run([*words, str(library), str(SOURCE), "-ldl"], check=True)
    return library


def measure(place: Path) -> None:
    """In the process with the slow syncs."""
    rows = bench_append(place, BLOCKS, BLOCK, most=1.05)[:2]
    syncs = ctypes.c_long.in_dll(ctypes.CDLL(None), "slow_syncs").value
    least = 3 * BLOCKS * BLOCK
    assert syncs >= least, f"only {syncs} syncs were slowed, of at least {least}"
    title("journal on a slow card")
    print(f"Each sync takes {SYNC_US / 1e3:g} ms longer; {syncs:,} of them were slowed.\n")
    table("p50", "raw sqlite3", rows)


def main() -> None:
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory(prefix="bench-card-") as place:
        slow = {"LD_PRELOAD": str(compiled(Path(place))), "SLOW_SYNC_US": str(SYNC_US)}
        words = [sys.executable, "-m", "benchmarks.bench_card", place]
        subprocess.run(words, env={**os.environ, **slow}, check=True)


if __name__ == "__main__":
    main()
