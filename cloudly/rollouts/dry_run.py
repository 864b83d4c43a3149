"""What a plan would do to the fleet as it is: per phase who, and who is left out and why. Nothing is written.

Rules:
- It asks the same functions as a check-in does (`membership`, `admission`), so it cannot tell another story; only what
  depends on who comes first is told as a number: the nodes of a count phase, and those of any place that a share phase
  lets in when it is widened. Nodes that fail or stay away are not foreseen.
- Each node stands in the first phase that takes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloudly.rollouts.admission import No, Standing, objections
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.evidence import failures_of
from cloudly.rollouts.membership import first_phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView

NOBODY_YET = Rollout(state="deciding")


@dataclass(frozen=True, slots=True)
class PhasePreview:
    """One phase of the plan, on these nodes."""

    name: str
    size: str
    nodes: tuple[str, ...]
    """Those that come with this phase by selector or place; ids, sorted."""
    of_any_place: int
    """And so many others, whoever comes first; they then are missing in a later phase."""
    failures_to_halt: int | None
    """So many failures, counted from the first phase on, halt it before its end; None: even all of them do not."""
    soak_s: int
    needs_approval: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A node that the rollout would not give the release to, and every reason."""

    node_id: str
    no: tuple[No, ...]
    why: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would happen. Every node is in one phase, or left out, or beyond the last phase."""

    phases: tuple[PhasePreview, ...]
    left_out: tuple[LeftOut, ...]
    beyond: tuple[str, ...]
    """Selected, and of no phase by place: the plan ends before them, though a count phase may take them."""
    soaks_s: int
    """What the soaks alone last."""


def dry_run(
    plan: Plan, nodes: Iterable[tuple[NodeView, Standing]], *, salt: str, now_ms: int
) -> DryRun:
    """`salt`: the rollout's own where it is created already; else any, and other nodes may come first."""
    left_out: list[LeftOut] = []
    by_phase: dict[int | None, list[str]] = {}
    for node, standing in nodes:
        noes = [
            one
            for one in objections(node, NOBODY_YET, plan, now_ms, standing)
            if one.no is not No.BETWEEN_PHASES
        ]
        if noes:
            codes = tuple(one.no for one in noes if one.no is not None)
            left_out.append(LeftOut(node.node_id, codes, "; ".join(one.why for one in noes)))
        else:
            by_phase.setdefault(first_phase(plan, node, salt), []).append(node.node_id)
    return DryRun(
        phases=_phases(plan, by_phase),
        left_out=tuple(sorted(left_out, key=lambda one: one.node_id)),
        beyond=tuple(sorted(by_phase.get(None, []))),
        soaks_s=sum(phase.soak_s for phase in plan.phases),
    )


def _phases(plan: Plan, by_phase: dict[int | None, list[str]]) -> tuple[PhasePreview, ...]:
    """Of those of any place only as many as are there and not yet taken by an earlier phase."""
    previews: list[PhasePreview] = []
    total, taken = sum(map(len, by_phase.values())), 0
    for number, phase in enumerate(plan.phases):
        own = tuple(sorted(by_phase.get(number, ())))
        wanted = 0
        if phase.count is not None:
            wanted = phase.count - taken
        elif phase.share_bp is not None:
            wanted = phase.at_least - len(own)
        others = max(0, min(wanted, total - taken - len(own)))
        here = len(own) + others
        previews.append(
            PhasePreview(
                name=phase.name,
                size=phase.size,
                nodes=own,
                of_any_place=others,
                failures_to_halt=failures_of(taken + here, plan.halt),
                soak_s=phase.soak_s,
                needs_approval=phase.needs_approval,
            )
        )
        taken += here
    return tuple(previews)
