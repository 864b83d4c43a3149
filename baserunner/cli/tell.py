"""`journal show` and `journal tail`: one attempt as a story, and the newest facts as they come."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import typer

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import FOOTNOTE, Clock
from baserunner.cli.facts import fact_json
from baserunner.cli.story import Story, tail_lines

if TYPE_CHECKING:
    from baserunner.cli.asked import Asked
    from journal.facts import Fact
    from journal.survey import Survey

USUAL = 20
"""How many facts a tail shows when no number is given."""


def print_story(  # noqa: PLR0913 - the options of a command
    survey: Survey, stream: str, filters: Asked, *, all_notes: bool, pager: bool, as_json: bool
) -> None:
    """Exits 2 if it is no stream's name, 1 if there is none, or nothing of it was asked for."""
    asked.stream_name(stream)
    clock = Clock(survey)
    facts = _facts(survey, stream, filters)
    first = next(facts, None)
    if first is None:
        known = survey.stream(stream) is not None
        what = (
            f"nothing of {stream} is within these filters"
            if known
            else f"there is no stream {stream}"
        )
        show.fail(f"{what}: see `baserunner journal list`", 1)
    facts = chain([first], facts)
    if as_json:
        pages.out(fact_json(fact, clock) for fact in facts)
        return
    told = Story(survey, stream, facts, clock).lines(all_notes=all_notes)
    pages.out(chain(told, _now(survey, stream)), pager=pager)


def _facts(survey: Survey, stream: str, filters: Asked) -> Iterator[Fact]:
    """The whole story page by page, unless only a part of it is wanted."""
    whole = (
        filters.limit,
        filters.after,
        filters.before,
        filters.since,
        filters.until,
        filters.boot,
    )
    if all(value is None for value in whole):
        return survey.story(stream)
    return asked.facts(filters, survey)


def _now(survey: Survey, stream: str) -> Iterator[str]:
    """What an attempt that has not ended waits for."""
    info = survey.stream(stream)
    if info is None or info.ended:
        return
    from baserunner.cli.inspect import why_lines
    from baserunner.why import explain_all

    for answer in explain_all(survey, stream):
        yield ""
        yield from why_lines(answer)


def print_tail(survey: Survey, filters: Asked, *, follow: bool, as_json: bool) -> None:
    clock, after = Clock(survey), survey.newest_n()
    facts = list(asked.facts(filters, survey, usual=USUAL))
    _print(facts, clock, as_json=as_json)
    if follow:
        _follow(survey, filters, clock, max(after, facts[-1].n if facts else 0), as_json=as_json)
    elif not as_json and sys.stdout.isatty() and not all(clock.at(fact).trusted for fact in facts):
        typer.echo(FOOTNOTE)


def _print(facts: Iterable[Fact], clock: Clock, *, as_json: bool) -> None:
    pages.out((fact_json(f, clock) for f in facts) if as_json else tail_lines(facts, clock))


def _follow(survey: Survey, filters: Asked, clock: Clock, after: int, *, as_json: bool) -> None:
    import anyio

    from interfaces.world import RealWorld

    what = asked.sought(filters, survey)

    async def follow() -> None:
        world, seen = RealWorld(), after
        while not _nobody_reads():
            newest = survey.newest_n()
            fresh = (
                list(islice(survey.each(replace(what, after=seen)), 500)) if newest > seen else []
            )
            _print(fresh, clock, as_json=as_json)
            seen = fresh[-1].n if len(fresh) == 500 else max(newest, seen)
            await world.sleep(0.2)

    try:
        anyio.run(follow)
    except KeyboardInterrupt:
        raise typer.Exit from None
    except BrokenPipeError:
        os._exit(0)  # the reader of our pipe is gone; nothing of ours is lost


def _nobody_reads() -> bool:
    """Whether the other end of our pipe is closed: a journal that is quiet would never make us write, and notice."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except (OSError, ValueError):  # no file of the kernel's
        return False
    return bool(poll.poll(0))
