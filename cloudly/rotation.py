"""When a node is asked for a new node token. Pure.

Rules (docs/adr/0016):
- An operator asks for it, or its age does where a limit is set; the device draws it, and Cloudly never knows it.
- It is asked for in each answer to a heartbeat until the new one was used: then there is nothing to ask for.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class TokenAge:
    """The node token in use."""

    generation: int
    since_ms: int
    """Of its first use, or of the enrollment that made it."""
    asked_at_ms: int | None
    """When an operator asked for another."""


def wanted_generation(token: TokenAge, *, now_ms: int, most_days: float | None) -> int | None:
    """The generation that is to follow; None: the present one will do."""
    too_old = most_days is not None and now_ms - token.since_ms > most_days * DAY_MS
    return token.generation + 1 if token.asked_at_ms is not None or too_old else None
