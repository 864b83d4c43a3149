"""A node's story as people read it: its facts in order, its epochs as chapters, its gaps where they are. Pure.

Rules:
- Order is always (epoch, n); no clock moves a fact.
- The time shown is the device's plus what it knew of its error; where it knew nothing, but the same boot did later or
  before, that; else it is marked as the device's own clock.
- A gap stands before the first fact that came after it; one at the end of an epoch stands after all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloudly import epochs
from cloudly.chunks import Kept
from cloudly.gaps import RETENTION
from cloudly.gaps import words as why_words
from cloudly.reports import load, mapping, text, whole
from cloudly.views import believable
from interfaces.journal import JournalEvent, Lane
from interfaces.why import duration, when

JUMP_MS = 5000
MOST_LINES = 200
MOST_LINE = 1000
MOST_WORDS = 500
MOST_KINDS = 8
"""Of a gap, in a sentence: so many kinds are named, and the others counted."""

TOLD = ""
OWN = "by the device's own clock"
OFF = "the device's clock was wrong"


@dataclass(frozen=True, slots=True)
class GapMark:
    """Facts that Cloudly will never get."""

    lane: str
    first_seq: int
    last_seq: int
    why: str
    words: str
    kinds: tuple[tuple[str, int], ...]
    since_ms: int | None
    until_ms: int | None
    what: str = "gap"
    at_ms: int | None = None
    """When Cloudly noted it."""

    @property
    def count(self) -> int:
        return self.last_seq - self.first_seq + 1


@dataclass(frozen=True, slots=True)
class Turn:
    """Something between two facts that a reader must know: a reboot, a jump of the clock."""

    what: str
    words: str


@dataclass(frozen=True, slots=True)
class Attached:
    """Lines of a log that were sent along with an attempt."""

    source: str
    lines: tuple[str, ...]
    omitted: int
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """One fact as it is shown."""

    epoch_n: int
    n: int
    lane: str
    seq: int
    stream: str
    kind: str
    src: str
    dst: str
    when_ms: int
    clock: str
    """Empty: believable; else what is wrong with the time."""
    received_at_ms: int
    said: str
    attached: Attached | None
    carried: bool
    """A copy of a fact of the epoch before."""
    opaque: bool
    before: tuple[GapMark | Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Chapter:
    """An epoch, or the part of it on this page. Lines are in order, the oldest first."""

    n: int
    epoch: str
    why: str
    words: str
    problem: str
    kept_in: str
    predecessor: str
    hole: str
    """What is missing before it, in a sentence: an epoch of which Cloudly has nothing. Empty: nothing is."""
    began_at_ms: int
    closed_at_ms: int | None
    lines: tuple[Line, ...]
    lost: tuple[GapMark, ...] = ()
    """Gaps at its end."""
    branch: tuple[GapMark, ...] = ()
    """What the device lost of its own of the epoch before, where Cloudly has another writer's facts."""
    more_gaps: bool = False
    """There are more than a page shows."""
    whole: bool = True
    """Its beginning is here."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of one epoch belongs on a page, as read from the database."""

    epoch: Mapping[str, Any]
    facts: Sequence[Kept]
    """The oldest first."""
    gaps: Sequence[Mapping[str, Any]]
    more_gaps: bool = False
    previous: Kept | None = None
    """The fact before the first one, if that is not shown."""
    at_end: bool = True
    """The epoch's end belongs on the page."""
    at_start: bool = field(default=True)


def chapter(part: Part) -> Chapter:
    """One epoch's part of a page."""
    row = part.epoch
    marks = [(one["at_n"], gap_mark(one)) for one in part.gaps]
    return Chapter(
        n=row["n"],
        epoch=row["epoch"],
        why=row["why"],
        words=epochs.words(row["why"]),
        problem=row["problem"],
        kept_in=row["kept_in"],
        predecessor=row["predecessor"],
        hole=hole_words(row["predecessor"]) if row["hole"] else "",
        began_at_ms=row["began_at_ms"],
        closed_at_ms=row["closed_at_ms"],
        lines=tuple(_lines(part, [one for one in marks if one[0] is not None])),
        lost=tuple(mark for at_n, mark in marks if at_n is None) if part.at_end else (),
        branch=tuple(_branch_mark(one) for one in json.loads(row["branch"])),
        more_gaps=part.more_gaps,
        whole=part.at_start,
    )


def _lines(part: Part, marks: list[tuple[int, GapMark]]) -> Iterable[Line]:
    offsets = _offsets(part.facts)
    waiting = sorted(marks, key=lambda one: (one[0], one[1].first_seq))
    previous = {carried(part.previous, part.epoch): part.previous} if part.previous else {}
    for fact in part.facts:
        due = [mark for at_n, mark in waiting if at_n <= fact.n]
        waiting = [one for one in waiting if one[0] > fact.n]
        copy = carried(fact, part.epoch)  # copies are of another time than the facts around them
        yield line(fact, part.epoch, offsets, (*_turns(previous.get(copy), fact), *due))
        if fact.event is not None:
            previous[copy] = fact


def line(
    fact: Kept,
    epoch: Mapping[str, Any],
    offsets: Mapping[str, int],
    before: tuple[GapMark | Turn, ...] = (),
) -> Line:
    event = fact.event
    when_ms, clock = _when(fact, offsets)
    values = load(event.data) if event is not None else {}
    return Line(
        epoch_n=fact.epoch_n,
        n=fact.n,
        lane=fact.lane,
        seq=fact.seq,
        stream=event.stream if event else "",
        kind=event.kind if event else "",
        src=event.src if event else "",
        dst=event.dst if event else "",
        when_ms=when_ms,
        clock=clock,
        received_at_ms=fact.received_at_ms,
        said=_said(event, values) if event else "this Cloudly cannot read this fact; it is kept",
        attached=_attached(event, values) if event else None,
        carried=carried(fact, epoch),
        opaque=event is None,
        before=before,
    )


def gap_mark(row: Mapping[str, Any]) -> GapMark:
    kinds = mapping(json.loads(row["kinds"]))
    return GapMark(
        lane=row["lane"],
        first_seq=row["first_seq"],
        last_seq=row["last_seq"],
        why=row["why"],
        words=why_words(row["why"]),
        kinds=tuple(sorted((kind, n) for kind, n in kinds.items() if whole(n) is not None)),
        since_ms=row["since_ms"],
        until_ms=row["until_ms"],
        at_ms=row.get("at_ms"),
    )


def _branch_mark(one: Mapping[str, Any]) -> GapMark:
    return replace(gap_mark(one), what="here" if one.get("here") else "before")


def hole_words(predecessor: str) -> str:
    return (
        f"of epoch {predecessor[:12]}, which came before it, Cloudly has nothing: what the device did since the end of"
        " what is here is missing, and nobody can say how much that is"
    )


def branch_words(gap: GapMark) -> str:
    """The same of facts under whose numbers Cloudly has another writer's."""
    if gap.what == "here":
        return f"of its own, where Cloudly has facts of the same numbers, maybe another writer's: {gap_words(gap)}"
    return f"of its own in the epoch before, beside another writer's: {gap_words(gap)}"


def _offsets(facts: Iterable[Kept]) -> dict[str, int]:
    """Per boot, true time minus its monotonic clock, where a fact of that boot knew it."""
    events = [fact.event for fact in facts if fact.event is not None]
    return {
        event.boot_id: event.at_ms + event.skew_ms - event.mono_ms
        for event in events
        if event.skew_ms is not None
    }


def _when(fact: Kept, offsets: Mapping[str, int]) -> tuple[int, str]:
    event = fact.event
    if event is None:
        return fact.received_at_ms, "when Cloudly got it"
    if event.skew_ms is not None:
        return event.at_ms + event.skew_ms, TOLD
    if event.boot_id in offsets:
        return offsets[event.boot_id] + event.mono_ms, TOLD
    return event.at_ms, OWN if believable(event.at_ms, fact.received_at_ms) else OFF


def true_ms(fact: Kept) -> int:
    """When it happened as far as one fact can tell: by its own clock, corrected, or when Cloudly got it."""
    when_ms, clock = _when(fact, {})
    return fact.received_at_ms if clock == OFF else when_ms


def gap_words(gap: GapMark) -> str:
    """What is missing, where, and why, in a sentence."""
    if gap.why == RETENTION:
        return let_go_words(gap)
    many = f"{gap.count} fact{'' if gap.count == 1 else 's'} missing in the {gap.lane} lane"
    place = f"{gap.first_seq}" if gap.count == 1 else f"{gap.first_seq} to {gap.last_seq}"
    named = [f"{n} {kind[:100]}" for kind, n in gap.kinds[:MOST_KINDS]]
    named += [f"and {len(gap.kinds) - MOST_KINDS} other kinds"] if gap.kinds[MOST_KINDS:] else []
    kinds = "; " + ", ".join(named) if named else ""
    span = ""
    if gap.since_ms is not None and gap.until_ms is not None:
        span = f"; by the device's clock from {when(gap.since_ms)} to {when(gap.until_ms)}"
    return f"{many} ({place}): {gap.words}{kinds}{span}"


def let_go_words(gap: GapMark) -> str:
    """What was here and is no more because it is old: no loss, and not in silence."""
    many = f"{gap.count} older fact{'' if gap.count == 1 else 's'} of the {gap.lane} lane"
    place = f"{gap.first_seq}" if gap.count == 1 else f"{gap.first_seq} to {gap.last_seq}"
    until = "" if gap.until_ms is None else f", which Cloudly got until {when(gap.until_ms)},"
    let_go = "" if gap.at_ms is None else f" on {when(gap.at_ms)}"
    return f"{many} ({place}){until} were let go{let_go}: facts are kept for CLOUDLY_JOURNAL_DAYS"


def _turns(previous: Kept | None, fact: Kept) -> list[Turn]:
    before, event = None if previous is None else previous.event, fact.event
    if before is None or event is None:
        return []
    if before.boot_id != event.boot_id:
        return [Turn("reboot", "the host booted again")]
    jump_ms = (event.at_ms - before.at_ms) - (event.mono_ms - before.mono_ms)
    if abs(jump_ms) <= JUMP_MS:
        return []
    way = "forward" if jump_ms > 0 else "back"
    return [Turn("jump", f"the device's clock was set {way} by {duration(abs(jump_ms))}")]


def carried(fact: Kept, epoch: Mapping[str, Any]) -> bool:
    """Whether it is a copy of a fact of the epoch before."""
    until = epoch["carried_core" if fact.lane == Lane.CORE else "carried_log"] or 0
    is_opening = fact.lane == Lane.CORE and fact.seq == 1
    return fact.seq <= until and not is_opening


def _said(event: JournalEvent, values: Mapping[str, Any]) -> str:
    """What a fact tells beside its name: its reason or problem, or its values as they are."""
    if event.kind == epochs.KIND:
        return (text(values.get("problem")) or "")[:MOST_WORDS]
    if _is_lines(event, values):
        return ""
    for name in ("reason", "problem"):
        words = text(values.get(name))
        if words:
            return words[:MOST_WORDS]
    if event.dst:
        return ""
    plain = (
        f"{name} {value}" for name, value in values.items() if not isinstance(value, dict | list)
    )
    return ", ".join(plain)[:MOST_WORDS]


def _is_lines(event: JournalEvent, values: Mapping[str, Any]) -> bool:
    return event.kind == "lines" and not event.dst and isinstance(values.get("lines"), list)


def _attached(event: JournalEvent, values: Mapping[str, Any]) -> Attached | None:
    if not _is_lines(event, values):
        return None
    lines = [str(one)[:MOST_LINE] for one in values["lines"]]
    omitted = max(0, min(whole(values.get("omitted")) or 0, 2**53))
    return Attached(
        source=(text(values.get("source")) or "a log")[:100],
        lines=tuple(lines[-MOST_LINES:]),
        omitted=omitted + max(0, len(lines) - MOST_LINES),
        why=(text(values.get("why")) or "")[:MOST_WORDS],
    )
