"""What may be ordered of a rollout, a route each: who orders is the API token, and the reason stands in its story."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import Asked
from cloudly.http.api.rollout_models import RolloutShown
from cloudly.http.api.rollouts import RolloutNumber
from cloudly.http.api.texts import Note, Reason
from cloudly.rollouts import orders
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.plan import Plan
from cloudly.service.rollout_orders import Decide, Order, give
from cloudly.store.rollouts import listing

rollout_orders = Resource("rollouts")


class ForReason(Asked):
    reason: Reason
    """Why; whoever meets it will read it."""


class ForReasonOrNone(Asked):
    reason: Note = ""


class WithNote(Asked):
    note: Note = ""
    """Kept with the rollout's story."""


NO_NOTE = WithNote()
NO_REASON = ForReasonOrNone()


@rollout_orders.on("POST", "/rollouts/{rollout}/ask-approval", needs=Permission.ROLLOUTS_WRITE)
async def ask_approval(call: Called, rollout: RolloutNumber) -> RolloutShown:
    """Ask somebody to approve a draft."""
    decide = partial(_alone, orders.ask_approval, by=call.actor)
    return await _give(call, rollout, "approval-asked", "", decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/approve", needs=Permission.ROLLOUTS_APPROVE)
async def approve_rollout(
    call: Called, rollout: RolloutNumber, said: WithNote = NO_NOTE
) -> RolloutShown:
    """Say yes to one that waits for approval; where its plan wants a second person, who created it cannot."""
    decide = partial(orders.approve, by=call.actor, note=said.note)
    return await _give(call, rollout, "approved", said.note, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/refuse", needs=Permission.ROLLOUTS_APPROVE)
async def refuse_rollout(call: Called, rollout: RolloutNumber, said: ForReason) -> RolloutShown:
    """Say no to one that waits for approval: it is a draft again."""
    decide = partial(_alone, orders.refuse, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "refused", said.reason, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/approve-phase", needs=Permission.ROLLOUTS_APPROVE)
async def approve_phase(
    call: Called, rollout: RolloutNumber, said: WithNote = NO_NOTE
) -> RolloutShown:
    """Say yes to the phase that it waits for."""
    decide = partial(orders.approve_phase, by=call.actor, note=said.note)
    return await _give(call, rollout, "phase-approved", said.note, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/start", needs=Permission.ROLLOUTS_WRITE)
async def start_rollout(call: Called, rollout: RolloutNumber) -> RolloutShown:
    """The first phase opens, and nodes are let in as they check in."""
    return await _give(call, rollout, "started", "", partial(orders.start, by=call.actor))


@rollout_orders.on("POST", "/rollouts/{rollout}/pause", needs=Permission.ROLLOUTS_WRITE)
async def pause_rollout(call: Called, rollout: RolloutNumber, said: ForReason) -> RolloutShown:
    """Let nobody more in; what is in flight goes on."""
    decide = partial(_alone, orders.pause, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "paused", said.reason, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/resume", needs=Permission.ROLLOUTS_WRITE)
async def resume_rollout(
    call: Called, rollout: RolloutNumber, said: ForReasonOrNone = NO_REASON
) -> RolloutShown:
    """Go on after a pause; after a halt, with a reason, and the evidence starts afresh."""
    decide = partial(_alone, orders.resume, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "resumed", said.reason, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/halt", needs=Permission.ROLLOUTS_WRITE)
async def halt_rollout(call: Called, rollout: RolloutNumber, said: ForReason) -> RolloutShown:
    """Do what the evidence would do."""
    decide = partial(_alone, orders.halt, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "halted", said.reason, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/roll-back", needs=Permission.ROLLOUTS_WRITE)
async def roll_back(call: Called, rollout: RolloutNumber, said: ForReason) -> RolloutShown:
    """Turn every node that has the release back to what it ran well before."""
    decide = partial(_alone, orders.roll_back, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "rollback-ordered", said.reason, decide)


@rollout_orders.on("POST", "/rollouts/{rollout}/abort", needs=Permission.ROLLOUTS_WRITE)
async def abort_rollout(call: Called, rollout: RolloutNumber, said: ForReason) -> RolloutShown:
    """End it here: nobody more gets it, nobody is turned back, and it counts nothing more."""
    decide = partial(_alone, orders.abort, by=call.actor, reason=said.reason)
    return await _give(call, rollout, "aborted", said.reason, decide)


def _alone(order: Callable[..., Decision], rollout: Rollout, _: Plan, **said: Any) -> Decision:
    """An order that the plan has no say in."""
    return order(rollout, **said)


async def _give(call: Call, number: int, kind: str, said: str, decide: Decide) -> RolloutShown:
    order = Order(kind, call.actor, said, decide)
    told = await give(call.desk.store, number, order, now_ms=call.now_ms)
    return RolloutShown.model_validate(await call.read(partial(listing.line, told=told)))
