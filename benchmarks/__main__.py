"""`make bench` and `make bench-fleet`: run benchmarks, one after the other, and write their page in docs/.

usage: python -m benchmarks [device|fleet|NAME ...]     with names: these only, and nothing is written
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
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


FLEET_HEAD = """# Benchmarks of Cloudly

Written by `make bench-fleet`, which takes about half an hour, a million nodes in the tables. Client, servers and
database share the machine's two cores, so rates are low limits; a ratio is between servers that took turns in the same
run. A unit is two requests of one node, a heartbeat with news and a batch of five facts of about 200 bytes, both
durable before they are answered. Goals are those of the control plane's design.
"""


@dataclass(frozen=True)
class Page:
    file: str
    head: str
    names: tuple[str, ...]
    known: str = ""


# fmt: off
PAGES = {
    "device": Page("benchmarks.md", HEAD, (
        "bench_journal", "bench_card", "bench_growth", "bench_flash",
        "bench_cli", "bench_agent", "bench_chart", "bench_fuzz",
        "bench_backend", "bench_local_api",
    ), KNOWN),
    "fleet": Page("benchmarks-fleet.md", FLEET_HEAD, ("bench_heartbeats", "bench_admission", "bench_hour")),
}
# fmt: on


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
    asked = sys.argv[1:] or ["device"]
    if asked[0] not in PAGES:
        for name in asked:
            measured(name)
        return
    page = PAGES[asked[0]]
    parts = [measured(name) for name in page.names]
    told = (page.head, *(part.rstrip() + "\n" for part in parts), *filter(None, (page.known,)))
    (DOCS / page.file).write_text("\n".join(told), "utf-8")
    missed = sum(part.count("**missed**") for part in parts)
    print(f"written: docs/{page.file}; goals missed: {missed}")


if __name__ == "__main__":
    main()
