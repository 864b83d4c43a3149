"""What it costs that a chart is a `transitions.Machine` used as a map, in one run.

usage: bench_chart.py     prints Markdown
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable
from itertools import pairwise

from benchmarks.yard import Row, table, title
from journal.chart import Arrow, Chart, Waits

WAITS = Waits("us", "the next one", None, "it comes", "go on")
STATES = ("idle", "offered", "staged", "applying", "succeeded")
CHART = Chart(
    name="bench",
    initial="idle",
    arrows=tuple(Arrow(f"to-{b}", a, b) for a, b in pairwise(STATES)),
    waits=dict.fromkeys(STATES[:-1], WAITS),
    final=frozenset({"succeeded"}),
)

WEIGHED = """
import time
spent = time.process_time()
print(spent, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""Not ru_maxrss: it counts the parent's memory from before exec."""


def program(body: str) -> tuple[float, float]:
    """CPU seconds and peak MB of a whole program, the median of 7."""
    seen = []
    for _ in range(7):
        text = f"{body}\n{WEIGHED}"
        run = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True
        )
        spent, peak = run.stdout.split()
        seen.append((float(spent), int(peak) / 1024))
    return statistics.median(s for s, _ in seen), statistics.median(p for _, p in seen)


def per_call(act: Callable[[], object]) -> float:
    return min(timeit.repeat(act, number=20_000, repeat=5)) / 20_000 * 1e6


def main() -> None:
    moves = {arrow.src: {arrow.kind: arrow.dst} for arrow in CHART.arrows}
    plain = per_call(lambda: moves["offered"]["to-staged"])
    ours = per_call(lambda: CHART.next("offered", "to-staged"))
    asked = per_call(lambda: CHART.machine.get_transitions("to-staged", "offered")[0].dest)
    without, small = program("import journal.chart, journal.journal")
    with_it, large = program("import journal.chart, journal.journal, transitions")
    title("chart")
    rows = [
        Row("Chart.next", f"{ours:.2f} us", f"{plain:.2f} us (a dict)", ours / plain),
        Row("Machine.get_transitions", f"{asked:.2f} us", f"{plain:.2f} us", asked / plain),
        Row(
            "a start with `transitions` loaded, to one without",
            f"{with_it * 1e3:.0f} ms CPU",
            f"{without * 1e3:.0f} ms CPU",
            with_it / without,
        ),
        Row("its peak memory", f"{large:.1f} MB", f"{small:.1f} MB", large / small),
    ]
    table("a chart as a Machine", "yardstick", rows)


if __name__ == "__main__":
    main()
