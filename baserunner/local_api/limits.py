"""How much a peer may ask: token buckets, one for each peer and one for all. Pure: `now_s` is an argument.

Rules:
- Who may not ask at all has a bucket of his own: he cannot use up what neighbours have.
- One peer alone cannot use up what all have together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PEER_RATE, PEER_BURST = 20.0, 40.0
"""A neighbour that follows an update asks once a second; at a start it asks several things at once."""
ALL_RATE, ALL_BURST = 50.0, 100.0
STRANGER_RATE, STRANGER_BURST = 2.0, 5.0
"""So often a stranger is told that he is one."""
TAKE_IN_RATE, TAKE_IN_BURST = 500.0, 64.0
"""Connections that are looked at, whoever they are from. Beyond that they wait in the kernel, which is free."""
MOST_CONNECTIONS, MOST_OF_A_PEER = 8, 4
"""At once. A request takes milliseconds: who has four open either floods or hangs, and others still get in."""


@dataclass
class Bucket:
    """`rate` a second, `burst` at once."""

    rate: float
    burst: float
    _left: float = field(init=False)
    _at_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._left = self.burst

    def fill(self, now_s: float) -> float:
        """What is left in it now."""
        self._left = min(self.burst, self._left + max(0.0, now_s - self._at_s) * self.rate)
        self._at_s = now_s
        return self._left

    def take(self, now_s: float) -> bool:
        """Whether there was one to take."""
        if self.fill(now_s) < 1:
            return False
        self._left -= 1
        return True


@dataclass
class Limits:
    """What is left for whom. A peer is a uid; None: who came over loopback."""

    _all: Bucket = field(default_factory=lambda: Bucket(ALL_RATE, ALL_BURST))
    _strangers: Bucket = field(default_factory=lambda: Bucket(STRANGER_RATE, STRANGER_BURST))
    _peers: dict[int | None, Bucket] = field(default_factory=dict)

    def may_ask(self, peer: int | None, now_s: float) -> bool:
        """`peer`: one that may ask at all, so that there are few."""
        own = self._peers.setdefault(peer, Bucket(PEER_RATE, PEER_BURST))
        return own.take(now_s) and self._all.take(now_s)

    def may_be_told(self, now_s: float) -> bool:
        """Whether a stranger gets an answer."""
        return self._strangers.take(now_s)
