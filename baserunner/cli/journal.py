"""`baserunner journal ...`: what happened, on the device or on a copy of it; the tool for 3 a.m.

Here are the commands and their options; each loads what it does when it runs. Exit codes: 0 well; 1 nothing found,
something wrong, or not readable; 2 wrong usage.
"""

# ruff: noqa: FBT002, PLR0913, PLR0917 - a parameter of a command is an option, and typer passes it by name

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baserunner.cli import show
from baserunner.cli.asked import (
    After,
    AsJson,
    Asked,
    Before,
    Boot,
    Deployment,
    File,
    Limit,
    Machine,
    NoPager,
    Since,
    Stream,
    Until,
)

app = typer.Typer(
    help="What happened, in order: on the device, or on a copy taken off it (--file).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Seq = Annotated[
    int | None, typer.Option("--until", metavar="SEQ", help="Stop after this fact of its lane.")
]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as facts come.")]
AllNotes = Annotated[bool, typer.Option("-a", "--all", help="Fold no progress notes.")]
Svg = Annotated[Path | None, typer.Option("--svg", help="Draw it into this new file.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Draw it into this new page, with the facts below it.")
]
NewFile = Annotated[Path | None, typer.Option("--to", help="A new file; default: standard output.")]
NewFolder = Annotated[
    Path, typer.Option("--to", help="A folder without a journal; it is made if need be.")
]
IgnoreCase = Annotated[
    bool, typer.Option("-i", "--ignore-case", help="Upper and lower case are the same.")
]


@app.command("list")
def list_(
    machine: Machine = None,
    deployment: Deployment = None,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    after: After = None,
    before: Before = None,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """The streams (one per machine and attempt) and where they stand, the newest first."""
    from baserunner.cli.roll import print_roll

    with show.reader(file) as survey:
        filters = Asked(limit, after, before, since, until, machine, deployment, boot)
        print_roll(survey, filters, as_json=as_json)


@app.command("show")
def show_(
    stream: Stream,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    after: After = None,
    before: Before = None,
    all_notes: AllNotes = False,
    no_pager: NoPager = False,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """The story of one attempt: relative times, time in states, reboots, reasons in words."""
    from baserunner.cli.tell import print_story

    with show.reader(file) as survey:
        filters = Asked(limit, after, before, since, until, stream, None, boot)
        print_story(
            survey, stream, filters, all_notes=all_notes, pager=not no_pager, as_json=as_json
        )


@app.command()
def tail(
    follow: Follow = False,
    machine: Machine = None,
    deployment: Deployment = None,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    after: After = None,
    before: Before = None,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """The newest facts of all machines, in their common order: 20, if nothing else is said."""
    from baserunner.cli.tell import print_tail

    with show.reader(file) as survey:
        filters = Asked(limit, after, before, since, until, machine, deployment, boot)
        print_tail(survey, filters, follow=follow, as_json=as_json)


@app.command()
def grep(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="A regular expression.")],
    ignore_case: IgnoreCase = False,
    machine: Machine = None,
    deployment: Deployment = None,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    after: After = None,
    before: Before = None,
    no_pager: NoPager = False,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """Facts whose kind, new state, sentence or data match. Exit code 1 if there are none."""
    from baserunner.cli.grep import print_matches

    with show.reader(file) as survey:
        filters = Asked(limit, after, before, since, until, machine, deployment, boot)
        print_matches(
            survey, filters, pattern, ignore_case=ignore_case, pager=not no_pager, as_json=as_json
        )


@app.command()
def timeline(
    svg: Svg = None,
    html: Html = None,
    machine: Machine = None,
    deployment: Deployment = None,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    after: After = None,
    before: Before = None,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """All machines as lanes over time; the newest day, if nothing else is said."""
    from baserunner.cli.timeline import print_timeline

    with show.reader(file) as survey:
        filters = Asked(limit, after, before, since, until, machine, deployment, boot)
        print_timeline(survey, filters, svg=svg, html=html, as_json=as_json)


@app.command()
def replay(
    stream: Stream,
    until: Seq = None,
    limit: Limit = None,
    no_pager: NoPager = False,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """What the agent knew after each fact: state and belief, step by step, by the same fold."""
    from baserunner.cli.replay import print_replay

    with show.reader(file) as survey:
        print_replay(survey, stream, until, limit, pager=not no_pager, as_json=as_json)


@app.command()
def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A stream, for example app-update/11.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another, for example app-update/12.")],
    no_pager: NoPager = False,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """Two attempts side by side. Exit code 1 if their stories differ, as with diff."""
    from baserunner.cli.diff import print_diff

    with show.reader(file) as survey:
        print_diff(survey, one, other, pager=not no_pager, as_json=as_json)


@app.command()
def stats(
    machine: Machine = None,
    deployment: Deployment = None,
    boot: Boot = None,
    since: Since = None,
    until: Until = None,
    after: After = None,
    before: Before = None,
    as_json: AsJson = False,
    file: File = None,
) -> None:
    """Facts and bytes per kind and day, time in states, sizes, what Cloudly has not acked yet."""
    from baserunner.cli.stats import print_stats

    with show.reader(file) as survey:
        print_stats(
            survey,
            Asked(None, after, before, since, until, machine, deployment, boot),
            as_json=as_json,
        )


@app.command()
def export(to: NewFile = None, file: File = None) -> None:
    """All of it as ndjson, with its hashes, to be checked elsewhere."""
    from baserunner.cli.carry import write_export

    with show.reader(file) as survey:
        write_export(survey, to)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="An export.")],
    to: NewFolder,
    as_json: AsJson = False,
) -> None:
    """Make a journal from an export, checked fact by fact against its hashes; then read it with --file."""
    from baserunner.cli.carry import read_export

    read_export(file, to, as_json=as_json)


@app.command()
def verify(as_json: AsJson = False, file: File = None) -> None:
    """Check the chain: gaps, damage, anything that does not hang together. Exit code 1 if there is a fault."""
    from baserunner.cli.carry import verify_all

    verify_all(file, as_json=as_json)


@app.command()
def salvage(to: NewFolder, as_json: AsJson = False, file: File = None) -> None:
    """What can be read of a damaged journal, into a folder of its own; the original is only read.

    Verified: as it was written, by the hash chain. Proven: hangs together with its neighbour. Loose: behind a hole.
    Changed, uncommitted: kept as evidence only. Exit code 1 if something is wrong.
    """
    from baserunner.cli.rescue import print_salvage

    print_salvage(file, to, as_json=as_json)
