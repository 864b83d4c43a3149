"""`journal diff`: two attempts side by side, aligned by what happened, with how long it took in each.

Equal means: the same facts led through the same states. Times and data may differ; the time between two facts stands
beside each, and what took much longer in one of them is marked.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import Clock, Length
from baserunner.cli.facts import arrow_of
from baserunner.words import said
from interfaces.why import printable

if TYPE_CHECKING:
    from journal.facts import Fact
    from journal.survey import Survey

MUCH = 2.0
"""From which factor on a length is marked; below a second nothing is."""
LEAST_MS = 1000
PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact, and how long after the one before it."""

    fact: Fact
    after: Length | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.fact.kind, self.fact.src, self.fact.dst


Row = tuple[str, Entry | None, Entry | None]
"""`=`, or `<` only in the first, or `>` only in the second; and the facts."""


def print_diff(survey: Survey, one: str, other: str, *, pager: bool, as_json: bool) -> None:
    """Exits 0 if the stories are the same, 1 if they differ or one is not there."""
    clock = Clock(survey)
    first, second = _entries(survey, one, clock), _entries(survey, other, clock)
    rows = list(aligned(first, second))
    same = all(sign == "=" for sign, _, _ in rows)
    if as_json:
        pages.out(map(_json, rows))
    else:
        pages.out(_lines(rows, (one, other), clock), pager=pager)
    raise typer.Exit(0 if same else 1)


def aligned(first: list[Entry], second: list[Entry]) -> Iterator[Row]:
    matcher = SequenceMatcher(None, [e.key for e in first], [e.key for e in second], autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            yield from (("=", x, y) for x, y in zip(first[a:b], second[c:d], strict=True))
        else:
            yield from (("<", x, None) for x in first[a:b])
            yield from ((">", None, y) for y in second[c:d])


def _entries(survey: Survey, name: str, clock: Clock) -> list[Entry]:
    asked.stream_name(name)
    facts = [fact for fact in survey.story(name) if not fact.is_note]
    if not facts:
        show.fail(f"there is no stream {name}: see `baserunner journal list`", 1)
    lengths = [None, *(clock.between(before, fact) for before, fact in pairwise(facts))]
    return [Entry(fact, length) for fact, length in zip(facts, lengths, strict=True)]


def _lines(rows: list[Row], names: tuple[str, str], clock: Clock) -> Iterator[str]:
    columns = (
        shutil.get_terminal_size((PIPE_WIDTH, 0)).columns if sys.stdout.isatty() else PIPE_WIDTH
    )
    width = max((columns - 5) // 2, 36)
    yield f"{names[0]:<{width}}     {names[1]}".rstrip()
    for sign, first, second in rows:
        mark = "~" if sign == "=" and _differs(first, second) else " " if sign == "=" else sign
        colour = {"<": "red", ">": "green", "~": "yellow"}.get(mark)
        halves = zip_longest(_half(first, width), _half(second, width), fillvalue="")
        for number, (left, right) in enumerate(halves):
            line = f"{left:<{width}}  {mark if not number else ' '}  {right}".rstrip()
            yield show.paint(line, colour)
    yield ""
    totals = [_total(side, clock) for side in ([r[1] for r in rows], [r[2] for r in rows])]
    yield f"{totals[0]:<{width}}     {totals[1]}".rstrip()


def _half(entry: Entry | None, width: int) -> list[str]:
    if entry is None:
        return []
    after = "" if entry.after is None else f"+{entry.after}"
    words = said(entry.fact.kind, entry.fact.data)
    head = f"{after:>11}  {arrow_of(entry.fact)}"
    told = f"{'':11}  {printable(entry.fact.kind)}: {words}"
    return [_cut(head, width), _cut(told, width)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _differs(first: Entry | None, second: Entry | None) -> bool:
    """Whether one took much longer than the other."""
    lengths = [entry.after.ms for entry in (first, second) if entry and entry.after]
    return (
        len(lengths) == 2 and max(lengths) > LEAST_MS and max(lengths) > MUCH * max(min(lengths), 1)
    )


def _total(side: list[Entry | None], clock: Clock) -> str:
    facts = [entry.fact for entry in side if entry]
    return f"{len(facts)} facts, {clock.between(facts[0], facts[-1])}, {facts[-1].dst}"


def _json(row: Row) -> str:
    sign, first, second = row
    told = {"same": sign == "=", "a": _told(first), "b": _told(second)}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _told(entry: Entry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    fact, after = entry.fact, entry.after
    length = {"after_ms": after.ms if after else None, "after_sure": after.sure if after else True}
    return {"seq": fact.seq, "kind": fact.kind, "src": fact.src, "dst": fact.dst, **length}
