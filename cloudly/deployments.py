"""What a node's report does to a deployment: a pure fold over the states of its `app-update` streams.

Rules:
- Finished is finished: once closed, no report changes anything, however late or loud.
- A deployment that needed a rollback can no longer succeed; it can only end otherwise.
- The effects (a new last good release, turning the target back) happen once, with the report that causes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MACHINE = "app-update/"
"""Streams of this machine carry deployments."""

ORDERED = "ordered"
SUCCEEDED = "succeeded"
ROLLBACK_NEEDED = "rollback-needed"
ROLLED_BACK = "rolled-back"
FAILED = "failed"
ENDS = frozenset({SUCCEEDED, FAILED, ROLLED_BACK, "superseded"})


class Effect(StrEnum):
    NONE = "none"
    GOOD = "good"
    """Its release is the node's last good one now."""
    TURN_BACK = "turn-back"
    """Its release must never run on this node again; the target goes back."""
    BACK = "back"
    """The rollback it needed is done, by the same attempt: that order is carried out."""
    RETREAT = "retreat"
    """It was given up before anything was applied; the target goes back, or the Supervisor would try it by itself."""
    STUCK = "stuck"
    """The rollback it needed failed too: somebody has to look."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The order to one node, as far as the fold is concerned."""

    deployment: str
    release: int
    state: str
    needs_rollback: bool
    closed: bool


def fold(deployment: Deployment, reached: str) -> tuple[Deployment, Effect]:
    """The deployment after its stream has reached that state, and what must follow."""
    if deployment.closed:
        return deployment, Effect.NONE
    if reached == ROLLBACK_NEEDED:
        effect = Effect.NONE if deployment.needs_rollback else Effect.TURN_BACK
        return replace(deployment, state=reached, needs_rollback=True), effect
    if reached == SUCCEEDED:
        if deployment.needs_rollback:
            return deployment, Effect.NONE
        return replace(deployment, state=reached, closed=True), Effect.GOOD
    return replace(deployment, state=reached, closed=reached in ENDS), _after_rollback(
        deployment, reached
    )


def _after_rollback(deployment: Deployment, reached: str) -> Effect:
    if not deployment.needs_rollback:
        return Effect.RETREAT if reached == FAILED else Effect.NONE
    return {ROLLED_BACK: Effect.BACK, FAILED: Effect.STUCK}.get(reached, Effect.NONE)
