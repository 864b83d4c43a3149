"""Waking up is reading: a stream is recalled by the very function that recording goes through.

Rules
- A fact is legal, then written, then believed. The fold is asked before the write, so that a fact which it cannot
  digest is never written; what it believes is taken over after.
- A fact that this program cannot read parks its stream. It is never skipped.
- A fold is pure: same belief and fact, same belief.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from journal.chart import Chart
from journal.facts import Fact, Stamp
from journal.journal import Journal
from journal.problems import IllegalFact, NotWritable, Parked
from journal.reading import NEWEST, Reading

S = TypeVar("S")


@dataclass(frozen=True)
class Machine(Generic[S]):
    """A chart, what is believed before the first fact, and what a fact changes."""

    chart: Chart
    start: S
    fold: Callable[[S, Fact], S]


class Stream(Generic[S]):
    """One attempt of one machine."""

    def __init__(self, journal: Reading, name: str, machine: Machine[S], *, state: str) -> None:
        self._journal = journal
        self._machine = machine
        self.name = name
        self.state = state
        self.believed = machine.start
        self.facts = 0
        self.last: Fact | None = None
        self._entered_by: Fact | None = None

    @property
    def entered(self) -> Stamp | None:
        """When the current state was entered; a fact that stays in its state does not enter it again."""
        return self._entered_by.stamp if self._entered_by else None

    @property
    def ended(self) -> bool:
        return self._machine.chart.is_final(self.state)

    def record(
        self, kind: str, data: Mapping[str, object] | None = None, *, soon: bool = False
    ) -> Fact:
        """Legal, then written, then believed. Raises IllegalFact before anything is written, NoSpace, WriteFailed."""
        chart, journal = self._machine.chart, self._journal
        if not isinstance(journal, Journal):
            raise NotWritable(
                f"record {kind!r}", "the stream was recalled by a reader", "use a Journal"
            )
        dst = chart.next(self.state, kind)
        fact = journal.compose(self.name, kind, self.state, dst, data, lane=chart.lane)
        believed = self._machine.fold(self.believed, fact)
        journal.write(fact, soon=soon, final=chart.is_final(dst))
        self._take(fact, believed)
        return fact

    def read(self, fact: Fact) -> None:
        """Believe a fact that is in the journal; raises Parked."""
        try:
            dst = self._machine.chart.next(self.state, fact.kind)
        except IllegalFact as error:
            raise Parked(self.name, fact, error.seen) from error
        if fact.src != self.state or fact.dst != dst:
            raise Parked(
                self.name, fact, f"it leads from {fact.src!r} to {fact.dst!r}, ours to {dst!r}"
            )
        try:
            believed = self._machine.fold(self.believed, fact)
        except Exception as error:
            raise Parked(self.name, fact, f"its data is unknown here ({error!r})") from error
        self._take(fact, believed)

    def _take(self, fact: Fact, believed: S) -> None:
        self.believed = believed
        self.facts += 1
        self.last = fact
        if fact.dst != self.state or self._entered_by is None:
            self._entered_by = fact
            self.state = fact.dst


def recall(journal: Reading, name: str, machine: Machine[S]) -> Stream[S]:
    """The stream as it stands; a new one when nothing was recorded in it yet. Raises Parked."""
    chart, info = machine.chart, journal.stream(name)
    stream = Stream(journal, name, machine, state=chart.initial)
    if info is None:
        return stream
    if info.carried:
        stream.state = info.carried
    if stream.state not in chart.states:
        raise Parked(name, info.last, f"its state {stream.state!r} is unknown here")
    last = info.last_seq or NEWEST
    for page in journal.pages(chart.lane, after=info.first_seq - 1, upto=last, stream=name):
        for fact in page:
            if not fact.is_note:
                stream.read(fact)
    return stream
