"""`journal timeline`: the machines as lanes, in the terminal, as an SVG or as a page to attach to a ticket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import Clock
from baserunner.cli.lanes import Chart, Mark, draft
from journal.facts import Lane

if TYPE_CHECKING:
    from baserunner.cli.asked import Asked
    from journal.facts import Fact
    from journal.survey import Survey

USUAL_MS = 86_400_000
MOST = 50_000
"""Facts that are looked at when nothing narrows them: a day has 3,000 at a heartbeat a minute."""


def print_timeline(
    survey: Survey, filters: Asked, *, svg: Path | None, html: Path | None, as_json: bool
) -> None:
    """Exits 1 if there is nothing to draw."""
    clock = Clock(survey)
    facts = list(_facts(survey, filters, clock))
    if not facts:
        show.fail("nothing to draw: no fact is within these filters", 1)
    chart = draft(facts, clock)
    chart.marks += _gaps(survey, chart)
    for path, whole in ((svg, False), (html, True)):
        if path is not None:
            _write(path, survey, chart, facts if whole else None, clock)
    if as_json:
        pages.out(_objects(chart))
    elif svg is None and html is None:
        from baserunner.cli.lanes_terminal import print_chart

        print_chart(chart)


def _facts(survey: Survey, filters: Asked, clock: Clock) -> Iterator[Fact]:
    if filters.limit is not None or filters.is_narrow or filters.after is not None:
        return asked.facts(filters, survey)
    newest: list[Fact] = []
    end: int | None = None
    for fact in islice(survey.each(asked.sought(filters, survey), newest=True), MOST + 1):
        if len(newest) == MOST:
            typer.echo(
                f"only the newest {MOST} facts of that day: --since or -n say it otherwise",
                err=True,
            )
            break
        at = clock.at(fact)
        end = at.ms if end is None else end
        if at.trusted and at.ms < end - USUAL_MS:
            break
        newest.append(fact)
    return reversed(newest)


def _gaps(survey: Survey, chart: Chart) -> Iterator[Mark]:
    """What was dropped before Cloudly had it, where it ends on the axis."""
    from baserunner.cli.carry import gap_words

    for gap in (gap for lane in Lane for gap in survey.tombstones(lane)):
        at = min(max(gap.until_ms or chart.from_ms, chart.from_ms), chart.to_ms)
        yield Mark(at, "gap", gap_words(gap))


def _write(
    path: Path, survey: Survey, chart: Chart, facts: list[Fact] | None, clock: Clock
) -> None:
    from baserunner.cli.lanes_svg import page, picture

    text = picture(chart) if facts is None else page(chart, facts, clock, epoch=survey.epoch)
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        show.fail(f"{path} is there already; give a new name", 2)
    except OSError as error:
        show.fail(f"cannot write {path}: {error.strerror}", 1)
    typer.echo(f"{chart.facts} facts drawn into {path}", err=True)


def _objects(chart: Chart) -> Iterator[str]:
    """A line per state that was visited, and per mark; in the order of time."""
    found: list[tuple[int, dict[str, object]]] = []
    for lane in chart.lanes:
        for span in lane.spans:
            told = {"machine": lane.name, "stream": span.stream, "state": span.state}
            ends = {"from_ms": span.from_ms, "to_ms": span.to_ms if span.left else None}
            found.append((span.from_ms, {**told, **ends}))
        for tick in lane.ticks:
            if tick.outcome:
                told = {"machine": lane.name, "stream": tick.stream, "state": tick.outcome}
                found.append((tick.at_ms, {**told, "from_ms": tick.at_ms, "to_ms": None}))
    found += [
        (mark.at_ms, {"mark": mark.kind, "at_ms": mark.at_ms, "said": mark.title})
        for mark in chart.marks
    ]
    found.sort(key=lambda pair: pair[0])
    return (json.dumps(told, ensure_ascii=False, separators=(",", ":")) for _, told in found)
