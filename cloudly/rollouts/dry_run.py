"""What a plan would do to the fleet as it is: per phase who, and who is left out and why. Nothing is written.

Rules:
- It asks the same functions as a check-in does (`membership`, `admission`), so it cannot tell another story; only what
  depends on who comes first is told as a number: the nodes of a count phase, and those of any place that a share phase
  lets in when it is widened. Nodes that fail or stay away are not foreseen.
- Each node stands in the first phase that takes it.
- Of a large fleet everybody is counted and only some are named (`Trial`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sized
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
    """Those that come with this phase by selector or place, as far as they are named; ids, sorted."""
    by_place: int
    """How many those are, named or not."""
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
    """As far as they are named."""
    beyond: tuple[str, ...]
    """Selected, and of no phase by place: the plan ends before them, though a count phase may take them."""
    soaks_s: int
    """What the soaks alone last."""
    left_out_for: Mapping[No, int]
    """How many nodes are left out for each reason; some for several."""
    left_out_nodes: int
    """How many are left out, named or not."""
    beyond_nodes: int


def dry_run(
    plan: Plan, nodes: Iterable[tuple[NodeView, Standing]], *, salt: str, now_ms: int
) -> DryRun:
    """`salt`: the rollout's own where it is created already; else any, and other nodes may come first."""
    trial = Trial(plan, salt=salt, now_ms=now_ms)
    for node, standing in nodes:
        trial.add(node, standing)
    return trial.told()


class Trial:
    """A dry run that is made node by node: what is kept of each is its id, and of at most `named` of a kind."""

    def __init__(self, plan: Plan, *, salt: str, now_ms: int, named: int | None = None) -> None:
        self._plan = plan
        self._salt = salt
        self._now_ms = now_ms
        self._named = named
        self._many: Counter[int | None] = Counter()
        self._by_phase: dict[int | None, list[str]] = {}
        self._left_out: list[LeftOut] = []
        self._left_out_nodes = 0
        self._left_out_for: Counter[No] = Counter()

    def add(self, node: NodeView, standing: Standing) -> None:
        """One node, and how it stands to the release."""
        noes = [
            one
            for one in objections(node, NOBODY_YET, self._plan, self._now_ms, standing)
            if one.no is not No.BETWEEN_PHASES
        ]
        if not noes:
            phase = first_phase(self._plan, node, self._salt)
            self._many[phase] += 1
            if self._names(self._by_phase.setdefault(phase, [])):
                self._by_phase[phase].append(node.node_id)
            return
        codes = tuple(one.no for one in noes if one.no is not None)
        self._left_out_nodes += 1
        self._left_out_for.update(codes)
        if self._names(self._left_out):
            why = "; ".join(one.why for one in noes)
            self._left_out.append(LeftOut(node.node_id, codes, why))

    def told(self) -> DryRun:
        """Of all that were added."""
        return DryRun(
            phases=_phases(self._plan, self._by_phase, self._many),
            left_out=tuple(sorted(self._left_out, key=lambda one: one.node_id)),
            beyond=tuple(sorted(self._by_phase.get(None, []))),
            soaks_s=sum(phase.soak_s for phase in self._plan.phases),
            left_out_for=dict(self._left_out_for.most_common()),
            left_out_nodes=self._left_out_nodes,
            beyond_nodes=self._many[None],
        )

    def _names(self, so_far: Sized) -> bool:
        return self._named is None or len(so_far) < self._named


def _phases(
    plan: Plan, named: Mapping[int | None, list[str]], many: Mapping[int | None, int]
) -> tuple[PhasePreview, ...]:
    """Of those of any place only as many as are there and not yet taken by an earlier phase."""
    previews: list[PhasePreview] = []
    total, taken = sum(many.values()), 0
    for number, phase in enumerate(plan.phases):
        own = many.get(number, 0)
        wanted = 0
        if phase.count is not None:
            wanted = phase.count - taken
        elif phase.share_bp is not None:
            wanted = phase.at_least - own
        others = max(0, min(wanted, total - taken - own))
        here = own + others
        previews.append(
            PhasePreview(
                name=phase.name,
                size=phase.size,
                nodes=tuple(sorted(named.get(number, ()))),
                by_place=own,
                of_any_place=others,
                failures_to_halt=failures_of(taken + here, plan.halt),
                soak_s=phase.soak_s,
                needs_approval=phase.needs_approval,
            )
        )
        taken += here
    return tuple(previews)
