"""How many traces the fuzzer runs: the real agent against the real Cloudly, per second and core.

usage: bench_fuzz.py [SECONDS]     default 30; prints Markdown
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

from benchmarks.yard import Row, table, title


def main() -> None:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "30"
    words = ["--seconds", seconds, "--seed", "1", "--jobs", str(os.cpu_count())]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words], capture_output=True, text=True, check=False
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"^(\d+) traces, (.*)$", done.stdout, re.MULTILINE)
    assert found, f"the fuzzer did not say what it did: {done.stderr}"
    traces = int(found[1])
    cpu_s = spent.ru_utime + spent.ru_stime
    title("fuzzer")
    print(f"Seed 1, {seconds} s, {os.cpu_count()} jobs: {found[0].rstrip(',')}.\n")
    rows = [
        Row("traces per second of CPU", f"{traces / cpu_s:.1f}"),
        Row("CPU for 100,000 traces", f"{100_000 * cpu_s / traces / 3_600:.1f} h of one core"),
    ]
    table("its speed", "yardstick", rows)


if __name__ == "__main__":
    main()
