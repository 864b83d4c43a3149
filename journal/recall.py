"""Waking up is reading: a stream is recalled by the very function that recording goes through.

Rules
- A fact is legal, then written, then believed. The fold is asked before the write, so that a fact which it cannot
  digest is never written; what it believes is taken over after.
- A fact that this program cannot read parks its stream. It is never skipped.
- A fold is pure: same belief and fact, same belief.
- A stream whose beginning was trimmed goes on from what was believed then, which is kept with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from journal import belief
from journal.chart import Chart
from journal.facts import Fact, Stamp, StreamInfo, split_name
from journal.journal import Journal
from journal.problems import IllegalFact, NotWritable, Parked
from journal.reading import NEWEST, Reading
from journal.retention import UNKNOWN, Freeze

S = TypeVar("S")


@dataclass(frozen=True)
class Machine(Generic[S]):
    """A chart, what is believed before the first fact, and what a fact changes."""

    chart: Chart
    start: S
    fold: Callable[[S, Fact], S]

    def freeze(self, believed: S) -> str:
        """A belief as text, to be kept in place of the facts it came from."""
        return belief.to_text(believed)

    def thaw(self, text: str) -> S:
        """What `freeze` was given; raises TypeError, ValueError or KeyError when it is no belief of this machine."""
        believed: S = belief.from_text(text, type(self.start))
        return believed


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
        self._closed = False
        self._moves: dict[tuple[str, str], str] = {}
        """What the chart has answered; a long stream asks the same again and again."""

    @property
    def entered(self) -> Stamp | None:
        """When the current state was entered; a fact that stays in its state does not enter it again."""
        return self._entered_by.stamp if self._entered_by else None

    @property
    def ended(self) -> bool:
        """It reached a final state, or was closed where it stood: a part of it was lost with a damaged journal."""
        return self._closed or self._machine.chart.is_final(self.state)

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
        move = (self.state, fact.kind)
        dst = self._moves.get(move)
        if dst is None:
            dst = self._moves[move] = self._asked(fact)
        if fact.dst != dst or fact.src != self.state:
            raise Parked(
                self.name, fact, f"it leads from {fact.src!r} to {fact.dst!r}, ours to {dst!r}"
            )
        try:
            believed = self._machine.fold(self.believed, fact)
        except Exception as error:
            raise Parked(self.name, fact, f"its data is unknown here ({error!r})") from error
        self._take(fact, believed)

    def _asked(self, fact: Fact) -> str:
        try:
            return self._machine.chart.next(self.state, fact.kind)
        except IllegalFact as error:
            raise Parked(self.name, fact, error.seen) from error

    def _take(self, fact: Fact, believed: S) -> None:
        self.believed = believed
        self.facts += 1
        self.last = fact
        if fact.dst != self.state or self._entered_by is None:
            self._entered_by = fact
            self.state = fact.dst


def recall(journal: Reading, name: str, machine: Machine[S]) -> Stream[S]:
    """The stream as it stands; a new one when nothing was recorded in it yet. Raises Parked."""
    info = journal.stream(name)
    if info is None:
        return Stream(journal, name, machine, state=machine.chart.initial)
    stream = _begin(journal, info, machine)
    stream._closed = info.ended  # noqa: SLF001 - ours
    last = info.last_seq or NEWEST
    for page in journal.pages(machine.chart.lane, after=info.first_seq - 1, upto=last, stream=name):
        for fact in page:
            if not fact.is_note:
                stream.read(fact)
    return stream


def freezer(journal: Reading, machines: Mapping[str, Machine[Any]]) -> Freeze:
    """What `Journal.retain` asks when it trims the beginning of a stream: the belief after the facts that go."""

    def freeze(info: StreamInfo, going: list[Fact]) -> str | None:
        machine = machines.get(split_name(info.name)[0])
        if machine is None:
            return None
        try:
            stream = _begin(journal, info, machine)
            for fact in going:
                stream.read(fact)
        except Parked:
            return None
        return machine.freeze(stream.believed)

    return freeze


def _begin(journal: Reading, info: StreamInfo, machine: Machine[S]) -> Stream[S]:
    """The stream before its first fact that is still there."""
    stream = Stream(journal, info.name, machine, state=info.carried or machine.chart.initial)
    if stream.state not in machine.chart.states:
        raise Parked(info.name, info.last, f"its state {stream.state!r} is unknown here")
    if info.belief == UNKNOWN:
        raise Parked(
            info.name, info.last, "its beginning was trimmed by a program that could not read it"
        )
    if info.belief:
        try:
            stream.believed = machine.thaw(info.belief)
        except (TypeError, ValueError, KeyError) as error:
            seen = f"what it believed when its beginning was trimmed is unknown here ({error!r})"
            raise Parked(info.name, info.last, seen) from error
    return stream
