"""A fleet in pure Python for the rules of a rollout: no database, no sockets, seeded chance, time that jumps.

What a store would do is done here in its plainest form: counters per phase, a row per grant, a list of facts.
Failures are reported sooner than successes, as they are in life.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from cloudly.rollouts import orders
from cloudly.rollouts.admission import PASSING, Standing, hoped_for, is_to_come, may_admit
from cloudly.rollouts.belief import Rollout, granting, with_counts
from cloudly.rollouts.counting import Bad, Decision, Grant, Observed, Sweep, cutoffs
from cloudly.rollouts.counts import NOTHING, Counts, Outcome, hear
from cloudly.rollouts.engine import foresee, next_facts, soak_until_ms
from cloudly.rollouts.machine import MACHINE
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView
from journal.facts import Fact, Lane, canonical
from simulators.world import SimWorld

T0 = 1_795_000_000_000
"""November 2026."""
MINUTE = 60_000


def fleet(count: int) -> list[NodeView]:
    return [NodeView(node_id=f"node-{number:06}") for number in range(count)]


@dataclass
class Row:
    """A grant as a store keeps it."""

    node: str
    phase: int
    granted_at_ms: int
    heard_at_ms: int
    outcome: Outcome | None = None


@dataclass
class Simulation:
    """One rollout over one fleet. `bad_rate`: the share of nodes that fail; `how`: in which way."""

    seed: int
    plan: Plan
    nodes: list[NodeView]
    bad_rate: float
    how: Outcome = Outcome.FAILED
    every_ms: int = 0
    """How often the leading process looks; 0: after every outcome."""
    now_ms: int = T0
    rollout: Rollout = field(default_factory=Rollout)
    facts: list[Fact] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    ends: list[tuple[int, str, Outcome]] = field(default_factory=list)
    unnamed: list[Bad] = field(default_factory=list)
    notes: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = SimWorld(self.seed)
        self.salt = self.world.random_bytes(16).hex()
        self._asking: list[NodeView] = []
        self._outside: list[NodeView] = []
        """Asked in this phase, and not of it."""
        self._sweep: Sweep | None = None
        self._in_flight: dict[str, Row] = {}
        self._order(
            orders.create(
                self.plan, rollout="1", release="c0ffee", version="2.0", salt=self.salt, by="anna"
            )
        )
        self._order(orders.start(self.rollout, self.plan, by="anna"))

    def run(self, *, most_events: int = 100_000) -> Rollout:
        """Until it ends or is halted."""
        for _ in range(most_events):
            self.tick()
            if self.rollout.is_final or self.rollout.state == "halted":
                return self.rollout
            self.check_ins()
            self.wait()
        raise AssertionError(f"seed {self.seed}: no end after {most_events} events: {self.rollout}")

    def tick(self, *, write_at_most: int | None = None) -> None:
        """What the leading process does. It may die after having written so many facts."""
        observed = self.observed()
        for decision in next_facts(self.rollout, self.plan, observed, self.now_ms)[:write_at_most]:
            self.write(decision)

    def observed(self) -> Observed:
        return Observed(
            counts=tuple(self.counts),
            bad=tuple(self.unnamed),
            quiet=tuple(self._quiet()),
            sweep=self._sweep,
            watched_ms=self.now_ms,
        )

    @property
    def live(self) -> Rollout:
        return with_counts(self.rollout, self.counts)

    def standing(self, node: NodeView) -> Standing:
        return Standing(granted=node.node_id in self.rows)

    def check_ins(self) -> None:
        """Every node asks, in the order of the fleet; the first no that holds for all ends the round."""
        if self.rollout.state != "admitting":
            return
        live = self.live
        asking, self._asking = self._asking, []
        widened = live.present.widened_at_ms is not None
        if widened and hoped_for(live) < self.plan.phases[live.phase].at_least:
            asking, self._outside = asking + self._outside, []
        phase, settled = live.phase, live.present.counts.settled
        self._sweep = Sweep(phase, self.now_ms, settled, 0)
        for number, node in enumerate(asking):
            said = may_admit(node, live, self.plan, self.now_ms, self.standing(node))
            if said.admitted:
                live = granting(live)
                self._grant(node, said.phase)
            elif said.no in PASSING:
                self._asking = asking[number:]
                self._sweep = Sweep(phase, self.now_ms, settled, len(self._asking))
                break
            else:
                self._outside.append(node)

    def sweep(self) -> int:
        """The count that a store would make, node by node; `_sweep` is the same, or a lower bound above zero."""
        return sum(
            is_to_come(node, self.live, self.plan, self.now_ms, self.standing(node))
            for node in self.nodes
        )

    def wait(self) -> None:
        """Until the next outcome, or else until time itself changes something."""
        if self.ends:
            self.now_ms = max(self.now_ms + self.every_ms, self.ends[0][0])
            while self.ends and self.ends[0][0] <= self.now_ms:
                _, node, outcome = heappop(self.ends)
                self.report(node, outcome)
        elif self.rollout.state == "soaking":
            self.now_ms = max(self.now_ms + 1, soak_until_ms(self.rollout, self.plan))
        else:
            self.now_ms += 10 * MINUTE
        if self.how is Outcome.OVERDUE:
            for row in self._in_flight.values():
                row.heard_at_ms = self.now_ms

    def report(self, node: str, outcome: Outcome) -> None:
        """A node's journal proves an outcome."""
        row = self.rows[node]
        passed = self.rollout.slices[row.phase].passed_at_ms is not None
        heard = hear(
            outcome, counted=row.outcome, is_final=self.rollout.is_final, phase_has_passed=passed
        )
        if heard.counts_as is not None:
            row.outcome = heard.counts_as
            self._in_flight.pop(node, None)
            self.counts[row.phase] = self.counts[row.phase].with_outcome(heard.counts_as)
            if heard.counts_as not in {Outcome.SUCCEEDED, Outcome.SUPERSEDED}:
                self.unnamed.append(Bad(node, heard.counts_as, "as simulated"))

    def write(self, decision: Decision) -> None:
        """The store's one transaction: the fact, the grants that it closes, the counters."""
        before = self.rollout
        self.rollout = foresee(before, decision, self.now_ms)
        text = canonical(decision.data)
        number = len(self.facts) + 1
        self.facts.append(
            Fact(
                Lane.CORE, number, number, "rollout/1", decision.kind, before.state,
                self.rollout.state, self.now_ms, "boot", 0, 0, text, b"",
            )
        )  # fmt: skip
        for closed in decision.closes:
            self.rows[closed.node_id].outcome = closed.outcome
            self._in_flight.pop(closed.node_id, None)
            self.counts[closed.phase] = self.counts[closed.phase].with_outcome(closed.outcome)
        if decision.kind == "outcomes-counted":
            self.unnamed.clear()
        if decision.kind == "phase-opened":
            if decision.data["phase"] == len(self.counts):
                self.counts.append(NOTHING)
            self._asking = [node for node in self.nodes if node.node_id not in self.rows]
            self._outside, self._sweep = [], None

    def refolded(self) -> Rollout:
        """The belief from the facts alone."""
        believed = MACHINE.start
        for fact in self.facts:
            assert fact.dst == MACHINE.chart.next(believed.state, fact.kind)
            believed = MACHINE.fold(believed, fact)
        return believed

    def _order(self, decision: Decision) -> None:
        self.write(decision)

    def _grant(self, node: NodeView, phase: int) -> None:
        row = Row(node.node_id, phase, self.now_ms, self.now_ms)
        self.rows[node.node_id] = self._in_flight[node.node_id] = row
        self.counts[phase] = self.counts[phase].plus({"granted": 1})
        is_bad = self.world.uniform(0.0, 1.0) < self.bad_rate
        if is_bad and self.how in {Outcome.DARK, Outcome.OVERDUE}:
            return  # it never says anything of it
        outcome = self.how if is_bad else Outcome.SUCCEEDED
        low, high = (0.5, 3.0) if is_bad else (10.0, 20.0)
        at_ms = self.now_ms + round(self.world.uniform(low, high) * MINUTE)
        heappush(self.ends, (at_ms, node.node_id, outcome))

    def _quiet(self) -> list[Grant]:
        if self.how not in {Outcome.DARK, Outcome.OVERDUE}:
            return []
        overdue_ms, dark_ms = cutoffs(self.plan, self.now_ms)
        return [
            Grant(row.node, row.phase, row.granted_at_ms, row.heard_at_ms)
            for row in self._in_flight.values()
            if (row.granted_at_ms <= overdue_ms or row.heard_at_ms <= dark_ms)
        ]
