"""What an operator asks for: which nodes, in which phases, how many at once, when, how long, and when to stop.

Rules:
- A plan never changes: a rollout is created with one, and another plan is another rollout.
- What cannot work is refused when it is written, with the place and what to do: shares that shrink, soaks beyond the
  deadline, a window that never opens.
- What nobody said has a default that is careful rather than fast: 1 %, 10 %, 50 %, 100 %, an hour of soak after each.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator, model_validator

from cloudly.problems import BadOrder
from cloudly.rollouts.phases import (
    MAX_S,
    WHOLE_BP,
    Phase,
    Said,
    flaws,
    growth_flaws,
    parse_selector,
)
from cloudly.rollouts.windows import MOST as MOST_WINDOWS
from cloudly.rollouts.windows import Window
from interfaces.why import duration

MOST_PHASES: Final = 50
MOST_TEXT: Final = 40_000
"""Characters of a plan as text within text: it travels in the first fact (journal.facts.MAX_DATA)."""

SEEN_LATE_S: Final = 60
"""A silent node is found so much later at most than `dark_after_s` says: its heartbeat may be in memory for 30 s."""

Patience = Annotated[int, Field(ge=1, le=MAX_S)]


class HaltPolicy(Said):
    """When failures are too many. The test is `evidence`'s."""

    base_rate: float = Field(default=0.02, gt=0, lt=0.5)
    """The share of failures that is nobody's fault: up to it a rollout is hardly ever halted (`alpha`)."""
    worst_rate: float = Field(default=0.1, gt=0, lt=1)
    """The share that must not go unseen: the test is sharpest about there. Above `base_rate`."""
    alpha: float = Field(default=0.005, gt=0, le=0.1)
    """The probability of ever halting a rollout whose failure rate is at most `base_rate`."""
    min_failures: int = Field(default=2, ge=1, le=1000)
    """Fewer never halt, whatever the evidence."""
    most_failures: int | None = Field(default=None, ge=1, le=10**9)
    """So many halt, whatever the evidence: an operator's own bound, for which `alpha` promises nothing."""
    dark_counts: bool = True
    """A node that goes dark after the order counts as a failure; if not, it counts as nothing."""

    @model_validator(mode="after")
    def _worse_is_worse(self) -> HaltPolicy:
        if self.worst_rate <= self.base_rate:
            raise ValueError("worst_rate must be above base_rate")
        if self.most_failures is not None and self.most_failures < self.min_failures:
            raise ValueError("most_failures must be at least min_failures")
        return self


def _careful() -> tuple[Phase, ...]:
    return (
        Phase(name="canary", share_bp=100),
        Phase(name="tenth", share_bp=1000),
        Phase(name="half", share_bp=5000),
        Phase(name="all", share_bp=WHOLE_BP),
    )


class Plan(Said):
    """What `cloudly rollout create` makes of its options; with none of them, all of its defaults."""

    selector: str = ""
    """Which nodes the rollout is for; empty: all. Kept in its one spelling."""
    phases: tuple[Phase, ...] = Field(
        default_factory=_careful, min_length=1, max_length=MOST_PHASES
    )
    concurrency: int = Field(default=1000, ge=1, le=10**9)
    """Nodes in flight at most: granted and without an outcome."""
    windows: tuple[Window, ...] = Field(default=(), max_length=MOST_WINDOWS)
    """When nodes are let in; none: always. What is in flight when a window closes goes on."""
    deadline_s: Patience = 14 * 86_400
    """From the start, or the last resume, to the end; then it is halted."""
    node_deadline_s: Patience = 6 * 3600
    """From a node's order to its outcome; then it counts as failed, as overdue."""
    dark_after_s: Patience = 900
    """A node in flight that is silent for so long has gone dark, which is its outcome. Well below every soak: one that
    dies in a soak is dark only so much later."""
    needs_approval: bool = False
    """Somebody must approve the rollout before it can be started."""
    second_person: bool = False
    """Who created it cannot approve it or a phase of it."""
    halt: HaltPolicy = HaltPolicy()

    @field_validator("selector")
    @classmethod
    def _selector_is_one(cls, selector: str) -> str:
        return parse_selector(selector)

    @model_validator(mode="after")
    def _makes_sense(self) -> Plan:
        found = "; ".join((*growth_flaws(self.phases), *_time_flaws(self), *_length_flaws(self)))
        if found:
            raise ValueError(found)
        return self

    @property
    def covers_all(self) -> bool:
        """Whether its last phase is every selected node: then nobody is left out but who stands aside."""
        return self.phases[-1].share_bp == WHOLE_BP

    def warnings(self) -> tuple[str, ...]:
        """What works and is hardly meant. No flaws: such plans were written, and must stay readable."""
        least_s = self.dark_after_s + SEEN_LATE_S
        blind = [one.name for one in self.phases if 0 < one.soak_s <= least_s]
        if not blind or not self.halt.dark_counts:
            return ()
        told = (
            f"a node that dies in the soak of {', '.join(blind)} is not seen in it: it has gone dark only after"
            f" {duration(self.dark_after_s * 1000)}. Soak for longer than {duration(least_s * 1000)}, or lower"
            " dark_after_s (--dark-after)"
        )
        return (told,)

    def text(self) -> str:
        """As JSON; `read` reads it."""
        return self.model_dump_json()


def read(text: str | bytes) -> Plan:
    """The plan in that JSON; raises BadOrder, which names each flaw and its place and does not echo the input."""
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise BadOrder(f"this is no plan: {flaws(error)}; nothing was changed") from error


def made(**said: Any) -> Plan:
    """A plan from Python values; raises BadOrder as `read` does."""
    try:
        return Plan(**said)
    except ValidationError as error:
        raise BadOrder(f"this is no plan: {flaws(error)}; nothing was changed") from error


def _time_flaws(plan: Plan) -> list[str]:
    found = []
    if plan.dark_after_s > plan.node_deadline_s:
        found.append(
            f"dark_after_s ({plan.dark_after_s}) is beyond node_deadline_s ({plan.node_deadline_s}):"
            " a silent node would be overdue before it is dark"
        )
    soaks_s = sum(each.soak_s for each in plan.phases)
    if soaks_s >= plan.deadline_s:
        found.append(
            f"the soaks alone last {soaks_s} s, the deadline is {plan.deadline_s} s: it cannot be met"
        )
    return found


def _length_flaws(plan: Plan) -> list[str]:
    length = len(json.dumps(plan.text()))
    return [f"it is {length} characters long, at most {MOST_TEXT}"] if length > MOST_TEXT else []
