"""Reads all of it and says what does not hang together: chain, order, streams, cursor, and what SQLite finds itself.

What this cannot see is a tail that is wholly lost; only a position held elsewhere can (Cloudly's ack, `Journal.ack`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from journal.facts import Fact, Head, Lane
from journal.problems import Damaged
from journal.reading import PAGE, Reading

MOST = 100
"""Problems named per lane: with more, the first are what matters."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where; lane and seq are None when it is about the file."""

    lane: Lane | None
    seq: int | None
    what: str


@dataclass(frozen=True, slots=True)
class LaneReport:
    """The lane from its first fact that is still here to its last."""

    base: Head
    head: Head
    events: int


@dataclass(frozen=True, slots=True)
class Report:
    lanes: dict[Lane, LaneReport]
    problems: list[Problem]

    @property
    def events(self) -> int:
        return sum(lane.events for lane in self.lanes.values())

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class LaneCheck:
    """Follows one lane from its base, fact by fact; `now_base` is asked when facts are missing: a trim may have."""

    lane: Lane
    base: Head
    now_base: Callable[[], Head] | None = None
    seen: int = 0
    n: int = 0
    states: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seq, self._hash = self.base

    @property
    def head(self) -> Head:
        return Head(self._seq, self._hash)

    def see(self, fact: Fact) -> None:
        if fact.seq != self._seq + 1:
            self._missing(fact)
        if not _follows(fact, self._hash):
            self.say(
                fact.seq, "is not what was written: its hash does not follow from the one before"
            )
        else:
            self._story(fact)
        self._seq, self._hash = fact.seq, fact.hash
        self.seen += 1

    def say(self, seq: int | None, what: str) -> None:
        if len(self.problems) < MOST:
            self.problems.append(Problem(self.lane, seq, what))

    def report(self) -> LaneReport:
        return LaneReport(self.base, self.head, self.seen)

    def _missing(self, fact: Fact) -> None:
        now = self.now_base() if self.now_base else self.base
        if now.seq == fact.seq - 1:  # trimmed while we were reading
            self.base = now
            self._seq, self._hash = now
        else:
            self.say(self._seq + 1, f"is missing, the next one is {fact.seq}")

    def _story(self, fact: Fact) -> None:
        if fact.n <= self.n:
            self.say(fact.seq, f"has place {fact.n} in the journal, after {self.n}")
        self.n = fact.n
        if not fact.is_note:
            stood = self.states.get(fact.stream, fact.src)
            if stood != fact.src:
                self.say(fact.seq, f"leads from {fact.src!r}, and {fact.stream} stood at {stood!r}")
            self.states[fact.stream] = fact.dst


def verify(journal: Reading) -> Report:
    """Everything up to where the journal ends now; a writer may go on meanwhile."""
    lanes: dict[Lane, LaneReport] = {}
    problems: list[Problem] = []
    for lane in Lane:
        check = LaneCheck(lane, journal.base(lane), partial(journal.base, lane))
        acked = journal.acked(lane)
        for fact in _readable(journal, check, journal.head(lane).seq):
            if fact.seq == acked.seq and fact.hash != acked.hash:
                check.say(fact.seq, "is not what Cloudly has acked")
            check.see(fact)
        if acked.seq > check.head.seq:
            check.say(acked.seq, f"was acked by Cloudly, and the lane ends at {check.head.seq}")
        lanes[lane] = check.report()
        problems += check.problems
    return Report(lanes, problems + list(_streams(journal)) + list(_file(journal)))


def _readable(journal: Reading, check: LaneCheck, upto: int) -> Iterator[Fact]:
    """Pages as long as they can be read, then facts, then the one that cannot."""
    size = PAGE
    while check.head.seq < upto:
        try:
            page = journal.facts(lane=check.lane, after=check.head.seq, limit=size)
        except Damaged as error:
            if size == 1:
                check.say(check.head.seq + 1, f"cannot be read, nor what follows: {error.seen}")
                return
            size = 1
            continue
        if not page:
            check.say(check.head.seq + 1, f"is missing, and all up to {upto}")
            return
        yield from (fact for fact in page if fact.seq <= upto)


def _streams(journal: Reading) -> Iterator[Problem]:
    try:
        for info in journal.streams():
            if info.last is None and not info.carried:
                yield Problem(
                    info.lane, info.first_seq, f"is where {info.name} begins, and is not there"
                )
            elif info.last and info.last.stream != info.name:
                yield Problem(
                    info.lane, info.last_seq, f"should end {info.name}, is {info.last.stream}"
                )
    except Damaged as error:
        yield Problem(None, None, f"the streams cannot be read: {error.seen}")


def _file(journal: Reading) -> Iterator[Problem]:
    try:
        yield from (Problem(None, None, said) for said in journal.quick_check() if said != "ok")
    except Damaged as error:
        yield Problem(None, None, f"SQLite cannot check the file: {error.seen}")


def _follows(fact: Fact, prev: bytes) -> bool:
    try:
        return fact.follows(prev)
    except (TypeError, ValueError):  # a damaged row may hold anything
        return False
