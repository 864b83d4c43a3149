"""`journal grep`: facts whose kind, new state, sentence or data match a regular expression."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import Clock
from baserunner.cli.facts import fact_json
from baserunner.cli.story import fact_lines
from baserunner.words import said

if TYPE_CHECKING:
    from baserunner.cli.asked import Asked
    from journal.facts import Fact
    from journal.survey import Survey


def print_matches(  # noqa: PLR0913 - the options of a command
    survey: Survey, filters: Asked, pattern: str, *, ignore_case: bool, pager: bool, as_json: bool
) -> None:
    """Exits 1 if nothing matches, 2 if the pattern is none."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, RecursionError, OverflowError) as error:
        show.fail(f"{pattern!r} is no regular expression: {error}", 2)
    found = _found(survey, filters, wanted)
    first = next(found, None)
    if first is None:
        raise typer.Exit(1)
    clock = Clock(survey)
    facts = chain([first], found)
    if as_json:
        pages.out(fact_json(fact, clock) for fact in facts)
    else:
        pages.out((line for fact in facts for line in fact_lines(fact, clock)), pager=pager)


def _found(survey: Survey, filters: Asked, wanted: re.Pattern[str]) -> Iterator[Fact]:
    """In order. With a number and no --after: from the newest fact back, and no further than need be."""

    @lru_cache(maxsize=10_000)  # most heartbeats say the same
    def matches(kind: str, dst: str, data: str) -> bool:
        return any(map(wanted.search, (kind, dst, data))) or bool(wanted.search(said(kind, data)))

    what, limit = asked.sought(filters, survey), filters.limit
    back = limit is not None and filters.after is None
    facts = (
        fact for fact in survey.each(what, newest=back) if matches(fact.kind, fact.dst, fact.data)
    )
    if limit is None:
        return facts
    some = islice(facts, limit)
    return reversed(deque(some)) if back else some
