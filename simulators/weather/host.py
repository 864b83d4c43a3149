"""Weather inside the host: a wall clock that jumps, a disk that is full."""

from __future__ import annotations

import errno
import random  # noqa: TID251 - chance from a seed is what weather is
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from simulators.world import SimWorld

JUMPS: Final = (
    timedelta(days=-3650),
    timedelta(days=-1),
    timedelta(minutes=-5),
    timedelta(minutes=5),
    timedelta(days=3),
    timedelta(days=3650),
)
"""From the scenarios C1 to C5 of the reliability note: years back, a few days on, the edge of any leeway."""


@dataclass
class ClockJumps:
    """What `clock_jumps` did."""

    fired: int = 0
    by: list[timedelta] = field(default_factory=list)


async def clock_jumps(
    world: SimWorld, seed: int | str, *, every_s: tuple[float, float], seen: ClockJumps
) -> None:
    """Let the wall clock jump, for ever, now and then; `seen` counts."""
    chance = random.Random(f"{seed}/clock")  # noqa: S311 - a simulation's
    while True:
        await world.sleep(chance.uniform(*every_s))
        by = chance.choice(JUMPS)
        world.jump(by)
        seen.fired += 1
        seen.by.append(by)


def no_space() -> Exception:
    return OSError(errno.ENOSPC, "No space left on device")


@dataclass
class FullDisk:
    """A switch: while it is full, whoever passes one of its points fails as a write would.

    `point` fits the journal's `points`, which is called around every commit.
    """

    error: Callable[[], Exception] = no_space
    full: bool = False
    fired: int = 0

    def fill(self) -> None:
        self.full = True

    def free(self) -> None:
        self.full = False

    def point(self, name: str) -> None:
        """Raises `error()` while the disk is full, before anything is committed."""
        if self.full and name.startswith("before-commit:"):
            self.fired += 1
            raise self.error()
