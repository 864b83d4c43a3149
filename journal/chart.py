"""A chart says which fact may follow which state: a finite map, checked when it is written down.

Rules
- No arrow twice; every state can be reached; no way out of a final state, and a way out of every other.
- Every state that is not final says who acts, what is awaited, until when and what follows then (`Waits`).

A chart is a `transitions.Machine` without model, callbacks and automatic transitions, used as a map: its tables decide
what is legal and where it leads, for recording, recalling and drawing alike. It is made when the first fact is asked
about, not when the chart is written down: loading `transitions` costs 10 ms of CPU and 0.8 MB, which a program that
never folds a fact does not pay (benchmarks/bench_chart.py). The checks of the table itself read the arrows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from journal.facts import Lane
from journal.problems import IllegalFact, Malformed


@dataclass(frozen=True, slots=True)
class Arrow:
    """In state `src` the fact `kind` leads to state `dst`."""

    kind: str
    src: str
    dst: str


@dataclass(frozen=True, slots=True)
class Waits:
    """What `why` says of a state: who acts, what is awaited, for how long, and then what; how it resumes."""

    owner: str
    waits_for: str
    deadline_s: float | None
    then: str
    resume: str


@dataclass(frozen=True)
class Chart:
    """The legal moves of one machine."""

    name: str
    initial: str
    arrows: tuple[Arrow, ...]
    waits: Mapping[str, Waits]
    final: frozenset[str] = frozenset()
    lane: Lane = Lane.CORE

    def __post_init__(self) -> None:
        flaws = "; ".join(self._flaws())
        if flaws:
            raise Malformed(f"draw the chart {self.name!r}", flaws, "correct the table")

    @cached_property
    def states(self) -> tuple[str, ...]:
        """In the order in which they are first named."""
        named = [
            self.initial,
            *(state for arrow in self.arrows for state in (arrow.src, arrow.dst)),
        ]
        return tuple(dict.fromkeys(named))

    def next(self, src: str, kind: str) -> str:
        """The state that `kind` leads to; raises IllegalFact."""
        event = self.machine.events.get(kind)
        moves = event.transitions.get(src) if event else None
        if not moves:
            raise IllegalFact(self.name, src, kind, self.allowed(src))
        dst: str = moves[0].dest
        return dst

    def allowed(self, src: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arrow.kind for arrow in self.arrows if arrow.src == src))

    def is_final(self, state: str) -> bool:
        return state in self.final

    def mermaid(self) -> str:
        """A `stateDiagram-v2`, always the same for the same chart."""
        from journal.draw import mermaid

        return mermaid(self)

    @cached_property
    def machine(self) -> Any:
        """The map: without model, callbacks or automatic transitions."""
        from transitions import Machine

        arrows = [{"trigger": a.kind, "source": a.src, "dest": a.dst} for a in self.arrows]
        return Machine(
            model=None,
            states=list(self.states),
            transitions=arrows,
            initial=self.initial,
            auto_transitions=False,
        )

    def _flaws(self) -> Iterable[str]:
        drawn = Counter((arrow.src, arrow.kind) for arrow in self.arrows)
        yield from (
            f"{src} --{kind}--> is drawn {n} times" for (src, kind), n in drawn.items() if n > 1
        )
        states = set(self.states)
        yield from (f"{state!r} cannot be reached" for state in _lost(self, states))
        yield from (
            f"{state!r} is final and has a way out" for state in self.final if self.allowed(state)
        )
        for state in self.states:
            if state not in self.final and not self.allowed(state):
                yield f"{state!r} is not final and has no way out"
            if state not in self.final and state not in self.waits:
                yield f"nobody is named who acts in {state!r} (Waits)"
        unknown = (set(self.waits) | self.final) - states
        yield from (f"{state!r} has no arrow" for state in sorted(unknown))
        yield from (
            f"{state!r} is final and waits" for state in sorted(self.final & set(self.waits))
        )


def _lost(chart: Chart, states: set[str]) -> list[str]:
    reached, frontier = {chart.initial}, [chart.initial]
    while frontier:
        src = frontier.pop()
        fresh = {arrow.dst for arrow in chart.arrows if arrow.src == src} - reached
        reached |= fresh
        frontier += fresh
    return sorted(states - reached)
