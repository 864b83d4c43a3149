"""What the API answers about rollouts: the same values as `cloudly rollout show --json`, named."""

from __future__ import annotations

from typing import Any

from cloudly.http.api.node_models import Why
from cloudly.http.api.paging import Shown


class Counted(Shown):
    """Nodes that were given the order, by what became of them."""

    granted: int
    in_flight: int
    succeeded: int
    """Proved by their journals, and not relapsed."""
    failed: int
    rolled_back: int
    overdue: int
    dark: int
    superseded: int
    """Given something else, moved or removed before it had an outcome: counts as nothing."""
    relapsed: int


class Turned(Shown):
    """Which rollout, and where it is."""

    rollout: int
    """Its number."""
    state: str
    version: str
    release: str
    """Its commit."""
    phase: str
    """The name of the present phase; empty: none was opened."""
    opened: int
    """How many phases were."""
    of_phases: int
    entered_at_ms: int
    """When it came into that state."""
    may: list[str]
    """What may be ordered now."""


class RolloutShown(Counted, Turned):
    unreadable: str = ""
    """Why this Cloudly cannot read its facts; then it counts nothing."""


class PhaseNamed(Shown):
    name: str
    size: str
    state: str
    """passed, to come, or the rollout's."""
    soak_s: int
    needs_approval: bool
    opened_at_ms: int | None
    passed_at_ms: int | None
    soak_until_ms: int | None


class PhaseShown(Counted, PhaseNamed):
    """A phase, and what became of its nodes."""


class FailureShown(Shown):
    outcome: str
    reason: str
    nodes: int
    example: str
    """The id of one of them."""


class RolloutDetail(RolloutShown):
    created_by: str
    approved_by: str
    by: str
    """Who turned it last: paused, halted, resumed, aborted, rolled back, refused."""
    reason: str
    selector: str
    phases: list[PhaseShown]
    evidence: str
    """What the outcomes say of the release, in words."""
    failures_to_halt: int | None
    """So many failures in all halt it, as things stand; null: it does not run."""
    failures: list[FailureShown]
    """The most frequent first, at most 20."""
    why: Why | None
    """What it waits for; null: it has ended."""
    plan: dict[str, Any]
    """`POST /rollouts` takes it as it is."""


class RolloutMade(RolloutDetail):
    warnings: list[str]
    """What works and is hardly meant."""


class EventShown(Shown):
    seq: int
    at_ms: int
    kind: str
    src: str
    dst: str
    """Empty: a note beside the story, which changes nothing."""
    says: str
    lease: int
    """Under which lease the leading process wrote it; 0: a person's order."""
    data: dict[str, Any]
    hash: str
    follows: bool
    """False: it, or the fact before it, was changed by hand, or one between is lost."""


class StepShown(Shown):
    seq: int
    at_ms: int
    kind: str
    state: str
    phase: int
    """From 0; -1 before the first."""
    changed: dict[str, Any]
    """What the fact changed of what was believed before it."""


class GrantShown(Shown):
    node_id: str
    hostname: str
    phase: int
    """From 0."""
    at_ms: int
    deployment: str
    outcome: str | None
    """Null: it is in flight."""
    outcome_at_ms: int | None
    reason: str


class PhaseTried(Shown):
    name: str
    size: str
    by_place: int
    """Nodes that come with this phase by selector or place."""
    nodes: list[str]
    """The ids of at most 100 of them."""
    of_any_place: int
    """And so many others, whoever comes first; they then are missing in a later phase."""
    failures_to_halt: int | None
    """So many failures, counted from the first phase on, halt it before its end; null: even all of them do not."""
    soak_s: int
    needs_approval: bool


class LeftOutShown(Shown):
    node_id: str
    no: list[str]
    why: str


class DryRunShown(Shown):
    """Every node is in one phase, or left out, or beyond the last phase."""

    phases: list[PhaseTried]
    left_out_nodes: int
    left_out_for: dict[str, int]
    """How many for each reason; a node may have several."""
    left_out: list[LeftOutShown]
    """At most 100 of them."""
    beyond_nodes: int
    """Selected, and of no phase by place: the plan ends before them."""
    soaks_s: int
    """What the soaks alone last."""
    warnings: list[str]
