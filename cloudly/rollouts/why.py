"""Why a rollout is not finished: what it waits for, who owns that, since when, until when, and what then.

In the form of `interfaces.why.Answer`, so that `cloudly why` prints it in the words of the device's `baserunner why`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.engine import deadline_ms, evidence, soak_until_ms
from cloudly.rollouts.machine import CHART, NAME, RUNNING
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.windows import is_open, next_change_ms
from interfaces.why import when


@dataclass(frozen=True, slots=True)
class Why:
    """One rollout's answer, in words. Times in milliseconds since 1970."""

    stream: str
    state: str
    waits_for: str
    owner: str
    since_ms: int
    until_ms: int | None
    then: str
    resume: str
    reason: str
    tried: Sequence[str] = ()


def why(rollout: Rollout, plan: Plan, now_ms: int, *, tried: Sequence[str] = ()) -> Why | None:
    """The answer; None: it has ended and waits for nothing. `tried`: its last facts, in sentences (`words`)."""
    if rollout.is_final:
        return None
    waits = CHART.waits[rollout.state]
    return Why(
        stream=f"{NAME}/{rollout.rollout}",
        state=rollout.state,
        waits_for="; ".join((waits.waits_for, *_details(rollout, plan, now_ms))),
        owner=waits.owner,
        since_ms=rollout.entered_at_ms,
        until_ms=until_ms(rollout, plan),
        then=waits.then,
        resume=waits.resume,
        reason=_reason(rollout, plan),
        tried=tuple(tried),
    )


def until_ms(rollout: Rollout, plan: Plan) -> int | None:
    """When its state ends by itself; None: only somebody can end it."""
    match rollout.state:
        case "soaking":
            return soak_until_ms(rollout, plan)
        case "settling" | "rolling-back":
            return rollout.entered_at_ms + plan.node_deadline_s * 1000
        case _ if rollout.state in RUNNING:
            return deadline_ms(rollout, plan)
    return None


def _details(rollout: Rollout, plan: Plan, now_ms: int) -> list[str]:
    """What the state alone does not say: which phase, how far, and what stands in the way of everybody."""
    if not rollout.slices or rollout.state not in RUNNING:
        return []
    here = plan.phases[rollout.phase]
    counts = rollout.present.counts
    progress = (
        f"phase {rollout.phase + 1} of {len(plan.phases)}, {here.name} ({here.size}): {counts.granted} given the order,"
        f" {counts.in_flight} in flight, {counts.succeeded} succeeded, {counts.bad} failed"
    )
    details = [progress]
    if rollout.state == "admitting":
        details += _in_the_way(rollout, plan, now_ms)
    return details


def _in_the_way(rollout: Rollout, plan: Plan, now_ms: int) -> list[str]:
    ways = []
    if not is_open(plan.windows, now_ms):
        opens_ms = next_change_ms(plan.windows, now_ms)
        ways.append(
            f"no window is open until {when(opens_ms)}" if opens_ms else "no window is open"
        )
    if rollout.in_flight >= plan.concurrency:
        ways.append(f"{rollout.in_flight} nodes are in flight, as many as may be")
    if not rollout.granted:
        ways.append("no node of the phase has come yet")
    return ways


def _reason(rollout: Rollout, plan: Plan) -> str:
    if rollout.state == "awaiting-phase-approval":
        return rollout.approval_reason
    if rollout.state in {"paused", "halted", "rolling-back"} or (
        rollout.state == "draft" and rollout.reason
    ):
        return f"{rollout.by}: {rollout.reason}"
    return evidence(rollout, plan).why if rollout.counts.bad else ""
