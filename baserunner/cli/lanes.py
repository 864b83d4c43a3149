"""All machines as lanes over time: what the terminal, the SVG and the page draw.

Time runs by believable clocks. A boot whose clock nobody can trust is placed after what came before it, by its own
monotonic clock, and marked; so is time that would run backwards: order is always the journal's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from baserunner.cli.clock import Clock, moment
from baserunner.cli.story import CLOCK_JUMP_MS
from baserunner.machines import MACHINES
from baserunner.words import said
from interfaces.why import duration, printable

if TYPE_CHECKING:
    from journal.facts import Fact

GAP_MS = 1_000
"""Between two boots whose distance nobody knows."""
QUIET = {"resting": "in touch", "backing-off": "no answer"}
ASKING = "sending"
"""A heartbeat's states flip every few seconds: its lane shows whether Cloudly answers; asking again is no news."""

# fmt: off
TONES = {
    "in touch": "calm", "enrolled": "good", "succeeded": "good", "done": "good", "rolled-back": "warn",
    "offered": "wait", "admitted": "wait", "ready": "wait", "new": "wait", "awaiting-token": "warn", "asking": "wait",
    "downloading": "work", "staged": "held", "applying": "busy", "verifying": "check", "rebooting": "busy",
    "rolling-back": "warn", "no answer": "warn", "backing-off": "warn", "unclear": "bad", "rollback-needed": "bad",
    "failed": "bad", "refused": "bad", "rejected": "bad", "ended": "over", "superseded": "over", "boot": "calm",
}
# fmt: on


def tone(state: str) -> str:
    """How a state is coloured: calm, wait, work, held, busy, check, good, warn, bad, over."""
    return TONES.get(state, "wait")


@dataclass(slots=True)
class Span:
    """A state from one place on the axis to another; `left`: False while it is still so."""

    state: str
    stream: str
    from_ms: int
    to_ms: int
    title: str
    left: bool = True


@dataclass(frozen=True, slots=True)
class Tick:
    """A fact on the axis."""

    at_ms: int
    stream: str
    title: str
    outcome: str
    """The state that the attempt ended in, if this fact ended it."""
    tone: str
    trusted: bool


@dataclass(slots=True)
class Lane:
    name: str
    spans: list[Span] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to the whole device. `kind`: boot, start, jump or gap."""

    at_ms: int
    kind: str
    title: str


@dataclass(slots=True)
class Chart:
    """What is drawn, between two places on the axis (ms since 1970)."""

    from_ms: int
    to_ms: int
    lanes: list[Lane]
    boots: list[Span]
    marks: list[Mark]
    facts: int
    doubtful: bool
    """Some of it by a clock that nobody can trust."""

    def share(self, at_ms: int) -> float:
        """Where on the axis: 0 to 1."""
        return (at_ms - self.from_ms) / max(self.to_ms - self.from_ms, 1)

    @property
    def dark(self) -> list[tuple[int, int]]:
        """From where to where nothing was written, because the host was off or booting."""
        return [(one.to_ms, other.from_ms) for one, other in pairwise(self.boots)]

    @property
    def states(self) -> list[str]:
        """Those that are drawn, in the order in which they first came."""
        spans = [(span.from_ms, span.state) for lane in self.lanes for span in lane.spans]
        ends = [(t.at_ms, t.outcome) for lane in self.lanes for t in lane.ticks if t.outcome]
        return list(dict.fromkeys(state for _, state in sorted(spans + ends)))


class Draft:
    """Takes facts in order and becomes a Chart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._open: dict[str, Span] = {}
        self._boots: list[Span] = []
        self._marks: list[Mark] = []
        self._before: Fact | None = None
        self._trusted = False
        self._now = 0
        self._first: int | None = None
        self._facts = 0
        self._doubtful = False

    def take(self, fact: Fact) -> None:
        at = self._place(fact)
        self._device(fact, at)
        self._facts += 1
        if not fact.is_note:
            self._step(fact, at)
        elif fact.kind == "epoch-began":
            self._marks.append(Mark(at, "gap", f"{_when(at)}: {said(fact.kind, fact.data)}"))
        self._before = fact

    def chart(self) -> Chart:
        """The end: what is open reaches to the newest fact, and a little more, so that it can be seen."""
        first = self._first or 0
        end = self._now + max((self._now - first) // 50, 100)
        for span in [*self._open.values(), *self._boots[-1:]]:
            span.to_ms, span.left = end, False
            span.title += "\nstill so"
        lanes = [lane for lane in self._lanes.values() if lane.ticks]
        return Chart(first, end, lanes, self._boots, self._marks, self._facts, self._doubtful)

    def _place(self, fact: Fact) -> int:
        at, before = self._clock.at(fact), self._before
        self._doubtful |= not at.trusted
        if before is None:
            place = at.ms
        elif before.boot_id == fact.boot_id and not (
            at.trusted and not self._clock.at(before).trusted
        ):
            place = self._now + fact.mono_ms - before.mono_ms
        elif at.trusted or at.ms > self._now:
            place = at.ms
        else:
            place = self._now + GAP_MS
        self._now, self._trusted = max(place, self._now), at.trusted
        if self._first is None:
            self._first = self._now
        return self._now

    def _device(self, fact: Fact, at: int) -> None:
        before = self._before
        if before is None or before.boot_id != fact.boot_id:
            boot = printable(fact.boot_id)
            if before is not None:
                title = f"{_when(at)}: the host booted again (boot {boot[:8]})"
                dark = duration(at - self._boots[-1].to_ms)
                title += f"\nnothing was written for {dark} before that"
                self._marks.append(Mark(at, "boot", title))
            self._boots.append(Span("boot", boot[:8], at, at, f"boot {boot}, from {_when(at)} on"))
        else:
            jump = (fact.at_ms - before.at_ms) - (fact.mono_ms - before.mono_ms)
            if abs(jump) > CLOCK_JUMP_MS:
                title = f"{_when(at)}: the clock jumped by {duration(jump)}"
                self._marks.append(Mark(at, "jump", title))
        self._boots[-1].to_ms = at
        if fact.kind == "run-started":
            self._marks.append(Mark(at, "start", f"{_when(at)}: {said(fact.kind, fact.data)}"))

    def _step(self, fact: Fact, at: int) -> None:
        machine = fact.stream.partition("/")[0]
        lane = self._lanes.setdefault(machine, Lane(printable(machine)))
        before, after = _shown(machine, fact.src), _shown(machine, fact.dst)
        span = self._open.pop(fact.stream, None)
        if machine == "heartbeat" and span is not None:
            before = span.state
            after = before if fact.dst == ASKING else after
        if span is None and before != "new":
            span = self._begin(
                lane, before, fact.stream, self._first or at, "from before what is drawn"
            )
        final = _is_final(machine, fact.dst)
        if machine != "heartbeat" or before != after:
            lane.ticks.append(self._tick(fact, at, after if final else ""))
        if span is not None and span.state == after:
            self._open[fact.stream] = span
            return
        if span is not None:
            span.to_ms = at
            span.title += (
                f"\nuntil {_when(at)}, {duration(at - span.from_ms)}: {printable(fact.kind)}"
            )
        if not final:
            told = f"from {_when(at)}: {printable(fact.kind)}: {said(fact.kind, fact.data)}"
            self._open[fact.stream] = self._begin(lane, after, fact.stream, at, told)

    def _begin(self, lane: Lane, state: str, stream: str, at: int, told: str) -> Span:
        stream = printable(stream)
        span = Span(state, stream, at, at, f"{stream}: {state}\n{told}")
        lane.spans.append(span)
        return span

    def _tick(self, fact: Fact, at: int, outcome: str) -> Tick:
        arrow = f"{printable(fact.src)} -> {printable(fact.dst)}"
        stream, kind = printable(fact.stream), printable(fact.kind)
        title = f"{_when(at)}  {stream}\n{arrow}\n{kind}: {said(fact.kind, fact.data)}"
        return Tick(at, stream, title, outcome, tone(fact.dst), self._clock.at(fact).trusted)


def draft(facts: Iterable[Fact], clock: Clock) -> Chart:
    drawing = Draft(clock)
    for fact in facts:
        drawing.take(fact)
    return drawing.chart()


def axis(chart: Chart, most: int) -> Iterator[tuple[int, str]]:
    """At most about so many places on the axis, at round times, with what to write there."""
    span_s = max((chart.to_ms - chart.from_ms) / 1000, 0.001)
    step = next((s for s in _STEPS_S if span_s / s <= most), _STEPS_S[-1])
    while span_s / step > most:
        step *= 2
    at = -(-chart.from_ms // (step * 1000)) * step * 1000
    while at <= chart.to_ms:
        text = moment(at)
        yield at, text[5:10] if step >= 86400 else text[11:16] if step >= 60 else text[11:]
        at += step * 1000


_STEPS_S = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
    604800,
)


def _shown(machine: str, state: str) -> str:
    return printable(QUIET.get(state, state) if machine == "heartbeat" else state)


def _is_final(machine: str, state: str) -> bool:
    known = MACHINES.get(machine)
    return known is not None and known.machine.chart.is_final(state)


def _when(at: int) -> str:
    return f"{moment(at)} UTC"
