"""`make bench`: run every benchmark, one after the other, and write docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
NAMES = ("bench_journal", "bench_flash", "bench_chart", "bench_agent")


def main() -> None:
    parts = [
        "# Benchmarks\n",
        (
            "Written by `make bench`. Ratios are of interleaved runs in one go; absolute times are "
            "this machine's, of that minute, and its cores are shared with others.\n"
        ),
        (
            f"Machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
            f"load {os.getloadavg()[0]:.1f} at the start.\n"
        ),
    ]
    for name in NAMES:
        print(f"{name} ...", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"{name} failed:\n{done.stderr}")
        print(done.stdout, flush=True)
        parts.append(done.stdout)
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
