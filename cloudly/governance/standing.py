"""How a node stands to a release: everything that speaks against it, with how to lift it. Every order asks this.

Rules:
- A banned release is given to nobody by anybody; nothing overrules that but `unban`.
- Then the pin, the channel that the fleet follows, and the floors; each is lifted where it was set, not by a flag.
- The node's own never-again is the operator's to overrule, for that node, with `--again`.
- None but the ban speaks against the way back to the last good release: a node must get back to what worked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudly.governance.floors import Place, Way, first_of
from cloudly.governance.pins import Pin, in_force, objection
from cloudly.rollouts.admission import Standing


@dataclass(frozen=True, slots=True)
class Follows:
    """The channel that a node's fleet follows, and the release's place in it."""

    channel: str
    place: Place | None

    def unpublished(self, version: str) -> str:
        """Why the fleet may not have the release; empty: it may."""
        where = f"its fleet follows the channel {self.channel}, and release {version} is"
        ends = f"`cloudly channel show {self.channel}` says what it offers"
        if self.place is None:
            return f"{where} not in it; {ends}"
        if self.place.withdrawn:
            return f"{where} withdrawn there; {ends}"
        return "" if self.place.published else f"{where} not published there yet; {ends}"


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of one node and one release."""

    release: int
    version: str
    runs: int | None
    """Its last good release."""
    banned: str = ""
    never_again: str = ""
    own_pin: Pin | None = None
    fleet_pin: Pin | None = None
    follows: Follows | None = None
    ways: tuple[Way, ...] = ()

    @property
    def runs_it(self) -> bool:
        return self.runs == self.release


def standing(known: Known, now_ms: int) -> Standing:
    """All of it. Whether a rollout has given the order is the rollout's to add."""
    pin = in_force(known.own_pin, known.fleet_pin, now_ms)
    way = first_of(known.ways)
    return Standing(
        has_it=known.runs_it,
        pinned=objection(pin, known.release, known.runs),
        never_again=known.never_again,
        banned=known.banned,
        unpublished=known.follows.unpublished(known.version) if known.follows else "",
        below_floor=way.words if way else "",
    )


def refusals(stands: Standing) -> Iterator[str]:
    """Every reason that no flag overrules, the gravest first."""
    if stands.banned:
        yield stands.banned
    if stands.pinned:
        yield f"it is pinned {stands.pinned}"
    if stands.unpublished:
        yield stands.unpublished
    if stands.below_floor:
        yield f"it must run {stands.below_floor} first, which no upgrade skips"
