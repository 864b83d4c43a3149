"""`python -m tests.fleet`: a fleet through a good and a bad rollout, and the engine's false halts; exit 1: a miss.

Every device is a real agent with a journal of its own and a simulated Supervisor, all of them at one real Cloudly, in
simulated time. What is not as in life is in `device.hurry_less`, `cloud.LOOK_S` and docs/rollouts.md.
"""

from __future__ import annotations

import argparse
import os
import sys

from interfaces.world import RealWorld, now_ms
from tests.fleet import verdict as verdicts
from tests.fleet.run import run
from tests.fleet.scenes import Asked
from tests.rollouts.seeds import false_halts

FEWEST = 20
MANY = 500
"""Fewer devices are quicker in one process, and the same seed plays the same story."""


def main() -> int:
    asked = _arguments()
    fleet = Asked(asked.devices, asked.seed, asked.rate)
    _tell(f"fleet: {fleet.devices} devices, seed {fleet.seed}, bad on {fleet.rate:.1%} of them")
    done = run(fleet, _tell, workers=asked.workers)
    verdict = verdicts.judge(done)
    if asked.runs:
        verdicts.check_false_halts(verdict, false_halts(range(asked.runs)), asked.runs)
    for line in (*verdicts.lines(verdict), *verdicts.faults(done)):
        _tell(line)
    _tell(verdicts.costs(done))
    _tell("verdict: every promise kept" if verdict.kept else "verdict: BROKEN")
    return 0 if verdict.kept else 1


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000, help="how many")
    parser.add_argument(
        "--seed", type=int, default=now_ms(RealWorld()) % 1_000_000, help="the same, the same story"
    )
    parser.add_argument("--rate", type=float, default=0.03, help="of devices that go wrong")
    parser.add_argument("--runs", type=int, default=1000, help="of the engine alone; 0: none")
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that hold the devices; 0: this one; by default one per core",
    )
    asked = parser.parse_args()
    if asked.workers is None:
        asked.workers = 0 if asked.devices < MANY else os.cpu_count() or 1
    if asked.devices < FEWEST:
        parser.error(f"--devices {asked.devices}: a fleet has at least {FEWEST}")
    if not 0 < asked.rate <= 1:
        parser.error(f"--rate {asked.rate}: a share, such as 0.03")
    if asked.runs < 0:
        parser.error(f"--runs {asked.runs}: how many, or 0")
    return asked


if __name__ == "__main__":
    sys.exit(main())
