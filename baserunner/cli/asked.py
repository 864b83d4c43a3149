"""What the journal commands are asked for: the options that they share, and how these become a `Sought`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baserunner.cli import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from journal.boots import Sought
    from journal.facts import Fact
    from journal.survey import Survey

AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        readable=False,  # whether it is, we say ourselves, in one line
        help="A copy: a journal.db, the folder it is in, or an export; default: the agent's own.",
    ),
]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="For example app-update/12.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "-n", "--limit", min=0, help="At most so many: the newest, or those next to --after."
    ),
]
After = Annotated[
    int | None, typer.Option("--after", min=0, help="Only after this place in the journal (n).")
]
Before = Annotated[
    int | None, typer.Option("--before", min=0, help="Only before this place in the journal (n).")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Not before: 2h, 3d, 04:30 or '2026-11-23 04:30' (UTC, believable time)."
    ),
]
Until = Annotated[str | None, typer.Option("--until", help="Not after; written like --since.")]
Machine = Annotated[
    str | None,
    typer.Option(
        "-m", "--machine", help="Only of this machine (app-update) or stream (app-update/12)."
    ),
]
Deployment = Annotated[
    str | None,
    typer.Option(
        "--deployment", help="Only attempts at this deployment: its id, or how it begins."
    ),
]
Boot = Annotated[
    str | None,
    typer.Option(
        "--boot",
        help="Only of this boot: how its id begins, or 0 (the newest), -1 (the one before).",
    ),
]
NoPager = Annotated[
    bool, typer.Option("--no-pager", help="Never through a pager, on a terminal neither.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The filters as they were typed."""

    limit: int | None = None
    after: int | None = None
    before: int | None = None
    since: str | None = None
    until: str | None = None
    machine: str | None = None
    deployment: str | None = None
    boot: str | None = None

    @property
    def is_narrow(self) -> bool:
        return any(
            value is not None
            for value in (self.since, self.until, self.machine, self.deployment, self.boot)
        )


def sought(asked: Asked, survey: Survey) -> Sought:
    """What is looked for. Exits 2 for what cannot be meant, 1 for a boot or a deployment that is not there."""
    from journal.boots import Sought

    machine, streams = _of_machine(asked.machine)
    if asked.deployment is not None:
        streams = _of_deployment(survey, asked.deployment, machine, streams)
        machine = None
    after, before = asked.after or 0, asked.before
    if asked.boot is not None:
        boot = _boot(survey, asked.boot)
        after = max(after, boot.first.n - 1)
        before = min(boot.last.n + 1, before if before is not None else boot.last.n + 1)
    since_ms, until_ms = _time("--since", asked.since), _time("--until", asked.until)
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        show.fail("--since is after --until: there is nothing between them", 2)
    return Sought(
        machine=machine,
        streams=streams,
        since_ms=since_ms,
        until_ms=until_ms,
        after=after,
        before=before,
    )


def facts(asked: Asked, survey: Survey, *, usual: int | None = None) -> Iterator[Fact]:
    """The facts asked for, in order. `usual`: how many when no number is given; None: all, a page at a time."""
    what, limit = sought(asked, survey), usual if asked.limit is None else asked.limit
    if limit is None:
        return survey.each(what)
    return iter(survey.find(what, limit, newest=asked.after is None))


def _of_machine(asked: str | None) -> tuple[str | None, tuple[str, ...] | None]:
    if asked is None:
        return None, None
    if "/" in asked:
        stream_name(asked)
        return None, (asked,)
    show.machine_of(asked)
    return asked, None


def stream_name(asked: str) -> str:
    """Exits 2 if it is no stream's name."""
    from journal.facts import split_name

    try:
        split_name(asked)
    except ValueError:
        show.fail(f"{asked!r} is no stream: write <machine>/<attempt>, like app-update/12", 2)
    return asked


def _of_deployment(
    survey: Survey, deployment: str, machine: str | None, streams: tuple[str, ...] | None
) -> tuple[str, ...]:
    if not deployment:
        show.fail("--deployment is empty: give an id, or how it begins", 2)
    found = tuple(
        name
        for name in survey.of_deployment(deployment)
        if (streams is None or name in streams) and machine in {None, name.partition("/")[0]}
    )
    if not found:
        show.fail(
            f"there is no attempt at a deployment {deployment}: see `baserunner journal list`", 1
        )
    return found


def _boot(survey: Survey, asked: str) -> Any:
    """By its number back from the newest (0, -1, ...), or by how its id begins."""
    if not asked.strip():
        show.fail("--boot is empty: give 0, -1, or how the boot's id begins", 2)
    back = (
        -int(asked) if asked in {"0", "-0"} or (asked[0] == "-" and asked[1:].isdecimal()) else None
    )
    number = -1
    for number, boot in enumerate(survey.boots()):
        if number == back or (back is None and boot.boot_id.startswith(asked)):
            return boot
    return show.fail(f"there is no boot {asked}: this journal has seen {number + 1}", 1)


def _time(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    from baserunner.cli.clock import parse
    from interfaces.world import RealWorld, now_ms

    try:
        return parse(text, now_ms(RealWorld()))
    except (ValueError, OverflowError):
        show.fail(
            f"{option} {text!r} is no time: write 2h, 3d, 04:30 or '2026-11-23 04:30' (UTC)", 2
        )
