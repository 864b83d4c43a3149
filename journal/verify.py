"""Reads all of it and says what does not hang together: chain, order, streams, cursor, and what SQLite finds itself.

What cannot be read is named and passed by: a page that is gone costs its facts, and what lies behind it is checked on
from the first one there. What this cannot see is a tail that is wholly lost; only a position held elsewhere can
(Cloudly's ack, `Journal.ack`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from journal.facts import Fact, Head, Lane, StreamInfo
from journal.problems import Damaged
from journal.reading import NEWEST, PAGE, Reading

MOST = 100
"""Problems named per lane: with more, the first are what matters."""
MOST_FAILURES = 50_000
"""Reads of a lane that failed, after which it is not looked for single facts any more: a second of CPU."""
BEGAN = "epoch-began"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where; lane and seq are None when it is about the file."""

    lane: Lane | None
    seq: int | None
    what: str


@dataclass(frozen=True, slots=True)
class LaneReport:
    """The lane from its first fact that is still here to its last; `holes` are seqs between them that are not there."""

    base: Head
    head: Head
    events: int
    holes: tuple[tuple[int, int], ...] = ()
    dropped: int = 0
    """Facts that the device had to forget before Cloudly had them, by its tombstones."""

    @property
    def missing(self) -> int:
        return sum(last - first + 1 for first, last in self.holes)


@dataclass(frozen=True, slots=True)
class Report:
    lanes: dict[Lane, LaneReport]
    problems: list[Problem]
    began: dict[str, Any] | None = None
    """What the epoch says of the one before it (journal/succession.py); None: it is the first one."""

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
    holes: list[tuple[int, int]] = field(default_factory=list)
    unread: str = ""
    """What was seen where the next facts should be."""
    failures: int = 0
    firsts: dict[str, int] = field(default_factory=dict)
    lasts: dict[str, int] = field(default_factory=dict)
    """Of each stream: its first and its last transition that were seen."""

    def __post_init__(self) -> None:
        self._seq, self._hash = self.base

    @property
    def head(self) -> Head:
        return Head(self._seq, self._hash)

    def see(self, fact: Fact) -> None:
        if fact.seq != self._seq + 1 and self._misses(fact):
            self.states.clear()  # what came between is not known, nor what the first one behind it hangs on
            self.n = fact.n
        elif not _follows(fact, self._hash):
            self.say(
                fact.seq, "is not what was written: its hash does not follow from the one before"
            )
        else:
            self._story(fact)
        if fact.dst:
            self.firsts.setdefault(fact.stream, fact.seq)
            self.lasts[fact.stream] = fact.seq
        self._seq, self._hash = fact.seq, fact.hash
        self.seen += 1

    def say(self, seq: int | None, what: str) -> None:
        if len(self.problems) < MOST:
            self.problems.append(Problem(self.lane, seq, what))

    def hole(self, upto: int) -> None:
        """Nothing is there between the last fact that was seen and behind `upto`."""
        first = self._seq + 1
        if first <= upto:
            what = "cannot be read" if self.unread else "is missing"
            which = what if first == upto else f"{what}, and all up to {upto}"
            self.say(first, f"{which}: {self.unread}" if self.unread else which)
            self.holes.append((first, upto))
        self.unread = ""

    def lacks(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self.holes)

    def report(self, dropped: int = 0) -> LaneReport:
        return LaneReport(self.base, self.head, self.seen, tuple(self.holes), dropped)

    def _misses(self, fact: Fact) -> bool:
        """Whether facts before this one are gone; not when they were trimmed while we were reading."""
        now = self.now_base() if self.now_base else self.base
        if now.seq == fact.seq - 1:
            self.base = now
            self._seq, self._hash = now
            return False
        if fact.seq <= self._seq:
            self.say(fact.seq, f"stands again behind {self._seq}")
        self.hole(fact.seq - 1)
        return True

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
    checks: dict[Lane, LaneCheck] = {}
    for lane in Lane:
        try:
            check = checks[lane] = _lane(journal, lane)
            lanes[lane] = check.report(_dropped(journal, check))
            problems += check.problems
        except Damaged as error:
            lanes[lane] = LaneReport(_NOWHERE, _NOWHERE, 0)
            problems.append(Problem(lane, None, f"cannot be read: {error.seen}"))
    problems += [*_streams(journal, checks), *_file(journal)]
    return Report(lanes, problems, began(journal))


_NOWHERE = Head(0, b"")


def _lane(journal: Reading, lane: Lane) -> LaneCheck:
    check = LaneCheck(lane, journal.base(lane), partial(journal.base, lane))
    acked, upto = journal.acked(lane), _end(journal, check)
    for fact in _readable(journal, check, upto):
        if fact.seq == acked.seq and fact.hash != acked.hash:
            check.say(fact.seq, "is not what Cloudly has acked")
        check.see(fact)
    check.hole(upto)
    if acked.seq > check.head.seq:
        check.say(acked.seq, f"was acked by Cloudly, and the lane ends at {check.head.seq}")
    return check


def _end(journal: Reading, check: LaneCheck) -> int:
    """Where the lane ends; where its last page cannot be read, the last fact before the first that cannot."""
    try:
        return journal.head(check.lane).seq
    except Damaged as error:
        check.say(None, f"its end cannot be read: {error.seen}")
    at = check.base.seq
    for size in (PAGE, 1):
        try:
            for page in journal.pages(check.lane, after=at, size=size):
                at = page[-1].seq
        except Damaged:
            continue
    return at


def _readable(journal: Reading, check: LaneCheck, upto: int) -> Iterator[Fact]:
    """A page at a time; where there is nothing on one, on to the next fact that there is."""
    first = check.head.seq + 1
    while first <= upto:
        last, before = min(first + PAGE - 1, upto), check.seen
        yield from _span(journal, check, first, last)
        if check.seen == before:
            last = _before_the_next(journal, check.lane, last)
        first = last + 1


def _span(journal: Reading, check: LaneCheck, first: int, last: int) -> Iterator[Fact]:
    """These facts; where they cannot be read at once, halves of them, down to the ones that cannot."""
    try:
        found = next(journal.pages(check.lane, after=first - 1, upto=last, size=2 * PAGE), [])
    except Damaged as error:
        check.unread = error.seen
        check.failures += 1
        if first == last or check.failures > MOST_FAILURES:
            return
        middle = (first + last) // 2
        yield from _span(journal, check, first, middle)
        yield from _span(journal, check, middle + 1, last)
        return
    if len(found) > last - first + 1 or any(a.seq >= b.seq for a, b in pairwise(found)):
        # A page that lies where another should: SQLite passes on what it holds.
        found = sorted({fact.seq: fact for fact in found}.values(), key=lambda fact: fact.seq)
    yield from found


def _before_the_next(journal: Reading, lane: Lane, after: int) -> int:
    try:
        found = journal.facts(lane=lane, after=after, limit=1)
    except Damaged:
        return after
    return max(after, found[0].seq - 1) if found else NEWEST


def _dropped(journal: Reading, check: LaneCheck) -> int:
    stones = journal.tombstones(check.lane)
    for stone in stones:
        if stone.last_seq > check.base.seq:
            check.say(
                stone.first_seq, f"to {stone.last_seq} should have been dropped ({stone.why})"
            )
    return sum(stone.last_seq - stone.first_seq + 1 for stone in stones)


def began(journal: Reading) -> dict[str, Any] | None:
    """What the epoch says of the one before it; None: it is the first one, or nothing can be read."""
    try:
        for fact in journal.facts(lane=Lane.CORE, limit=1):
            if fact.seq == 1 and fact.kind == BEGAN:
                return fact.values
    except (Damaged, ValueError):
        return None
    return None


def _streams(journal: Reading, checks: dict[Lane, LaneCheck]) -> Iterator[Problem]:
    """The list of streams against the facts that were read; it is read after them, so it may be ahead of them."""
    try:
        listed = {info.name: info for info in journal.spans()}
        bases = {lane: journal.base(lane).seq for lane in Lane}
    except (Damaged, ValueError) as error:
        seen = error.seen if isinstance(error, Damaged) else str(error)
        yield Problem(None, None, f"the streams cannot be read: {seen}")
        return
    for info in listed.values():
        if check := checks.get(info.lane):
            yield from _stream(info, check, bases[info.lane])
    for lane, check in checks.items():
        for name, first in check.firsts.items():
            if name not in listed and first > bases[lane]:
                yield Problem(lane, first, f"begins {name}, which the list of streams lacks")


def _stream(info: StreamInfo, check: LaneCheck, base: int) -> Iterator[Problem]:
    newest, end, last = check.lasts.get(info.name), check.head.seq, info.last_seq
    if last is None or last <= base or last > end:
        if newest is None and not info.carried and info.first_seq <= end:
            what = f"is where {info.name} begins, and is not there"
            yield Problem(info.lane, info.first_seq, what)
    elif newest != last and not check.lacks(last):
        stands = f"whose newest fact is {newest}" if newest else "of which there is no fact"
        yield Problem(info.lane, last, f"should end {info.name}, {stands}")


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


def what_is_wrong(reading: Reading) -> str:
    """What is wrong with a journal, in words; empty: it is whole.

    Asked when a program has failed over it: a value of another type than any program wrote surfaces anywhere.
    """
    try:
        problems = verify(reading).problems
    except Damaged as damage:
        return damage.seen
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return f"a row holds what no program wrote ({error!r})"[:500]
    return problems[0].what if problems else ""
