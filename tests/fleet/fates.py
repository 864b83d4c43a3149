"""Who fares how with which release: drawn from the seed, before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from simulators.supervisor import Behaviour
from simulators.world import SimWorld


class Fate(StrEnum):
    """What a release does on one device."""

    WELL = "well"
    CRASHES = "crashes"
    """Its service stops again and again: the health check fails, and it is turned back."""
    NEVER_STARTS = "never starts"
    """Its container is made and cannot be started: the apply fails, and it is turned back."""
    NO_IMAGE = "no image"
    """The registry refuses it here: the download fails, and the old release stays."""
    KILLS = "kills"
    """The device is dead from the moment that the release starts: nobody hears of it again."""


BEHAVIOURS: Mapping[Fate, Behaviour] = {
    Fate.CRASHES: Behaviour.CRASH_AFTER_START,
    Fate.NEVER_STARTS: Behaviour.NEVER_STARTS,
    Fate.NO_IMAGE: Behaviour.PULL_FAILS,
}
SHARES = ((Fate.CRASHES, 0.5), (Fate.NEVER_STARTS, 0.1), (Fate.NO_IMAGE, 0.2), (Fate.KILLS, 0.2))
"""Of the bad ones."""


@dataclass(frozen=True, slots=True)
class Fates:
    """`rates`: by commit, the probability that a device fares badly with that release."""

    seed: int | str
    rates: Mapping[str, float]

    def of(self, number: int, commit: str) -> Fate:
        """The same for the same seed, device and release, whoever asks in which order."""
        drawn = SimWorld(f"{self.seed}/fate/{commit}/{number}").uniform(0.0, 1.0)
        rate = self.rates[commit]
        if drawn >= rate:
            return Fate.WELL
        left = drawn / rate
        for fate, share in SHARES:
            left -= share
            if left < 0:
                return fate
        return SHARES[-1][0]
