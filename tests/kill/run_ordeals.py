"""`python -m tests.kill.run_ordeals power --times 200`: ordeals as a program; its exit code is the verdict.

`power` needs root and a loop device. A device is interrupted twelve times; with so many the next one begins.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random  # noqa: TID251 - when they are interrupted; the seed is printed
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.kill.loop_disk import LoopDisk
from tests.kill.ordeal import PATIENCE_S, Ordeal, Outcome, PowerCut, Sigkill
from tests.kill.plants import PLANTS

PER_DEVICE = 12
AT_ONCE = 3
"""An ordeal waits more than it computes."""


IMPATIENCE_S = 2.0
"""With a planted defect the end need not come: the interruptions have shown it."""


class NotHere(Exception):
    """A disk of its own needs root, mkfs.ext4 and a loop device."""


def one(root: Path, how: str, times: int, seed: str, plant: str = "") -> Outcome:
    """One device. Raises NotHere."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    patience_s = IMPATIENCE_S if plant else PATIENCE_S
    root.mkdir()
    if how == "kill":
        (root / "data").mkdir()
        killed = Sigkill(root / "data")
        return Ordeal(root, killed, rng, PLANTS[plant], patience_s).run(times)
    disk = LoopDisk(root / "disk.img", root / "disk")
    if problem := disk.make():
        raise NotHere(problem)
    try:
        return Ordeal(root, PowerCut(disk), rng, PLANTS[plant], patience_s).run(times)
    finally:
        disk.unmount()


def many(place: Path, how: str, times: int, seed: int, plant: str = "") -> list[Outcome]:
    """So many interruptions, spread over devices. Raises NotHere."""
    shares = [min(PER_DEVICE, times - n) for n in range(0, times, PER_DEVICE)]
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool:
        runs = [
            pool.submit(one, place / f"device-{n}", how, share, f"{seed}/{n}", plant)
            for n, share in enumerate(shares)
        ]
        return [run.result() for run in runs]


def in_words(how: str, seed: int, outcomes: Sequence[Outcome]) -> str:
    found_in = sum((outcome.found_in for outcome in outcomes), Counter[str]())
    wrong = [what for outcome in outcomes for what in outcome.wrong]
    happened, facts = (
        sum(o.interruptions for o in outcomes),
        sum(o.acknowledged for o in outcomes),
    )
    figures = (
        f"{how}, seed {seed}: {happened} interruptions of {len(outcomes)} devices, "
        f"{facts} acknowledged facts looked for, {len(wrong)} things wrong; "
        f"{sum(o.unasked for o in outcomes)} facts there that nobody had been told of"
    )
    where = ", ".join(f"{state} {times}" for state, times in found_in.most_common())
    return "\n".join([*wrong, figures, f"interrupted in: {where}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("how", choices=("kill", "power"))
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help="a planted defect")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    place = Path(tempfile.mkdtemp(prefix="ordeals-"))
    try:
        outcomes = many(place, asked.how, asked.times, seed, asked.plant)
    except NotHere as problem:
        print(f"{NotHere.__doc__} {problem}", file=sys.stderr)  # noqa: T201
        return 1
    print(in_words(asked.how, seed, outcomes))  # noqa: T201
    wrong = any(outcome.wrong for outcome in outcomes)
    if wrong:
        print(f"kept: {place}")  # noqa: T201
    else:
        shutil.rmtree(place)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
