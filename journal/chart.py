"""A chart says which fact may follow which state: a finite map, checked when it is written down.

Rules
- No arrow twice; every state can be reached; no way out of a final state, and a way out of every other.
- Every state that is not final says who acts, what is awaited, until when and what follows then (`Waits`).

The drawing comes from a `transitions.Machine` without model and callbacks. Recording and recalling ask a dict built
from the same arrows, and a test holds the two equal for every state and kind. A look-up costs the same in both; but
loading `transitions` adds 16 % of CPU (10 ms) and 0.8 MB to every start of a program that never draws
(benchmarks/bench_chart.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    _moves: dict[str, dict[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        moves: dict[str, dict[str, str]] = {}
        for arrow in self.arrows:
            moves.setdefault(arrow.src, {})[arrow.kind] = arrow.dst
        object.__setattr__(self, "_moves", moves)
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
        try:
            return self._moves[src][kind]
        except KeyError:
            raise IllegalFact(self.name, src, kind, self.allowed(src)) from None

    def allowed(self, src: str) -> tuple[str, ...]:
        return tuple(self._moves.get(src, ()))

    def is_final(self, state: str) -> bool:
        return state in self.final

    def mermaid(self) -> str:
        """A `stateDiagram-v2`, always the same for the same chart."""
        from journal.draw import mermaid

        return mermaid(self)

    @cached_property
    def machine(self) -> Any:
        """The same chart as a `transitions.Machine`: without model, callbacks or automatic transitions."""
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
        fresh = {chart.next(src, kind) for kind in chart.allowed(src)} - reached
        reached |= fresh
        frontier += fresh
    return sorted(states - reached)
