"""The rollout machine: the order to a fleet, from its draft to its end. Pure.

Laws:
- A rollout is one stream of facts, `rollout/<number>`; this belief is their fold, and nothing else is.
- Phases open one after the other and never close again: a phase is opened, filled, settled, soaked, passed.
- Nothing is admitted but in `admitting`. In `paused`, `halted`, `rolling-back` and the final states nothing ever is.
- Every grant has one outcome; it is counted once, in the phase of its grant (`counts`). Outcomes are counted in every
  state that is not final, paused and halted too: what is in flight goes on.
- `deciding` lasts a tick: the engine opens the next phase, asks for its approval, or completes. After a pause or a halt
  the rollout goes on from there: the phase that was open is opened again, settled again and soaked again.
- Finished is finished: the final states have no way out. What comes in later is a note beside the story.

Data of the facts (JSON), written by `engine` (e) and `orders` (o):
    created               o  rollout, release, version, salt, by, plan (as JSON text), needs_approval
    approval-asked        o  by
    approved              o  by, note
    refused               o  by, reason
    started               o  by
    phase-opened          e  phase, name
    outcomes-counted      e  phases: {phase: {count: how many more}}, failures: [[node, outcome, reason]], unnamed
    phase-widened         e  phase
    phase-filled          e  phase
    settled               e  phase
    soak-passed           e  phase, evidence (in words)
    phase-approval-asked  e  phase, reason
    phase-approved        o  phase, by, note
    paused, resumed       o  by, reason
    halted                e  reason, why: "evidence" | "deadline", by: "cloudly"   or   o  the same of a person
    rollback-ordered      o  by, reason
    rolled-back           e  left (nodes that have not gone back by now)
    aborted               o  by, reason
    completed             e  evidence (in words)

Beside the story, as notes that are never folded:
    late-outcome          engine.late_outcome: node, outcome, counted_as (empty: it was in flight at the end)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudly.rollouts.belief import FINAL, Rollout, Slice
from journal.chart import Arrow, Chart, Waits
from journal.facts import Fact
from journal.recall import Machine

NAME = "rollout"
RUNNING = ("deciding", "admitting", "settling", "soaking", "awaiting-phase-approval")
"""States in which a rollout goes on by itself, or would if somebody said yes."""
RESTING = ("awaiting-phase-approval", "paused", "halted")
"""States in which there is a fact to write only when an outcome comes, a node falls silent or the deadline passes."""
COUNTING = (*RUNNING, "paused", "halted", "rolling-back")
OPEN = ("draft", "awaiting-approval", "approved", *COUNTING)

# fmt: off
CHART = Chart(
    name=NAME,
    initial="new",
    arrows=(
        #     fact                    from                       to
        Arrow("created",              "new",                     "draft"),
        Arrow("approval-asked",       "draft",                   "awaiting-approval"),
        Arrow("approved",             "awaiting-approval",       "approved"),
        Arrow("refused",              "awaiting-approval",       "draft"),
        Arrow("started",              "draft",                   "deciding"),
        Arrow("started",              "approved",                "deciding"),
        Arrow("phase-opened",         "deciding",                "admitting"),
        Arrow("phase-widened",        "admitting",               "admitting"),
        Arrow("phase-filled",         "admitting",               "settling"),
        Arrow("settled",              "settling",                "soaking"),
        Arrow("soak-passed",          "soaking",                 "deciding"),
        Arrow("phase-approval-asked", "deciding",                "awaiting-phase-approval"),
        Arrow("phase-approval-asked", "settling",                "awaiting-phase-approval"),
        Arrow("phase-approved",       "awaiting-phase-approval", "deciding"),
        Arrow("completed",            "deciding",                "completed"),
        Arrow("resumed",              "paused",                  "deciding"),
        Arrow("resumed",              "halted",                  "deciding"),
        Arrow("rolled-back",          "rolling-back",            "rolled-back"),
        Arrow("halted",               "paused",                  "halted"),
        Arrow("rollback-ordered",     "paused",                  "rolling-back"),
        Arrow("rollback-ordered",     "halted",                  "rolling-back"),
        *(Arrow("paused",             state,                     "paused")       for state in RUNNING),
        *(Arrow("halted",             state,                     "halted")       for state in RUNNING),
        *(Arrow("rollback-ordered",   state,                     "rolling-back") for state in RUNNING),
        *(Arrow("outcomes-counted",   state,                     state)          for state in COUNTING),
        *(Arrow("aborted",            state,                     "aborted")      for state in OPEN),
    ),
    waits={
        #                                 owner       waits for                                                       deadline  then                                              resume
        "new":                     Waits("cloudly",  "the rollout to be written",                                    None, "it is a draft",                                   "nothing was created"),
        "draft":                   Waits("operator", "somebody to start it, or to ask for its approval",             None, "nothing happens to any node",                     "as it was"),
        "awaiting-approval":       Waits("operator", "somebody to approve or refuse it",                             None, "nothing happens to any node",                     "as it was"),
        "approved":                Waits("operator", "somebody to start it",                                         None, "nothing happens to any node",                     "as it was"),
        "deciding":                Waits("cloudly",  "the leading process to say what comes next",                   None, "a phase opens, or all is done",                   "whoever leads decides from the facts"),
        "admitting":               Waits("nodes",    "the nodes of the phase to ask",                                None, "the rollout is halted",                           "the counters say who was admitted; the others ask again"),
        "settling":                Waits("nodes",    "an outcome of every node in flight",                           None, "a node without one counts as overdue or dark",    "the counters say which outcomes are in"),
        "soaking":                 Waits("cloudly",  "the soak to pass without too many relapses",                   None, "the phase has passed",                            "the soak goes on: it ends at a time, not after a wait"),
        "awaiting-phase-approval": Waits("operator", "somebody to approve the next phase",                           None, "the rollout is halted",                           "as it was"),
        "paused":                  Waits("operator", "somebody to resume it, roll it back or abort it",              None, "nobody is admitted; what is in flight goes on",   "as it was"),
        "halted":                  Waits("operator", "somebody to look, and to roll it back, abort it or resume it", None, "nobody is admitted; what is in flight goes on",   "as it was"),
        "rolling-back":            Waits("nodes",    "every node that has the release to run its last good one",     None, "it ends without the nodes that are still missing", "the nodes' orders say who was turned back"),
    },
    final=FINAL,
)
# fmt: on


def fold(believed: Rollout, fact: Fact) -> Rollout:
    """The belief after the fact; the data of each kind is said above."""
    after = _fold(believed, fact.kind, fact.values, fact.at_ms)
    if fact.dst == believed.state:
        return after
    return replace(after, state=fact.dst, entered_at_ms=fact.at_ms)


def _fold(believed: Rollout, kind: str, values: Mapping[str, Any], at_ms: int) -> Rollout:
    match kind:
        case "created":
            return Rollout(
                rollout=values["rollout"],
                release=values["release"],
                version=values["version"],
                salt=values["salt"],
                created_by=values["by"],
                needs_approval=values["needs_approval"],
            )
        case "approved":
            return replace(believed, approved_by=values["by"], reason=values["note"])
        case "started":
            return replace(believed, running_since_ms=at_ms, by=values["by"], reason="")
        case "phase-opened":
            return _opened(believed, values, at_ms)
        case "outcomes-counted":
            return replace(believed, slices=_counted(believed.slices, values["phases"]))
        case "phase-widened" | "phase-filled" | "settled" | "soak-passed":
            return _present(believed, **{_MARKS[kind]: at_ms})
        case "phase-approval-asked":
            return replace(believed, approval_reason=values["reason"])
        case "phase-approved":
            return _approved(believed, values["phase"], at_ms)
        case _:
            return _turned(believed, kind, values, at_ms)


_MARKS = {
    "phase-widened": "widened_at_ms",
    "phase-filled": "filled_at_ms",
    "settled": "settled_at_ms",
    "soak-passed": "passed_at_ms",
}


def _turned(believed: Rollout, kind: str, values: Mapping[str, Any], at_ms: int) -> Rollout:
    """Somebody, or the evidence, gave it another turn."""
    turned = replace(
        believed, by=values.get("by", believed.by), reason=values.get("reason", believed.reason)
    )
    match kind:
        case "halted":
            return replace(turned, halts=believed.halts + 1)
        case "resumed":
            fresh = believed.counts if believed.state == "halted" else believed.set_aside
            return replace(turned, running_since_ms=at_ms, set_aside=fresh)
        case "rolled-back":
            return replace(believed, left=values["left"])
        case "approval-asked" | "refused" | "paused" | "rollback-ordered" | "aborted":
            return turned
        case "completed":
            return believed
    raise ValueError(f"unknown fact {kind!r}")


def _opened(believed: Rollout, values: Mapping[str, Any], at_ms: int) -> Rollout:
    """The next phase; or the present one again, after a pause or a halt: its counts stay."""
    number = values["phase"]
    fresh = Slice(name=values["name"], opened_at_ms=at_ms)
    believed = replace(believed, approval_reason="")
    if number == believed.phase:
        again = replace(fresh, counts=believed.present.counts)
        return replace(believed, slices=(*believed.slices[:-1], again))
    if number != believed.phase + 1:
        raise ValueError(f"phase {number} cannot follow phase {believed.phase}")
    return replace(believed, slices=(*believed.slices, fresh))


def _counted(slices: tuple[Slice, ...], more: Mapping[str, Mapping[str, int]]) -> tuple[Slice, ...]:
    counted = list(slices)
    for number, counts in more.items():
        before = counted[int(number)]
        after = before.counts.plus(counts)
        if not after.is_possible:
            raise ValueError(f"phase {number} cannot have counts of {after}")
        counted[int(number)] = replace(before, counts=after)
    return tuple(counted)


def _approved(believed: Rollout, phase: int, at_ms: int) -> Rollout:
    """The yes to a phase is the yes to what came before it, too."""
    passed = believed if believed.phase < 0 else _present(believed, passed_at_ms=at_ms)
    return replace(passed, approved_phases=(*believed.approved_phases, phase), approval_reason="")


def _present(believed: Rollout, **changes: int) -> Rollout:
    return replace(believed, slices=(*believed.slices[:-1], replace(believed.present, **changes)))  # type: ignore[arg-type]


MACHINE = Machine(chart=CHART, start=Rollout(), fold=fold)
