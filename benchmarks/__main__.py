"""`make bench`: run every benchmark, one after the other, and write docs/benchmarks.md.

usage: python -m benchmarks [NAME ...]     with names: these only, and nothing is written
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
# fmt: off
NAMES = (
    "bench_journal", "bench_card", "bench_growth", "bench_flash",
    "bench_cli", "bench_agent", "bench_chart", "bench_fuzz",
    "bench_backend",
)
# fmt: on
HEAD = """# Benchmarks

Written by `make bench`. A ratio is to the peer that its table names, in the same run: the median over blocks that take
turns. Absolute times are this machine's, of that minute, and its cores are shared with others; its load stands with
every part. What is said of CPU is CPU time. Goals are those of the journal's design. Of a peer that is "as noted" the
figures were measured before on a machine of this kind; the ratio is its cost divided by ours.
"""
KNOWN = """## Missed, and why

- **A recall that follows the hash chain as well.** `recall` itself does not: opening checks the newest facts, `verify`
  all of them. A fact's hash covers twelve fields as one text: following it costs as much as decoding the fact's JSON.
- **Opening after an unclean stop.** It is bounded rather than quick: before anything is written, SQLite's `quick_check`
  looks at a file of up to 64 MB (at none larger), and the chain is followed through the newest 5,000 facts of each
  lane. A proper stop leaves a mark, and spares that.
- **`--help`, to a narrower peer.** It is within its goal beside a program that imports all of the agent's modules;
  beside one that imports only the packages they use it is not. More than half of its CPU is typer's import.
"""


def measured(name: str) -> str:
    print(f"{name} ...", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{name} failed:\n{done.stderr}")
    print(f"{done.stdout}({time.monotonic() - began:.0f} s)\n", flush=True)
    return done.stdout


def main() -> None:
    asked = sys.argv[1:]
    parts = [measured(name) for name in NAMES if not asked or name in asked]
    if asked:
        return
    PAGE.write_text("\n".join((HEAD, *(part.rstrip() + "\n" for part in parts), KNOWN)), "utf-8")
    missed = sum(part.count("**missed**") for part in parts)
    print(f"written: {PAGE.relative_to(HERE.parent)}; goals missed: {missed}")


if __name__ == "__main__":
    main()
