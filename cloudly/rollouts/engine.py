"""What the process that leads must write now: a pure step from what is believed and what is seen to the next facts.

Rules:
- The same arguments give the same decisions. Written and folded, they lead to a belief for which there is nothing more
  to write at that time: so a leader that dies after any of them is taken over by calling this again.
- Outcomes are counted first, then the evidence is asked, then the deadline, then the phase goes on. So a phase never
  passes over a failure that is already known.
- A share phase is filled when a sweep found nobody more to come. If fewer than its `at_least` have succeeded by then it
  is widened first: nodes of any place may come, until so many have, or nobody is left.
- A phase of which nobody succeeded never passes by itself: too few to halt by evidence, too bad to go on unseen.
- A soak that is over passes only when everybody who succeeded was looked at once more since then: where that takes
  several looks, it lasts as much longer.
"""

from __future__ import annotations

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision, Observed, Sweep, counted
from cloudly.rollouts.evidence import Evidence, judge, must_halt, sample
from cloudly.rollouts.machine import CHART, COUNTING, RUNNING, fold
from cloudly.rollouts.plan import Plan
from interfaces.why import duration
from journal.facts import Fact, Lane, canonical

BY = "cloudly"


def next_facts(
    rollout: Rollout, plan: Plan, observed: Observed, now_ms: int
) -> tuple[Decision, ...]:
    """Everything that is to be written now, in its order; nothing: there is nothing to do."""
    decisions: list[Decision] = []
    if rollout.state in COUNTING:
        count = counted(rollout, plan, observed, now_ms)
        if count is not None:
            decisions.append(count)
            rollout = foresee(rollout, count, now_ms)
    while (step := _step(rollout, plan, observed, now_ms)) is not None:
        decisions.append(step)
        rollout = foresee(rollout, step, now_ms)
    return tuple(decisions)


def foresee(rollout: Rollout, decision: Decision, now_ms: int) -> Rollout:
    """The belief once the decision is written; raises journal.problems.IllegalFact where the chart forbids it."""
    if decision.is_note:
        return rollout
    dst = CHART.next(rollout.state, decision.kind)
    text = canonical(decision.data)
    fact = Fact(Lane.CORE, 0, 0, "", decision.kind, rollout.state, dst, now_ms, "", 0, 0, text, b"")
    return fold(rollout, fact)


def evidence(rollout: Rollout, plan: Plan) -> Evidence:
    """What the outcomes say so far; after a resume, those since then."""
    return judge(sample(rollout.counts, plan.halt, set_aside=rollout.set_aside), plan.halt)


def _step(rollout: Rollout, plan: Plan, observed: Observed, now_ms: int) -> Decision | None:
    return _stop(rollout, plan, now_ms) or _go_on(rollout, plan, observed, now_ms)


def _stop(rollout: Rollout, plan: Plan, now_ms: int) -> Decision | None:
    if rollout.state in (*RUNNING, "paused"):
        seen = sample(rollout.counts, plan.halt, set_aside=rollout.set_aside)
        if must_halt(seen, plan.halt):
            return _halted("evidence", judge(seen, plan.halt).why)
    if rollout.state in RUNNING and now_ms >= deadline_ms(rollout, plan):
        return _halted("deadline", f"not done within {duration(plan.deadline_s * 1000)}")
    return None


def _go_on(rollout: Rollout, plan: Plan, observed: Observed, now_ms: int) -> Decision | None:
    match rollout.state:
        case "deciding":
            return _decide(rollout, plan)
        case "admitting":
            return _fill(rollout, plan, observed)
        case "settling" if rollout.in_flight == 0:
            return _settle(rollout)
        case "soaking" if now_ms >= soak_until_ms(rollout, plan) <= observed.watched_ms:
            words = evidence(rollout, plan).why
            return Decision("soak-passed", {"phase": rollout.phase, "evidence": words})
        case "rolling-back":
            return _turned_back(rollout, plan, observed, now_ms)
    return None


def deadline_ms(rollout: Rollout, plan: Plan) -> int:
    return rollout.running_since_ms + plan.deadline_s * 1000


def soak_until_ms(rollout: Rollout, plan: Plan) -> int:
    """When the soak of the present phase is over; only asked in `soaking`."""
    return (rollout.present.settled_at_ms or 0) + plan.phases[rollout.phase].soak_s * 1000


def _halted(why: str, reason: str) -> Decision:
    return Decision("halted", {"by": BY, "why": why, "reason": reason})


def _decide(rollout: Rollout, plan: Plan) -> Decision:
    if rollout.slices and rollout.present.passed_at_ms is None:
        return _open(rollout.phase, plan)
    number = rollout.phase + 1
    if number == len(plan.phases):
        return Decision("completed", {"evidence": evidence(rollout, plan).why})
    if plan.phases[number].needs_approval and number not in rollout.approved_phases:
        reason = f"the plan wants a yes to phase {plan.phases[number].name!r}"
        return Decision("phase-approval-asked", {"phase": number, "reason": reason})
    return _open(number, plan)


def _open(number: int, plan: Plan) -> Decision:
    return Decision("phase-opened", {"phase": number, "name": plan.phases[number].name})


def _fill(rollout: Rollout, plan: Plan, observed: Observed) -> Decision | None:
    """Nobody at all yet is not filled: an empty canary must not wave the next phase through."""
    here, present, counts = plan.phases[rollout.phase], rollout.present, rollout.present.counts
    filled = Decision("phase-filled", {"phase": rollout.phase})
    if here.count is not None and rollout.granted >= here.count:
        return filled
    sweep = observed.sweep
    if sweep is None or sweep.to_come or not _is_fresh(sweep, rollout):
        return None
    if here.share_bp is not None and counts.succeeded < here.at_least:
        if counts.in_flight or sweep.settled != counts.settled:
            return None
        if present.widened_at_ms is None:
            return Decision("phase-widened", {"phase": rollout.phase})
    return filled if rollout.granted else None


def _is_fresh(sweep: Sweep, rollout: Rollout) -> bool:
    """The sweep that widened a phase must not fill it in the same breath."""
    widened_at_ms = rollout.present.widened_at_ms
    return (
        sweep.phase == rollout.phase
        and sweep.began_ms >= rollout.present.opened_at_ms
        and (widened_at_ms is None or sweep.began_ms > widened_at_ms)
    )


def _settle(rollout: Rollout) -> Decision:
    here = rollout.present
    judged = here.counts.settled - here.counts.superseded
    good = here.counts.succeeded if judged else rollout.counts.succeeded
    if good:
        return Decision("settled", {"phase": rollout.phase})
    reason = (
        f"none of the {judged} nodes of phase {here.name!r} succeeded: too few to halt by evidence, too bad to go on"
        if judged
        else f"phase {here.name!r} has no node with an outcome, and none before it has one that succeeded"
    )
    return Decision("phase-approval-asked", {"phase": rollout.phase + 1, "reason": reason})


def _turned_back(rollout: Rollout, plan: Plan, observed: Observed, now_ms: int) -> Decision | None:
    left = observed.to_turn_back
    in_time = now_ms < rollout.entered_at_ms + plan.node_deadline_s * 1000
    if left is None or (left and in_time):
        return None
    return Decision("rolled-back", {"left": left})
