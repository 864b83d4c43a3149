"""What is believed of a rollout: the fold of its facts (`machine`), and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloudly.rollouts.counts import NOTHING, Counts, together

FINAL = frozenset({"completed", "rolled-back", "aborted"})


@dataclass(frozen=True, slots=True)
class Slice:
    """What is believed of one phase that was opened. Times in ms; None: not yet, or not since it was opened again."""

    name: str
    opened_at_ms: int
    filled_at_ms: int | None = None
    settled_at_ms: int | None = None
    passed_at_ms: int | None = None
    widened_at_ms: int | None = None
    """Since then nodes of any place are let in, as long as fewer than `at_least` of its own are good or in flight."""
    counts: Counts = NOTHING


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is believed of a rollout."""

    state: str = "new"
    rollout: str = ""
    release: str = ""
    version: str = ""
    salt: str = ""
    created_by: str = ""
    needs_approval: bool = False
    approved_by: str = ""
    running_since_ms: int = 0
    """Of the start, or of the last resume: what the deadline counts from."""
    entered_at_ms: int = 0
    """When its state was entered."""
    slices: tuple[Slice, ...] = ()
    """The phases that were opened, in the plan's order; the last one is the present one."""
    approved_phases: tuple[int, ...] = ()
    approval_reason: str = ""
    """Why the next phase waits for a yes; empty: it does not."""
    set_aside: Counts = NOTHING
    """What was settled when an operator last resumed a halted rollout: the evidence starts afresh after it."""
    halts: int = 0
    by: str = ""
    """Who turned it last: paused, halted, resumed, aborted, rolled back, refused."""
    reason: str = ""
    """Why."""
    left: int = 0
    """Nodes that had not gone back when a rollback ended."""

    @property
    def phase(self) -> int:
        """The present phase, from 0; -1 before the first."""
        return len(self.slices) - 1

    @property
    def present(self) -> Slice:
        """The present phase; raises IndexError before the first."""
        return self.slices[-1]

    @property
    def counts(self) -> Counts:
        """Of all phases together."""
        return together(each.counts for each in self.slices)

    @property
    def granted(self) -> int:
        return sum(each.counts.granted for each in self.slices)

    @property
    def in_flight(self) -> int:
        return sum(each.counts.in_flight for each in self.slices)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


def with_counts(rollout: Rollout, counts: Sequence[Counts]) -> Rollout:
    """The same rollout with the counters as the database has them now, phase by phase.

    The facts lag behind by a tick of the leading process; a check-in must not. For `admission` only: never folded on.
    """
    seen = tuple(
        replace(each, counts=counts[number])
        if number < len(counts) and counts[number] != each.counts
        else each
        for number, each in enumerate(rollout.slices)
    )
    return rollout if seen == rollout.slices else replace(rollout, slices=seen)


def granting(rollout: Rollout) -> Rollout:
    """With one more grant in the present phase: for the next node of the same batch."""
    present = rollout.present
    counts = replace(present.counts, granted=present.counts.granted + 1)
    return replace(rollout, slices=(*rollout.slices[:-1], replace(present, counts=counts)))
