"""What an operator may order of a rollout: each order is one fact, or a refusal that says why.

Rules:
- An order that the state does not allow is refused with what may be ordered instead; nothing is written.
- Every turn has a name beside it, and a reason where somebody will ask for one: pause, halt, resume, rollback, abort.
- Where the plan wants a second person, who created the rollout approves neither it nor a phase of it.
"""

from __future__ import annotations

from typing import Any

from cloudly.governance import people
from cloudly.problems import BadOrder
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.machine import CHART
from cloudly.rollouts.plan import Plan

ORDERS = {
    "approval-asked": "ask for approval",
    "approved": "approve",
    "refused": "refuse",
    "started": "start",
    "phase-approved": "approve the phase",
    "paused": "pause",
    "resumed": "resume",
    "halted": "halt",
    "rollback-ordered": "roll back",
    "aborted": "abort",
}
"""The facts that a person may cause, as orders."""


STANDING = {
    "approval-asked": "awaiting-approval",
    "approved": "approved",
    "paused": "paused",
    "halted": "halted",
    "rollback-ordered": "rolling-back",
    "aborted": "aborted",
}
"""Orders that last, and the state in which each of them stands."""


def create(  # noqa: PLR0913 - all of them are the rollout's identity
    plan: Plan, *, rollout: str, release: str, version: str, salt: str, by: str
) -> Decision:
    """`rollout`: its number. `salt`: drawn by the caller (`interfaces.world.new_id`), hex."""
    data: dict[str, Any] = {
        "rollout": rollout,
        "release": release,
        "version": version,
        "salt": salt,
        "by": people.person(by),
        "plan": plan.text(),
        "needs_approval": plan.needs_approval,
    }
    return Decision("created", data)


def ask_approval(rollout: Rollout, *, by: str) -> Decision:
    return _order(rollout, "approval-asked", by=by)


def approve(rollout: Rollout, plan: Plan, *, by: str, note: str = "") -> Decision:
    _must_be_another(rollout, plan, by)
    return _order(rollout, "approved", by=by, note=people.note(note, "note"))


def refuse(rollout: Rollout, *, by: str, reason: str) -> Decision:
    return _order(rollout, "refused", by=by, reason=_said(reason, "refuse", "reason"))


def start(rollout: Rollout, plan: Plan, *, by: str) -> Decision:
    """A plan that wants approval starts only when approved."""
    if rollout.state == "draft" and plan.needs_approval:
        raise BadOrder(
            f"start rollout {rollout.rollout}: its plan wants an approval; ask for approval first"
        )
    return _order(rollout, "started", by=by)


def approve_phase(rollout: Rollout, plan: Plan, *, by: str, note: str = "") -> Decision:
    """The yes that `awaiting-phase-approval` waits for; after the last phase, to its completion."""
    _must_be_another(rollout, plan, by)
    return _order(
        rollout, "phase-approved", by=by, phase=rollout.phase + 1, note=people.note(note, "note")
    )


def pause(rollout: Rollout, *, by: str, reason: str) -> Decision:
    return _order(rollout, "paused", by=by, reason=_said(reason, "pause", "reason"))


def resume(rollout: Rollout, *, by: str, reason: str = "") -> Decision:
    """After a halt the evidence starts afresh, so that needs a reason; after a pause it need not."""
    said = (
        _said(reason, "resume", "reason")
        if rollout.state == "halted"
        else people.note(reason, "reason")
    )
    return _order(rollout, "resumed", by=by, reason=said)


def halt(rollout: Rollout, *, by: str, reason: str) -> Decision:
    """What the evidence would do, by a person's judgement."""
    return _order(rollout, "halted", by=by, why="order", reason=_said(reason, "halt", "reason"))


def roll_back(rollout: Rollout, *, by: str, reason: str) -> Decision:
    return _order(rollout, "rollback-ordered", by=by, reason=_said(reason, "roll back", "reason"))


def abort(rollout: Rollout, *, by: str, reason: str) -> Decision:
    """Nobody more gets it and nobody is turned back; what is in flight goes on and is no longer counted."""
    return _order(rollout, "aborted", by=by, reason=_said(reason, "abort", "reason"))


def stands(rollout: Rollout, kind: str, *, by: str, said: str) -> bool:
    """Whether that very order is the last one that was given: by the same person, in the same words."""
    if STANDING.get(kind) != rollout.state:
        return False
    if kind == "approved":
        return (rollout.approved_by, rollout.reason) == (by, said)
    return rollout.by == by and (kind == "approval-asked" or rollout.reason == said)


def possible(rollout: Rollout) -> tuple[str, ...]:
    """The orders that the state allows, in words."""
    return tuple(words for kind, words in ORDERS.items() if kind in CHART.allowed(rollout.state))


def _order(rollout: Rollout, kind: str, *, by: str, **data: Any) -> Decision:
    if kind not in CHART.allowed(rollout.state):
        may = ", ".join(possible(rollout)) or "nothing"
        raise BadOrder(
            f"{ORDERS[kind]} rollout {rollout.rollout}: it is {rollout.state}; now one may: {may}"
        )
    return Decision(kind, {"by": people.person(by), **data})


def _must_be_another(rollout: Rollout, plan: Plan, by: str) -> None:
    if plan.second_person and people.key(by) == people.key(rollout.created_by):
        raise BadOrder(
            f"approve rollout {rollout.rollout}: {by} created it, and its plan wants a second person"
        )


def _said(text: str, order: str, what: str) -> str:
    if not text.strip():
        raise BadOrder(f"{order}: say the {what}; it is kept with the rollout's story")
    return people.note(text, what)
