"""Which release comes first: a floor is one that no upgrade may skip, because data must be migrated step by step.

Rules:
- Order is `seq`, the place in the channel; a version string never decides.
- Only what is published counts. A floor that was withdrawn or banned still is one: nothing passes it until an operator
  says `floor off`, for the data below it still has to be migrated.
- A node that never ran a release of the channel has nothing to migrate: it may begin anywhere.
- The way down passes no floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A release in a channel."""

    seq: int
    release: int
    version: str
    published: bool
    withdrawn: bool = False
    floor: bool = False

    @property
    def offered(self) -> bool:
        return self.published and not self.withdrawn


@dataclass(frozen=True, slots=True)
class Way:
    """From what a node ran last of a channel to a release of it."""

    channel: str
    ran: int | None
    """The `seq` of it; None: it never ran any."""
    to: int
    floors: tuple[Place, ...]

    @property
    def first(self) -> Place | None:
        """The floor that comes first; None: the way is free."""
        ran = self.ran
        if ran is None:
            return None
        between = (one for one in self.floors if one.published and ran < one.seq < self.to)
        return min(between, key=lambda one: one.seq, default=None)

    @property
    def words(self) -> str:
        """The version that must be run first, and what is to be known of it; empty: the way is free."""
        floor = self.first
        if floor is None:
            return ""
        stuck = (
            f", withdrawn: `cloudly channel floor {self.channel} {floor.version} off` frees the way"
        )
        return f"{floor.version} (a floor of {self.channel}{stuck if floor.withdrawn else ''})"


def first_of(ways: Iterable[Way]) -> Way | None:
    """The first way that a floor is on."""
    return next((way for way in ways if way.first is not None), None)
