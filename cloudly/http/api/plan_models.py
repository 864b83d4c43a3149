"""A plan as the API takes it: the plan of `cloudly rollout create --plan`, and what is wrong with it without its words.

Rules:
- What is refused here is refused with the place and what to write; the plan's own refusals quote it, these do not.
- What comes through is read once more as every plan is (`rollouts.plan.read`), so no rollout has another kind of plan.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field, field_validator, model_validator

from cloudly.http.api.ordering import PolicyAsked
from cloudly.http.api.paging import Asked
from cloudly.http.api.texts import ReleaseName
from cloudly.problems import BadOrder, Refused
from cloudly.rollouts.phases import Phase, growth_flaws
from cloudly.rollouts.plan import MOST_PHASES, HaltPolicy, Plan, read
from cloudly.rollouts.selector import BadSelector, parse
from cloudly.rollouts.windows import MOST as MOST_WINDOWS
from cloudly.rollouts.windows import Window

FROM_JSON = ConfigDict(frozen=True, strict=False, extra="forbid", hide_input_in_errors=True)
"""JSON has lists where the plan has tuples."""
GROWTH = (
    "the phases cannot follow each other like that: selectors come first, then counts, then shares, each larger than"
    " the one before; and no two have one name, or select the same"
)


class PhaseAsked(Phase):
    """A slice of the selected nodes: exactly one of `share_bp` (basis points), `count` and `selector`."""

    model_config = FROM_JSON

    @field_validator("selector")
    @classmethod
    def _selector_is_one(cls, selector: str | None) -> str | None:
        if selector is not None and not selector.strip():
            raise ValueError("the selector of a phase selects something; all nodes are 10000")
        return None if selector is None else _spelled(selector)


class WindowAsked(Window):
    """From when to when nodes are let in, on which days (`mon` to `sun`), by the clock of a time zone."""

    model_config = FROM_JSON


class HaltAsked(HaltPolicy):
    """When failures are too many."""

    model_config = FROM_JSON


class PlanAsked(Plan):
    """Which nodes, in which phases, how many at once, when, how long, and when to stop; each with a careful default."""

    model_config = FROM_JSON

    phases: tuple[PhaseAsked, ...] = Field(
        default_factory=lambda: tuple(PhaseAsked(**one.model_dump()) for one in Plan().phases),
        min_length=1,
        max_length=MOST_PHASES,
    )
    windows: tuple[WindowAsked, ...] = Field(default=(), max_length=MOST_WINDOWS)
    halt: HaltAsked = HaltAsked()

    @field_validator("selector")
    @classmethod
    def _selector_is_one(cls, selector: str) -> str:
        return _spelled(selector)

    @model_validator(mode="after")
    def _makes_sense(self) -> PlanAsked:
        if growth_flaws(self.phases):
            raise ValueError(GROWTH)
        return self

    @property
    def plan(self) -> Plan:
        """Raises Refused for what only the whole of it says: times that cannot be kept, and its length."""
        try:
            return read(self.model_dump_json())
        except BadOrder as problem:
            raise Refused("malformed", f"body.plan: {problem}") from None


class PlanTried(Asked):
    release: ReleaseName
    """Its commit, the beginning of it, or its version."""
    plan: PlanAsked = PlanAsked()


class NewRollout(PlanTried):
    policy: PolicyAsked = PolicyAsked()
    """How each node is to carry it out."""
    start: bool = False
    """At once; a plan that needs approval is not started so."""


def _spelled(selector: str) -> str:
    try:
        return str(parse(selector))
    except BadSelector as bad:
        raise ValueError(f"column {bad.column}: {bad.todo}") from None
