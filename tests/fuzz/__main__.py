"""Many traces: `python -m tests.fuzz --seconds 60 --seed 1 --jobs 2`. A seed that failed is run again with `--only`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from interfaces.world import RealWorld, now_ms
from tests.fuzz.trace import Trace, run_trace

SHARE = 25
REAL = RealWorld()


def main() -> int:
    asked = _arguments()
    logging.disable(logging.CRITICAL)
    if asked.only is not None:
        _tell(run_trace(asked.only, keep=True))
        return 0
    print(f"fuzz: seed {asked.seed}, {asked.traces} traces or {asked.seconds:g} s", flush=True)  # noqa: T201
    done, bad = run_many(asked.seed, asked.traces, asked.seconds, asked.jobs)
    print(summary(done), flush=True)  # noqa: T201
    for trace in bad[:5]:
        _tell(trace)
    return 1 if bad else 0


def run_many(seed: int, traces: int, seconds: float, jobs: int) -> tuple[list[Trace], list[Trace]]:
    """All traces that were run, and those with a fault."""
    until = REAL.monotonic() + seconds
    done: list[Trace] = []
    with ProcessPoolExecutor(jobs) as pool:
        shares = iter(range(seed, seed + traces, SHARE))
        running = {
            pool.submit(_share, first, until)
            for first, _ in zip(shares, range(jobs * 2), strict=False)
        }
        while running:
            for ended in as_completed(running):
                running.remove(ended)
                done += ended.result()
                first = next(shares, None)
                if first is not None and REAL.monotonic() < until:
                    running.add(pool.submit(_share, first, until))
                break
    return done, [trace for trace in done if not trace.verdict.ok]


def _share(first: int, until: float) -> list[Trace]:
    logging.disable(logging.CRITICAL)
    done = []
    for seed in range(first, first + SHARE):
        if REAL.monotonic() >= until:
            break
        try:
            done.append(run_trace(seed))
        except Exception as error:  # noqa: BLE001 - a trace that ends in an error is a finding
            trace = Trace(seed)
            trace.verdict.faults.append(f"{type(error).__name__}: {error}"[:2000])
            done.append(trace)
    return done


def summary(done: list[Trace]) -> str:
    befell: Counter[str] = Counter()
    for trace in done:
        befell.update(trace.befell)
    verdicts = [trace.verdict for trace in done]
    lost = sum(len(v.faults) for v in verdicts)
    stuck = sum(not v.drained for v in verdicts)
    return (
        f"{len(done)} traces, {sum(v.durable for v in verdicts)} durable facts: {lost} faults, {stuck} queues that "
        f"never drained, {sum(v.shown_as_gaps for v in verdicts)} facts shown as gaps, "
        f"{sum(v.unknowable for v in verdicts)} that nobody outside the disk knew of\n"
        f"what befell: {dict(befell.most_common())}"
    )


def _tell(trace: Trace) -> None:
    verdict = trace.verdict
    print(f"\nseed {trace.seed}: {'drained' if verdict.drained else 'NOT DRAINED'}", flush=True)  # noqa: T201
    for line in [*trace.story, *verdict.faults[:10]]:
        print(f"  {line}", flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=now_ms(REAL) % 1_000_000_000)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="one seed, told step by step")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
