"""Whether one node may have the release now: the decision of a check-in, and the reason of every no.

Rules:
- Nothing looks at any other node: a rollout's counters, the plan, the node and the time are all that is asked.
- The counters may be those of the database (`belief.with_counts`): the very failure that is enough stops admission,
  before the leading process has written `halted`.
- A grant is for good: a node that was given the order keeps it until its outcome, whatever becomes of its place, its
  labels or the window.
- `may_admit` says the first objection; `objections` says all of them, for people.

A check-in grants k nodes in one transaction, each with `may_admit` and `belief.granting` after each yes, and raises
the counters within `bounds` in the same statement: so two processes cannot both give the last place away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.evidence import judge, must_halt, sample
from cloudly.rollouts.membership import first_phase, in_phase, is_selected, place
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeState, NodeView
from cloudly.rollouts.windows import is_open, next_change_ms
from interfaces.why import when


class No(StrEnum):
    """Why not. Those of the rollout, then those of the node, then those of the phase, then those of the moment."""

    NOT_STARTED = "not-started"
    PAUSED = "paused"
    HALTED = "halted"
    FINISHED = "finished"
    BETWEEN_PHASES = "between-phases"
    NOT_SELECTED = "not-selected"
    HAS_IT = "has-it"
    GIVEN_ALREADY = "given-already"
    QUARANTINED = "quarantined"
    PINNED = "pinned"
    NEVER_AGAIN = "never-again"
    BANNED = "banned"
    UNPUBLISHED = "unpublished"
    BELOW_FLOOR = "below-floor"
    UPDATING = "updating"
    PHASE_FULL = "phase-full"
    NOT_IN_PHASE = "not-in-phase"
    EVIDENCE = "evidence"
    WINDOW_CLOSED = "window-closed"
    CONCURRENCY = "concurrency"


PASSING = frozenset({No.EVIDENCE, No.WINDOW_CLOSED, No.CONCURRENCY, No.UPDATING})
"""Objections that go by themselves: a node with only these is still to come."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node stands to this rollout's release. Empty text: it does not apply."""

    has_it: bool = False
    """It runs the release, by digest."""
    granted: bool = False
    """This rollout has given it the order, whatever became of that."""
    pinned: str = ""
    """What it, or its fleet, is pinned to."""
    never_again: str = ""
    """Why this release must never run on it again."""
    banned: str = ""
    """Why this release must never again be given to any node."""
    unpublished: str = ""
    """The channel that its fleet follows, and how the release stands there."""
    below_floor: str = ""
    """The version that it must run first."""


FREE = Standing()


@dataclass(frozen=True, slots=True)
class Admission:
    """Yes, in which phase; or no, why, and when that ends if a clock can tell."""

    phase: int
    """The phase of the grant; -1 when there is none."""
    no: No | None = None
    until_ms: int | None = None
    tell: Callable[[], str] = field(default=str, repr=False, compare=False)
    """Makes `why`: nearly every check-in during a canary is a no, and hardly any of them is read."""

    @property
    def why(self) -> str:
        """In words; empty: yes."""
        return self.tell()

    @property
    def admitted(self) -> bool:
        return self.no is None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the counters of all phases together must not exceed after a grant."""

    in_flight: int
    granted: int | None
    """Of a count phase; None: no bound."""


def may_admit(
    node: NodeView, rollout: Rollout, plan: Plan, now_ms: int, standing: Standing = FREE
) -> Admission:
    """Yes, or the first objection."""
    for objection in objections(node, rollout, plan, now_ms, standing):
        return objection
    return Admission(phase=rollout.phase)


def objections(
    node: NodeView, rollout: Rollout, plan: Plan, now_ms: int, standing: Standing = FREE
) -> Iterator[Admission]:
    """Every no, with its reason; none: it may have it."""
    yield from _of_rollout(rollout)
    yield from _of_node(node, plan, standing)
    if rollout.state == "admitting":
        yield from _of_phase(node, rollout, plan)
        yield from _of_moment(rollout, plan, now_ms)


def is_to_come(
    node: NodeView, rollout: Rollout, plan: Plan, now_ms: int, standing: Standing = FREE
) -> bool:
    """Whether the open phase still takes this node, now or when a passing objection has gone: what a sweep counts."""
    if rollout.state != "admitting":
        return False
    return all(one.no in PASSING for one in objections(node, rollout, plan, now_ms, standing))


def bounds(rollout: Rollout, plan: Plan) -> Bounds:
    """For the statement that raises the counters: the grant must not be made if either would be exceeded."""
    count = plan.phases[rollout.phase].count if rollout.phase >= 0 else None
    return Bounds(in_flight=plan.concurrency, granted=count)


def _no(no: No, tell: Callable[[], str], until_ms: int | None = None) -> Admission:
    return Admission(phase=-1, no=no, until_ms=until_ms, tell=tell)


def _of_rollout(rollout: Rollout) -> Iterator[Admission]:
    match rollout.state:
        case "admitting":
            return
        case "paused":
            yield _no(
                No.PAUSED, lambda: f"the rollout was paused by {rollout.by}: {rollout.reason}"
            )
        case "halted" | "rolling-back":
            yield _no(No.HALTED, lambda: f"the rollout is {rollout.state}: {rollout.reason}")
        case "deciding" | "settling" | "soaking" | "awaiting-phase-approval":
            yield _no(No.BETWEEN_PHASES, lambda: _between(rollout))
        case _ if rollout.is_final:
            yield _no(No.FINISHED, lambda: f"the rollout is {rollout.state}")
        case _:
            yield _no(No.NOT_STARTED, lambda: f"the rollout is not started ({rollout.state})")


def _between(rollout: Rollout) -> str:
    if not rollout.slices:
        return f"no phase is open yet ({rollout.state})"
    return f"phase {rollout.present.name!r} is filled ({rollout.state}); it comes with a later one"


def _of_node(node: NodeView, plan: Plan, standing: Standing) -> Iterator[Admission]:
    if not is_selected(plan, node):
        yield _no(No.NOT_SELECTED, lambda: f"it is not among {plan.selector}")
    if standing.granted:
        yield _no(No.GIVEN_ALREADY, lambda: "it was given this order before; a node is asked once")
    elif standing.has_it:
        yield _no(No.HAS_IT, lambda: "it runs this release already")
    if node.state == NodeState.QUARANTINED:
        yield _no(No.QUARANTINED, lambda: "it is quarantined")
    yield from _of_release(standing)
    if node.state == NodeState.UPDATING:
        yield _no(No.UPDATING, lambda: "another update of it is in progress")


def _of_release(standing: Standing) -> Iterator[Admission]:
    """What `cloudly.governance` says of this release on this node."""
    if standing.pinned:
        yield _no(No.PINNED, lambda: f"it is pinned: {standing.pinned}")
    if standing.never_again:
        yield _no(No.NEVER_AGAIN, lambda: f"never again on this node: {standing.never_again}")
    if standing.banned:
        yield _no(No.BANNED, lambda: f"never again anywhere: {standing.banned}")
    if standing.unpublished:
        yield _no(No.UNPUBLISHED, lambda: f"it may not have it: {standing.unpublished}")
    if standing.below_floor:
        floor = standing.below_floor
        yield _no(No.BELOW_FLOOR, lambda: f"it must run {floor} first, which no upgrade skips")


def _of_phase(node: NodeView, rollout: Rollout, plan: Plan) -> Iterator[Admission]:
    here = plan.phases[rollout.phase]
    if here.count is not None and rollout.granted >= here.count:
        yield _no(No.PHASE_FULL, lambda: f"phase {here.name!r} has its {here.count} nodes")
    widened = here.share_bp is not None and rollout.present.widened_at_ms is not None
    if widened and hoped_for(rollout) < here.at_least:
        return
    if not in_phase(plan, rollout.phase, node, rollout.salt):
        yield _no(No.NOT_IN_PHASE, lambda: _elsewhere(node, rollout, plan))


def hoped_for(rollout: Rollout) -> int:
    """Nodes of the present phase that have succeeded or may yet."""
    counts = rollout.present.counts
    return counts.succeeded + counts.in_flight


def _elsewhere(node: NodeView, rollout: Rollout, plan: Plan) -> str:
    here = plan.phases[rollout.phase]
    later = first_phase(plan, node, rollout.salt)
    then = "no phase takes it" if later is None else f"it comes with {plan.phases[later].name!r}"
    at = place(rollout.salt, node.node_id) / 100
    return f"phase {here.name!r} is {here.size}, its place is at {at:.2f} %; {then}"


def _of_moment(rollout: Rollout, plan: Plan, now_ms: int) -> Iterator[Admission]:
    if rollout.in_flight >= plan.concurrency:
        many = rollout.in_flight
        yield _no(No.CONCURRENCY, lambda: f"{many} nodes are in flight, as many as may be")
    if not is_open(plan.windows, now_ms):
        opens_ms = next_change_ms(plan.windows, now_ms)
        until = f"until {when(opens_ms)}" if opens_ms is not None else "for weeks"
        yield _no(No.WINDOW_CLOSED, lambda: f"no maintenance window is open {until}", opens_ms)
    seen = sample(rollout.counts, plan.halt, set_aside=rollout.set_aside)
    if must_halt(seen, plan.halt):
        why = "the rollout is about to be halted"
        yield _no(No.EVIDENCE, lambda: f"{why}: {judge(seen, plan.halt).why}")
