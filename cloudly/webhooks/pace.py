"""When a delivery that failed is tried again, when others need not wait for it, and when it is given up. Pure.

Rules:
- The first retries are soon, for a receiver that was restarted; later ones are rare, for one that is gone.
- A delivery that failed holds up those behind it, for the sake of order, until it has failed `PATIENT` times: from then
  on it may be the event that the receiver cannot take, and steps aside.
- Three days after it was queued a delivery that fails is given up.
"""

from __future__ import annotations

from interfaces.world import World

STEPS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600)
"""After the first failure, the second, …; the last one stays. Standard Webhooks proposes 5 s to 24 h in ten steps."""
JITTER = 0.2
PATIENT = 4
"""13 minutes, all in all."""
GIVEN_UP_MS = 3 * 86_400_000
LONGEST_ASKED_S = 3600.0
"""A receiver may ask for more time (Retry-After), but not for this much."""


def wait_s(failures: int, world: World, asked_s: float | None = None) -> float:
    """From the failure, which was so many in a row, to the next attempt."""
    step = STEPS_S[min(failures, len(STEPS_S)) - 1]
    jittered = step * world.uniform(1 - JITTER, 1 + JITTER)
    return max(jittered, min(asked_s or 0.0, LONGEST_ASKED_S))


def holds_up(failures: int) -> bool:
    """Whether those behind it wait."""
    return failures < PATIENT


def is_given_up(queued_at_ms: int, now_ms: int) -> bool:
    return now_ms - queued_at_ms >= GIVEN_UP_MS
