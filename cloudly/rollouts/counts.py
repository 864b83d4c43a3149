"""What became of the grants of a phase: each is counted once, and moves at most once more.

Rules:
- A grant is in flight until its outcome. Its outcome never changes, but for one: a node that succeeded may relapse
  until its phase has passed (it was rolled back after all, or went dark in the soak).
- What is reported after that, or after the rollout's end, is late: it is told and changes nothing.
- A bad outcome: failed, rolled back, overdue, dark, relapsed. Superseded is no outcome of the release: somebody gave
  the node something else, moved it or removed it before it had one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one grant. The first six are where a grant in flight ends."""

    SUCCEEDED = "succeeded"
    """Its journal proves it: booted, healthy, committed, digest equal."""
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    OVERDUE = "overdue"
    """No outcome in `Plan.node_deadline_s`, though it is heard of."""
    DARK = "dark"
    """In flight, and silent for `Plan.dark_after_s`."""
    SUPERSEDED = "superseded"
    """Moved, removed, quarantined, pinned or given another release before it had an outcome."""
    RELAPSED = "relapsed"
    """Had succeeded, and then not."""


BAD = (Outcome.FAILED, Outcome.ROLLED_BACK, Outcome.OVERDUE, Outcome.DARK, Outcome.RELAPSED)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one phase, or of several together. `succeeded` are those that still are."""

    granted: int = 0
    succeeded: int = 0
    failed: int = 0
    rolled_back: int = 0
    overdue: int = 0
    dark: int = 0
    superseded: int = 0
    relapsed: int = 0

    @property
    def in_flight(self) -> int:
        return self.granted - self.settled

    @property
    def settled(self) -> int:
        """With an outcome."""
        return self.succeeded + self.bad + self.superseded

    @property
    def bad(self) -> int:
        return self.failed + self.rolled_back + self.overdue + self.dark + self.relapsed

    @property
    def is_possible(self) -> bool:
        return self.in_flight >= 0 and all(getattr(self, name) >= 0 for name in NAMES)

    def plus(self, more: Mapping[str, int]) -> Counts:
        """With so many more of each name; raises KeyError for a name that is none."""
        unknown = set(more) - set(NAMES)
        if unknown:
            raise KeyError(f"no such count: {sorted(unknown)}")
        return Counts(**{name: getattr(self, name) + more.get(name, 0) for name in NAMES})

    def less(self, other: Counts) -> dict[str, int]:
        """What must be added to `other` to get this; only what is not zero."""
        if self == other:
            return {}
        differences = {name: getattr(self, name) - getattr(other, name) for name in NAMES}
        return {name: more for name, more in differences.items() if more}

    def with_outcome(self, outcome: Outcome, count: int = 1) -> Counts:
        """So many grants came to this; a relapse takes them from those that succeeded."""
        more = {outcome.value: count}
        if outcome is Outcome.RELAPSED:
            more["succeeded"] = -count
        return self.plus(more)


NAMES = tuple(field.name for field in fields(Counts))
NOTHING = Counts()


def together(many: Iterable[Counts]) -> Counts:
    rows = [
        (
            c.granted,
            c.succeeded,
            c.failed,
            c.rolled_back,
            c.overdue,
            c.dark,
            c.superseded,
            c.relapsed,
        )
        for c in many
    ]
    return Counts(*(sum(column) for column in zip(*rows, strict=True))) if rows else NOTHING


@dataclass(frozen=True, slots=True)
class Heard:
    """What an outcome that a node reported does: what to count, if anything, and whether it comes too late to count."""

    counts_as: Outcome | None = None
    is_late: bool = False
    """It says something else than what was counted: told as a note (`engine.late_outcome`), and changes nothing."""


def hear(
    reported: Outcome, *, counted: Outcome | None, is_final: bool, phase_has_passed: bool
) -> Heard:
    """Count each grant once. `reported`: any but `RELAPSED`, which is only ever an answer.

    `counted`: the grant's outcome so far; None while it is in flight.
    `is_final`: the rollout has ended. `phase_has_passed`: the soak of the grant's phase is over.
    """
    settled = counted is not None or is_final
    if reported is counted or (reported is Outcome.SUPERSEDED and settled):
        return Heard()
    if counted is Outcome.RELAPSED and reported in BAD:
        return Heard()
    if is_final:
        return Heard(is_late=True)
    if counted is None:
        return Heard(counts_as=reported)
    if counted is Outcome.SUCCEEDED and reported in BAD and not phase_has_passed:
        return Heard(counts_as=Outcome.RELAPSED)
    return Heard(is_late=True)
