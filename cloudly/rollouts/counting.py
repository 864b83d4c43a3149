"""What is counted: from what the leading process sees to one fact, and the grants that it closes itself.

Rules:
- One fact for all that was counted since the last one, however many nodes that were; of the bad outcomes it names the
  first `MOST_NAMED`, and how many more there were. The grants themselves are rows of the store.
- A node that is silent or late is counted here, never by the node: `Decision.closes` says which grants, and the store
  closes them in the transaction that writes the fact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counts import Counts, Outcome
from cloudly.rollouts.plan import Plan
from interfaces.why import duration

MOST_NAMED = 200
MOST_REASON = 100
"""Characters: 200 names with their reasons stay below what a fact may hold (journal.facts.MAX_DATA)."""


class Grant(NamedTuple):
    """One order of this rollout to a node that has been silent or without an outcome for long (`cutoffs`)."""

    node_id: str
    phase: int
    granted_at_ms: int
    heard_at_ms: int
    """When the node was last heard of; the check-in that was given the order counts."""
    succeeded: bool = False
    """It has succeeded, and is watched until its phase has passed."""


class Bad(NamedTuple):
    """One bad outcome, for the story."""

    node_id: str
    outcome: Outcome
    reason: str = ""


class Sweep(NamedTuple):
    """A count over the fleet, made now and then beside the hot path: whom the open phase still takes."""

    phase: int
    """The phase that was open when it began."""
    began_ms: int
    """One that began before the phase was opened, opened again, or widened tells nothing of it."""
    settled: int
    """How many grants of that phase had their outcome when it began. While a share phase has not its `at_least`,
    every bad outcome lets somebody else in, so a sweep from before it does not tell that nobody is left."""
    to_come: int
    """Nodes for which `admission.is_to_come` is true, but those that are dark now."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What the leading process sees, beside the facts."""

    counts: tuple[Counts, ...] = ()
    """Of each opened phase, as the check-ins have counted them."""
    bad: tuple[Bad, ...] = ()
    """The bad outcomes in `counts` that no fact has named yet."""
    quiet: tuple[Grant, ...] = ()
    """Grants in flight that `cutoffs` finds, and in the present phase those that succeeded and are silent."""
    sweep: Sweep | None = None
    """The newest count of who is still to come; None: none yet."""
    to_turn_back: int | None = None
    """In a rollback: nodes that were given the release, are not dark and do not run their last good one yet."""
    watched_ms: int = 0
    """When the last whole look at those who succeeded began: whoever was silent by then is in `quiet`, or was."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A grant whose outcome is decided here, because its node did not."""

    node_id: str
    phase: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A fact to write, and what must be changed with it in the same transaction."""

    kind: str
    data: Mapping[str, Any]
    closes: tuple[Closed, ...] = ()
    is_note: bool = False
    """Beside the story: written without a state, never folded."""


def cutoffs(plan: Plan, now_ms: int) -> tuple[int, int]:
    """Grants in flight made until the first, or not heard of since the second, belong into `Observed.quiet`."""
    return now_ms - plan.node_deadline_s * 1000, now_ms - plan.dark_after_s * 1000


def outcome_of(grant: Grant, plan: Plan, now_ms: int) -> Outcome | None:
    """Dark before overdue: who is silent has told nothing of being slow. None: it has time left.

    Silence counts from the order on, whether or not the node has confirmed it: a release that kills its node at once
    must be seen, and a node is only ever admitted while it speaks.
    """
    overdue_ms, dark_ms = cutoffs(plan, now_ms)
    if max(grant.granted_at_ms, grant.heard_at_ms) <= dark_ms:
        return Outcome.RELAPSED if grant.succeeded else Outcome.DARK
    if grant.granted_at_ms <= overdue_ms and not grant.succeeded:
        return Outcome.OVERDUE
    return None


def counted(rollout: Rollout, plan: Plan, observed: Observed, now_ms: int) -> Decision | None:
    """One fact for everything that was counted since the last one; None: nothing was."""
    closes = tuple(_closed(rollout, plan, observed, now_ms))
    more: dict[str, dict[str, int]] = {}
    for number, each in enumerate(rollout.slices):
        seen = observed.counts[number] if number < len(observed.counts) else each.counts
        for one in closes:
            if one.phase == number:
                seen = seen.with_outcome(one.outcome)
        changes = seen.less(each.counts)
        if changes:
            more[str(number)] = changes
    if not more:
        return None
    bad = [*observed.bad, *(Bad(one.node_id, one.outcome, one.reason) for one in closes)]
    named = [[one.node_id, one.outcome, one.reason[:MOST_REASON]] for one in bad[:MOST_NAMED]]
    data = {"phases": more, "failures": named, "unnamed": max(len(bad) - MOST_NAMED, 0)}
    return Decision("outcomes-counted", data, closes)


def _closed(rollout: Rollout, plan: Plan, observed: Observed, now_ms: int) -> Iterator[Closed]:
    for grant in observed.quiet:
        if grant.phase >= len(rollout.slices):
            continue
        outcome = outcome_of(grant, plan, now_ms)
        watched = rollout.slices[grant.phase].passed_at_ms is None
        watched = watched and plan.halt.dark_counts
        if outcome is None or (outcome is Outcome.RELAPSED and not watched):
            continue
        since_ms = grant.granted_at_ms if outcome is Outcome.OVERDUE else grant.heard_at_ms
        what = "no outcome" if outcome is Outcome.OVERDUE else "not heard of"
        yield Closed(
            grant.node_id, grant.phase, outcome, f"{what} for {duration(now_ms - since_ms)}"
        )


def late_outcome(node_id: str, outcome: Outcome, counted: Outcome | None) -> Decision:
    """The note of an outcome that came too late to be counted (`counts.hear`)."""
    data = {"node": node_id, "outcome": outcome, "counted_as": counted or ""}
    return Decision("late-outcome", data, is_note=True)
