"""Rollouts: list, one in full, its story, its nodes; plan one, and try a plan on the fleet as it is."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

from fastapi import Path, Query

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Limit, Page, page_of
from cloudly.http.api.plan_models import NewRollout, PlanTried
from cloudly.http.api.rollout_models import (
    DryRunShown,
    EventShown,
    GrantShown,
    RolloutDetail,
    RolloutMade,
    RolloutShown,
    StepShown,
)
from cloudly.http.api.turns import Turns
from cloudly.rollouts.plan import Plan
from cloudly.service import rollout_orders
from cloudly.service import rollouts as service
from cloudly.store.releases import find_release

rollouts = Resource("rollouts")

TRYING = Turns(2, "dry runs are being made")

RolloutNumber = Annotated[
    int, Path(alias="rollout", ge=1, le=2**53, description="Its number, as `GET /rollouts` has it.")
]
OpenWanted = Annotated[
    bool | None, Query(alias="open", description="Only those that have not ended, or that have.")
]
Outcome = Literal[
    "in-flight", "succeeded", "failed", "rolled_back", "overdue", "dark", "superseded", "relapsed"
]
OutcomeWanted = Annotated[Outcome | None, Query(description="Only nodes with that outcome.")]


@rollouts.on("GET", "/rollouts", needs=Permission.ROLLOUTS_READ)
async def list_rollouts(
    call: Called, after: AfterNumber = None, limit: Limit = 100, is_open: OpenWanted = None
) -> Page[RolloutShown]:
    """The newest first."""
    found, following = await service.listed(
        call.desk.store, after=after, limit=limit, is_open=is_open
    )
    items = [RolloutShown.model_validate(one) for one in found]
    return Page(items=items, next=None if following is None else str(following))


@rollouts.on("POST", "/rollouts", needs=Permission.ROLLOUTS_WRITE, status=201)
async def create_rollout(call: Called, new: NewRollout) -> RolloutMade:
    """A draft, or with `start` one that runs. Asked twice it is made twice: abort the one that is too many."""
    plan, salt = new.plan.plan, call.new_id()
    ask = rollout_orders.Ask(new.release, plan, new.policy.model_dump_json(), call.actor, new.start)
    told = await call.write(
        lambda db: rollout_orders.create(db, ask, salt=salt, now_ms=call.now_ms)
    )
    call.desk.store.rollouts.told(told)
    shown = await _in_full(call, told.number)
    return RolloutMade(**shown.model_dump(), warnings=list(plan.warnings()))


@rollouts.on("POST", "/rollouts/dry-run", needs=Permission.ROLLOUTS_READ)
async def try_plan(call: Called, tried: PlanTried) -> DryRunShown:
    """What a plan would do to the fleet as it is: per phase who, and who is left out and why. Nothing is written.

    It asks every node, some 100 µs each: a second for 10,000 of them.
    """
    plan = tried.plan.plan
    release = await call.read(lambda db: find_release(db, tried.release))
    return await _tried(call, plan, release, 0, call.new_id())


@rollouts.on("GET", "/rollouts/{rollout}", needs=Permission.ROLLOUTS_READ)
async def get_rollout(call: Called, rollout: RolloutNumber) -> RolloutDetail:
    """Its phases, the evidence, what failed, what it waits for, and what may be ordered."""
    return await _in_full(call, rollout)


@rollouts.on("GET", "/rollouts/{rollout}/dry-run", needs=Permission.ROLLOUTS_READ)
async def try_rollout(call: Called, rollout: RolloutNumber) -> DryRunShown:
    """The same of one that there is; its places are its own, so these are the nodes that come first."""
    told = await service.asked(call.desk.store, rollout, lambda _, known: known)
    return await _tried(call, told.plan, told.release, told.number, told.believed.salt)


@rollouts.on("GET", "/rollouts/{rollout}/events", needs=Permission.ROLLOUTS_READ)
async def list_events(
    call: Called, rollout: RolloutNumber, after: AfterNumber = None, limit: Limit = 100
) -> Page[EventShown]:
    """Its story, the oldest fact first. The chain is whole where every fact `follows`."""
    ask = partial(service.events, number=rollout, after=after or 0, limit=limit + 1)
    shown, following = page_of(await call.read(ask), limit, lambda one: one["seq"])
    items = [
        EventShown.model_validate(one | {"src": one["from"], "dst": one["to"]}) for one in shown
    ]
    return Page(items=items, next=following)


@rollouts.on("GET", "/rollouts/{rollout}/replay", needs=Permission.ROLLOUTS_READ)
async def replay(
    call: Called, rollout: RolloutNumber, after: AfterNumber = None, limit: Limit = 100
) -> Page[StepShown]:
    """Its facts folded once more: what was believed after each, the oldest first."""
    steps = await service.replayed(call.desk.store, rollout, after=after or 0, limit=limit + 1)
    shown, following = page_of(steps, limit, lambda one: one["seq"])
    return Page(items=[StepShown.model_validate(one) for one in shown], next=following)


@rollouts.on("GET", "/rollouts/{rollout}/nodes", needs=Permission.ROLLOUTS_READ)
async def list_nodes_of_rollout(
    call: Called,
    rollout: RolloutNumber,
    after: AfterNumber = None,
    limit: Limit = 100,
    outcome: OutcomeWanted = None,
) -> Page[GrantShown]:
    """Who was given the order, and what became of it. A page may be short, or empty, and yet have a `next`."""
    wanted = "" if outcome == "in-flight" else outcome
    found, following = await service.nodes(
        call.desk.store, rollout, outcome=wanted, after=after or 0, limit=limit
    )
    items = [GrantShown.model_validate(one | {"node_id": one["node"]}) for one in found]
    return Page(items=items, next=None if following is None else str(following))


async def _in_full(call: Call, number: int) -> RolloutDetail:
    return RolloutDetail.model_validate(await service.in_full(call.desk.store, number, call.now_ms))


async def _tried(call: Call, plan: Plan, release: int, number: int, salt: str) -> DryRunShown:
    with TRYING.turn():
        done = await service.tried(
            call.desk.store, plan, release, number=number, salt=salt, now_ms=call.now_ms
        )
    return DryRunShown.model_validate(asdict(done) | {"warnings": list(plan.warnings())})
