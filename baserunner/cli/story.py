"""Telling facts to people, line by line: relative times, marks for what happened to the device in between, reasons.

A mark stands where the host booted again, the agent started again, the clock jumped, or the beginning is gone. Runs of
notes that say the same with other numbers (progress) are folded into their first and last.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

from baserunner.cli import show
from baserunner.cli.clock import FOOTNOTE, UNTOLD, Clock
from baserunner.cli.facts import LINES, arrow_of, words_of
from baserunner.cli.stays import Total, Totals, Visits
from interfaces.why import duration, printable

if TYPE_CHECKING:
    from journal.facts import Fact
    from journal.survey import Survey

CLOCK_JUMP_MS = 5000
FOLDED = 4
"""Progress notes in a row from which on they are folded."""
BAR = 24
LEAST_ROOM = 30
"""How many columns beside the states a sentence needs to be broken there, and not by the terminal."""


class Story:
    """One attempt, told once. `facts` may be a part of it."""

    def __init__(self, survey: Survey, name: str, facts: Iterable[Fact], clock: Clock) -> None:
        self._survey = survey
        self._name = name
        self._facts = facts
        self._clock = clock
        self._first: Fact | None = None
        self._last: Fact | None = None
        self._visits, self._totals = Visits(), Totals(clock)
        self._doubtful = False

    def lines(self, *, all_notes: bool = False) -> Iterator[str]:
        """Head, facts with their marks, time in states. The end of an open attempt is `why`'s to tell."""
        for run in _runs(self._facts):
            shown = list(run)
            for number, fact in enumerate(shown):
                if not all_notes and len(shown) >= FOLDED and 0 < number < len(shown) - 1:
                    if number == 1:
                        yield show.paint(f"{'':>13}  ... {len(shown) - 2} more", None, dim=True)
                    continue
                yield from self._fact(fact)
        yield from self._end()

    def _fact(self, fact: Fact) -> Iterator[str]:
        if self._first is None:
            self._first = fact
            yield from self._head(fact)
        elif self._last is not None:
            yield from self._between(self._last, fact)
        self._last = fact
        stay = self._visits.see(fact)
        if stay is not None:
            self._totals.add(stay)
        yield from _beside(f"{self._when(fact):>13}  {_painted(fact)} ", 48, words_of(fact))

    def _head(self, first: Fact) -> Iterator[str]:
        at = self._moment(first)
        boot = printable(first.boot_id)[:8]
        yield show.paint(
            f"{self._name}, from {at} UTC on, boot {boot}, epoch {self._survey.epoch[:8]}",
            None,
            dim=True,
        )
        info = self._survey.stream(self._name)
        if info is not None and info.carried and first.src == info.carried:
            yield _mark(
                f"what came before is no longer here, Cloudly has it; it stood at {info.carried}"
            )

    def _moment(self, fact: Fact) -> str:
        at = self._clock.at(fact)
        self._doubtful |= not at.trusted
        return at.day_and_time

    def _when(self, fact: Fact) -> str:
        """The first fact's time of day; then how long after it, as far as that is known."""
        assert self._first is not None  # noqa: S101 - set before any is shown
        if fact is self._first:
            return self._moment(fact)[11:]
        since = self._clock.between(self._first, fact)
        return f"+{since}" if since.sure else self._moment(fact)[11:]

    def _between(self, before: Fact, fact: Fact) -> Iterator[str]:
        for start in self._survey.begins("heartbeat", "run-started", before.n, fact.n):
            if start.stream != self._name:
                if start.boot_id != before.boot_id:
                    yield self._booted(before, start)
                yield _mark("the agent started again", self._when(start))
                before = start
        yield from marks(self._clock, before, fact)

    def _booted(self, before: Fact, after: Fact) -> str:
        return next(marks(self._clock, before, after))

    def _end(self) -> Iterator[str]:
        info = self._survey.stream(self._name)
        if info is not None and not info.ended:
            for stay in self._visits.still():
                self._totals.add(stay)
        found = self._totals.all()
        if found:
            yield ""
            yield show.paint("time in states", None, dim=True)
            longest = max(total.ms for total in found)
            yield from (_total_line(total, longest) for total in found)
            self._doubtful |= any(not total.sure for total in found)
        if self._doubtful:
            yield show.paint(FOOTNOTE, None, dim=True)


def marks(clock: Clock, before: Fact, fact: Fact) -> Iterator[str]:
    """What happened to the device between two facts, if anything."""
    if before.boot_id != fact.boot_id:
        gone = clock.between(before, fact)
        off = f", {gone} after the fact before" if gone.sure else ""
        yield _mark(f"the host booted again{off}")
        return
    jump = (fact.at_ms - before.at_ms) - (fact.mono_ms - before.mono_ms)
    if abs(jump) > CLOCK_JUMP_MS:
        yield _mark(f"the clock jumped by {duration(jump)}")


def tail_lines(facts: Iterable[Fact], clock: Clock, before: Fact | None = None) -> Iterator[str]:
    """Facts of any streams, each with its full time and its stream's name."""
    for fact in facts:
        if before is not None:
            yield from marks(clock, before, fact)
        yield from fact_lines(fact, clock)
        before = fact


def fact_lines(fact: Fact, clock: Clock) -> list[str]:
    at = clock.at(fact).day_and_time
    return _beside(f"{at:20} {printable(fact.stream):16} {_painted(fact)} ", 71, words_of(fact))


def _beside(head: str, width: int, words: list[str]) -> list[str]:
    """The words to the right of the head, whose printed width is given; broken between words on a terminal."""
    room = shutil.get_terminal_size().columns - width if sys.stdout.isatty() else 0
    if room >= LEAST_ROOM:
        words = [part for each in words for part in wrap(each, room)]
    first, *below = words
    return [head + first, *(f"{'':{width}}{line}" for line in below)]


def _runs(facts: Iterable[Fact]) -> Iterator[Iterator[Fact]]:
    """Neighbouring notes of one kind together; every other fact alone. Lines that were kept are all shown."""
    number = 0

    def key(fact: Fact) -> object:
        nonlocal number
        number += 1
        return fact.kind if fact.is_note and fact.kind != LINES else number

    return (run for _, run in groupby(facts, key))


def _painted(fact: Fact) -> str:
    arrow = arrow_of(fact)
    return show.paint(f"{arrow:32}", show.STATE_COLOURS.get(fact.dst))


def _mark(what: str, when: str = "") -> str:
    return show.paint(f"{when:>13}  ---- {what} ----", "yellow")


def _total_line(total: Total, longest_ms: int) -> str:
    bar = "#" * max(1 if total.ms else 0, round(BAR * total.ms / longest_ms) if longest_ms else 0)
    length = ("" if total.sure else UNTOLD) + duration(total.ms)
    if total.open:
        length = "since then" if not total.ms else f"{length} and since then"
    visits = f", {total.visits} visits" if total.visits > 1 else ""
    boots = ", across boots" if total.across_boots else ""
    return f"  {printable(total.state):16} {length:>12}  {bar:{BAR}}{visits}{boots}".rstrip()
