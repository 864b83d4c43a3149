"""`python -m tests.faults.run_sweep`: the fault sweep as a program, with its verdict as exit code.

It compiles the failing disk, starts itself again with it, counts the calls of the undisturbed story, and lets the disk
fail at each of them (`sweep.py`). A bounded share: `--every 20` takes every 20th point, from an offset that the printed
seed decides. One point again: `--point EIO:17:once`.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import multiprocessing
import random  # noqa: TID251 - which points a bounded share takes; the seed is printed
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.faults.disk import compiled, is_loaded, with_it
from tests.faults.plants import PLANTS
from tests.faults.sweep import ERRNOS, Outcome, Point, run

AT_ONCE = 2


def main() -> int:
    asked = _asked()
    if not is_loaded():
        with tempfile.TemporaryDirectory() as place:
            again = [sys.executable, "-m", "tests.faults.run_sweep", *sys.argv[1:]]
            return subprocess.run(again, env=with_it(compiled(Path(place))), check=False).returncode
    logging.disable(logging.CRITICAL)
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    todo = [asked.point] if asked.point else points(asked.every, seed)
    outcomes = []
    for outcome in _each(todo, asked.plant):
        outcomes.append(outcome)
        if asked.plant and outcome.wrong:
            break  # the defect has shown itself
    if asked.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))  # noqa: T201
    return _tell(outcomes, seed)


def _each(todo: Sequence[Point], plant: str) -> Iterator[Outcome]:
    """Each in a process of its own, some at once. One that dies without a word is an outcome too."""
    waiting, running = list(reversed(todo)), dict[Connection, tuple[ForkProcess, Point]]()
    fork = multiprocessing.get_context("fork")
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            told, tell = fork.Pipe(duplex=False)
            point = waiting.pop()
            process = fork.Process(target=_run_and_tell, args=(tell, point, plant), daemon=True)
            process.start()
            tell.close()
            running[told] = process, point
        for ready in [told for told in wait(list(running)) if isinstance(told, Connection)]:
            process, point = running.pop(ready)
            try:
                outcome = ready.recv()
            except EOFError:
                outcome = None
            process.join()
            ended = f"its process ended with {process.exitcode} and without a word"
            yield outcome or Outcome(point, 0, 0, "", 0, [], [ended])


def _run_and_tell(tell: Connection, point: Point, plant: str) -> None:
    tell.send(run(point, plant))


def points(every: int, seed: int) -> list[Point]:
    """Every n-th point of each errno, once and for good, from an offset drawn for each."""
    rng, found = random.Random(seed), []  # noqa: S311 - not for secrets
    for code in ERRNOS:
        calls = run(Point(code, 0, for_good=False)).calls
        for for_good in (False, True):
            first = rng.randrange(min(every, calls)) + 1
            found += [Point(code, nth, for_good) for nth in range(first, calls + 1, every)]
    rng.shuffle(found)
    return found


def _tell(outcomes: Sequence[Outcome], seed: int) -> int:
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    for outcome in wrong:
        for what in outcome.wrong:
            print(f"{outcome.point} ({outcome.failed}): {what}", file=sys.stderr)  # noqa: T201
    by_errno = Counter(errno.errorcode[outcome.point.code] for outcome in outcomes)
    print(  # noqa: T201
        f"fault sweep, seed {seed}: {len(outcomes)} points ({dict(by_errno)}), "
        f"{sum(o.fired for o in outcomes)} calls failed, {sum(o.facts for o in outcomes)} facts written, "
        f"{sum(len(o.effects) for o in outcomes)} effects, {len(wrong)} points wrong",
        file=sys.stderr,
    )
    return 1 if wrong else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--every", type=int, default=1, help="take every n-th point")
    parser.add_argument("--seed", type=int, help="decides where each share begins")
    parser.add_argument(
        "--plant", choices=sorted(PLANTS), default="", help="a planted defect: until it shows"
    )
    parser.add_argument(
        "--point", type=_point, help="this one only: ERRNO:NTH:once or ERRNO:NTH:good"
    )
    parser.add_argument("--json", action="store_true", help="print every outcome")
    return parser.parse_args()


def _point(words: str) -> Point:
    code, nth, how = words.split(":")
    return Point(getattr(errno, code), int(nth), for_good=how == "good")


if __name__ == "__main__":
    sys.exit(main())
