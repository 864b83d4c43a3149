"""What holds a node to a release, and until when.

Rules:
- A node's own pin wins over its fleet's, also when it is the laxer one.
- A pin without a release holds a node to what it runs. One that runs nothing yet is held to nothing.
- A pin ends by itself at `until_ms`. It holds nobody back from the way back to what worked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from interfaces.why import when


class Scope(StrEnum):
    NODE = "node"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Pin:
    """A hold on one release, or on whatever a node runs."""

    scope: Scope
    name: str
    """Of the node or of the fleet."""
    release: int | None
    """None: whatever it runs."""
    version: str
    by: str
    reason: str
    until_ms: int | None

    def holds(self, now_ms: int) -> bool:
        return self.until_ms is None or now_ms < self.until_ms

    @property
    def words(self) -> str:
        """To what, with whom, by whom, why, how long, and how it is lifted: after `it is pinned`."""
        whose = "" if self.scope is Scope.NODE else f" with its fleet {self.name}"
        return f"to {self.version or 'what it runs'}{whose} {self.origin}"

    @property
    def origin(self) -> str:
        until = "" if self.until_ms is None else f", until {when(self.until_ms)}"
        lift = f"`cloudly unpin {self.scope} {self.name}` lifts it"
        return f"by {self.by} ({self.reason}){until}; {lift}"


def in_force(own: Pin | None, of_fleet: Pin | None, now_ms: int) -> Pin | None:
    """The one that counts."""
    for pin in (own, of_fleet):
        if pin is not None and pin.holds(now_ms):
            return pin
    return None


def held_to(pin: Pin | None, runs: int | None) -> int | None:
    """The release that a node is held to; None: it is free."""
    if pin is None:
        return None
    return runs if pin.release is None else pin.release


def objection(pin: Pin | None, release: int, runs: int | None) -> str:
    """Why the node may not have that release; empty: it may."""
    held = held_to(pin, runs)
    return "" if pin is None or held is None or held == release else pin.words
