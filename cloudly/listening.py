"""Since when this process listens to the nodes, so that nobody's silence counts from before that.

Rules:
- It listens from its first look on; after a gap between two looks it begins anew: the database was away, the machine
  slept, a clock was set. Who leads, or led before, does not matter: what it has seen it has seen itself.
- Whoever fell silent in a gap may only not have found Cloudly again: so long as `is_anew`, he is waited for.
"""

from __future__ import annotations

from cloudly.store.rollouts.observing import RETURN_BEATS, RETURN_MS
from interfaces.world import World, now_ms

GAP_MS = 60_000
"""Between two looks, of which there is one a second."""


class Listening:
    def __init__(self, world: World, *, heartbeat_every_s: float) -> None:
        self._world = world
        self.return_ms = max(RETURN_MS, int(RETURN_BEATS * heartbeat_every_s * 1000))
        """So long a node may need to come back."""
        self.since_ms = 0
        self._looked_at_ms = 0

    def look(self) -> int:
        """The present, at which somebody looks."""
        present_ms = now_ms(self._world)
        if present_ms - self._looked_at_ms > GAP_MS:
            self.since_ms = present_ms
        self._looked_at_ms = present_ms
        return present_ms

    def is_anew(self, present_ms: int) -> bool:
        return present_ms < self.since_ms + self.return_ms
