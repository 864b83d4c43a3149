"""How long until the next look: pure functions of what happened so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interfaces.world import World

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 300.0
"""Offline for days is normal: five minutes between tries is 288 a day."""


def retry_s(misses: int, world: World, *, asked_s: float | None = None) -> float:
    """Seconds to wait after the `misses`-th failure in a row (1 = first): doubling, with jitter, capped.

    `asked_s`: what the other side asked for (Retry-After); never less than that.
    """
    ceiling: float = min(FIRST_RETRY_S * 2.0 ** min(misses - 1, 20), MAX_RETRY_S)
    own_s = ceiling * world.uniform(0.5, 1.0)
    return own_s if asked_s is None else max(own_s, asked_s * world.uniform(1.0, 1.1))


MAX_HEARTBEAT_S = 86_400.0
"""The longest interval that Cloudly's own settings allow: more is a mistake, and would be silence for ever."""


def next_heartbeat_s(every_s: float, world: World) -> float:
    """Seconds until the next heartbeat: the server's interval, with a tenth of jitter either way."""
    return min(every_s, MAX_HEARTBEAT_S) * world.uniform(0.9, 1.1)
