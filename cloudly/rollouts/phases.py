"""A phase of a plan: a slice of the selected nodes, and how phases may follow each other.

Rules:
- Phases are cumulative and only grow: selectors first, then counts, then shares. A phase that would add nobody by rule
  is refused.
- A phase is exactly one of: a share in basis points, a count, a selector.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloudly.problems import BadOrder
from cloudly.rollouts.selector import BadSelector, parse

MAX_S: Final = 31_536_000
"""A year: the longest that anything in a plan may last."""
WHOLE_BP: Final = 10_000
SOAK_S: Final = 3600

Seconds = Annotated[int, Field(ge=0, le=MAX_S)]
PhaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Said(BaseModel):
    """Frozen, strict, and with no room for what is not known: a misspelled field must not be a default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class Phase(Said):
    """A slice of the selected nodes. Exactly one of `share_bp`, `count` and `selector` says how large it is."""

    name: PhaseName
    share_bp: int | None = Field(default=None, ge=1, le=WHOLE_BP)
    """Of the selected nodes, in basis points, those of earlier phases included: 100 is 1 %."""
    count: int | None = Field(default=None, ge=1, le=10**9)
    """So many nodes, those of earlier phases included; who comes first."""
    selector: str | None = None
    """Those of the selected nodes that this selects too."""
    at_least: int = Field(default=1, ge=0, le=10**6)
    """Of a share: so many nodes must succeed in it; if by place there are too few, nodes of any place are let in."""
    soak_s: Seconds = SOAK_S
    """How long the phase is watched after its last outcome; relapses in it count as failures."""
    needs_approval: bool = False
    """Somebody must say yes before it opens."""

    @field_validator("selector")
    @classmethod
    def _selector_is_one(cls, selector: str | None) -> str | None:
        if selector is not None and not parse_selector(selector):
            raise ValueError("the selector of a phase selects something; all nodes are 100 %")
        return None if selector is None else parse_selector(selector)

    @model_validator(mode="after")
    def _one_size(self) -> Phase:
        if sum(size is not None for size in (self.share_bp, self.count, self.selector)) != 1:
            raise ValueError("a phase is either a share, or a count, or a selector")
        return self

    @property
    def size(self) -> str:
        """In words: `1 %`, `20 nodes`, `label.site=lab`."""
        if self.share_bp is not None:
            return f"{percent(self.share_bp)} %"
        return f"{self.count} nodes" if self.count is not None else str(self.selector)


_PHASE = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):)?(?P<size>.+)")
_SHARE = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?\s*%")


def phase(text: str, number: int, *, soak_s: int = SOAK_S, needs_approval: bool = False) -> Phase:
    """The phase that `canary:1%`, `10%`, `25` (nodes) or `lab:label.site=lab` means; raises BadOrder.

    `number`, from 1, names a phase without a name: `phase-2`.
    """
    found = _PHASE.fullmatch(text.strip())
    if found is None:
        raise BadOrder(f"{text!r} is no phase; write one like canary:1%, 25 or lab:label.site=lab")
    name, size = found["name"] or f"phase-{number}", found["size"].strip()
    share = _SHARE.fullmatch(size)
    how: dict[str, Any] = {"selector": size}
    if share is not None:
        how = {"share_bp": int(share[1]) * 100 + int((share[2] or "0").ljust(2, "0"))}
    elif size.isdecimal():
        how = {"count": int(size)}
    try:
        return Phase(name=name, soak_s=soak_s, needs_approval=needs_approval, **how)
    except ValidationError as error:
        raise BadOrder(f"{text!r} is no phase: {flaws(error)}") from error


def flaws(error: ValidationError) -> str:
    """What pydantic saw, as `phases.1.soak_s: …`, without any value."""
    seen = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(str(step) for step in one['loc']) or 'the plan'}:"
        f" {one['msg'].removeprefix('Value error, ')}"
        for one in seen
    )


def parse_selector(text: str) -> str:
    """In its one spelling; raises ValueError, which pydantic places."""
    try:
        return str(parse(text))
    except BadSelector as error:
        raise ValueError(str(error)) from error


def percent(share_bp: int) -> str:
    """100 is `1`, 50 is `0.5`."""
    return f"{share_bp / 100:g}"


def growth_flaws(phases: tuple[Phase, ...]) -> list[str]:
    """What is wrong with their order, in sentences."""
    names = [each.name for each in phases]
    found = [
        f"two phases are named {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    for before, after in pairwise(phases):
        if _kind(after) < _kind(before):
            found.append(
                f"phase {after.name!r} ({after.size}) cannot follow {before.name!r} ({before.size}):"
                " selectors come first, then counts, then shares"
            )
        elif _kind(after) == _kind(before) != 0 and _extent(after) <= _extent(before):
            found.append(
                f"phase {after.name!r} ({after.size}) must be larger than"
                f" {before.name!r} ({before.size}), whose nodes it includes"
            )
        elif _kind(after) == 0 and after.selector in {
            each.selector for each in phases[: phases.index(after)]
        }:
            found.append(f"phase {after.name!r} selects what an earlier phase selects")
    return found


def _kind(phase: Phase) -> int:
    return 0 if phase.selector is not None else 1 if phase.count is not None else 2


def _extent(phase: Phase) -> int:
    return phase.share_bp or phase.count or 0
