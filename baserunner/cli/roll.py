"""`journal list`: the attempts, the newest first, a page of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import FOOTNOTE, Clock
from baserunner.cli.facts import attempt_json

if TYPE_CHECKING:
    from baserunner.cli.asked import Asked
    from journal.boots import Sought
    from journal.survey import Attempt, Survey

USUAL = 40
"""How many are listed when no number is given."""


def print_roll(survey: Survey, filters: Asked, *, as_json: bool) -> None:
    what, clock = asked.sought(filters, survey), Clock(survey)
    limit = USUAL if filters.limit is None else filters.limit
    found = _matching(survey, what, clock)
    if as_json:
        pages.out(attempt_json(attempt, clock) for attempt in islice(found, limit))
        return
    page = list(islice(found, limit))
    rest = next(found, None) if page else None
    if page:
        _table(page, clock)
    elif limit:
        typer.echo("no stream matches" if filters != type(filters)() else "the journal is empty")
    if rest is not None:
        sys.stdout.flush()
        typer.echo(f"there are more: --before {page[-1].n}, or a larger -n", err=True)


def _table(page: list[Attempt], clock: Clock) -> None:
    doubtful = False
    rows = []
    for attempt in page:
        info, last = attempt.info, attempt.info.last
        began = clock.at(attempt.first) if attempt.first else None
        at = clock.at(last) if last else None
        took = str(clock.between(attempt.first, last)) if attempt.first and last else ""
        doubtful |= any(not moment.trusted for moment in (began, at) if moment)
        rows.append(
            [
                info.name,
                show.state(info.state or "?"),
                "ended" if info.ended else "open",
                at.day_and_time if at else "",
                took,
                last.kind if last else "",
                str(attempt.n),
            ]
        )
    show.table(["stream", "state", "", "last fact (UTC)", "took", "which", "n"], rows)
    if doubtful:
        typer.echo(FOOTNOTE)


def _matching(survey: Survey, what: Sought, clock: Clock) -> Iterator[Attempt]:
    """For an attempt, the filters hold if they hold for any of the time between its first and its last fact."""
    for attempt in _candidates(survey, what):
        info, last = attempt.info, attempt.info.last
        if what.before is not None and attempt.n >= what.before:
            continue
        if info.ended and last is not None and last.n <= what.after:
            continue
        if what.since_ms is not None and info.ended and last and clock.at(last).ms < what.since_ms:
            continue
        if (
            what.until_ms is not None
            and attempt.first
            and clock.at(attempt.first).ms > what.until_ms
        ):
            continue
        yield attempt


def _candidates(survey: Survey, what: Sought) -> Iterator[Attempt]:
    if what.streams is None:
        return survey.attempts(what.machine)
    named = filter(None, map(survey.attempt, what.streams))
    return iter(sorted(named, key=lambda attempt: -attempt.n))
