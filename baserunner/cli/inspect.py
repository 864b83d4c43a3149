"""`status`, `why`, `machines`, `doctor`: what can be seen without changing anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baserunner.cli import show
from baserunner.cli.asked import File
from baserunner.cli.clock import moment

if TYPE_CHECKING:
    from baserunner.cli.status import Status
    from baserunner.why import Why

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


def add_to(app: typer.Typer) -> None:
    app.command("status", help="Is all well? Exit code 0: yes, 1: no.")(status)
    app.command("why", help="What each unfinished thing waits for, who owns that, until when.")(why)
    app.command("machines", help="The state machines: their states, owners and deadlines.")(
        machines
    )
    app.command("doctor", help="Check settings, data, clock, Cloudly and Supervisor.")(doctor)


def status(as_json: AsJson = False) -> None:  # noqa: FBT002
    """Say whether all is well."""
    from baserunner.cli.status import status_of

    seen = status_of(show.home())
    if as_json:
        show.as_json(asdict(seen))
    else:
        none = "unknown: the journal is damaged" if seen.damaged else ""
        show.pairs(
            {
                "healthy": "[green]yes[/green]"
                if seen.healthy
                else f"[red]no[/red]: {show.plain('; '.join(seen.problems))}",
                "agent": f"runs, pid {seen.agent_pid}"
                if seen.agent_pid is not None
                else "does not run",
                "node": seen.node_id or "not enrolled",
                "enrollment": show.coloured(seen.enrollment or "none"),
                "heartbeat": _heartbeat_words(seen.last_answer_ms, seen.heartbeat),
                "release": show.plain(seen.release or none or "none that this journal knows of"),
                "update": f"{seen.update} to {show.plain(seen.update_version or '?')}: "
                f"{show.coloured(seen.update_state)}"
                if seen.update
                else none or "none",
                "update locks": show.plain("; ".join(seen.locks)) or "none is held",
                "journal": _journal_words(seen),
                "with Cloudly": _shipped_words(seen) if seen.epoch else "nothing",
            }
        )
    raise typer.Exit(0 if seen.healthy else 1)


def _journal_words(seen: Status) -> str:
    if not seen.epoch:
        return "none"
    before = f"; {show.plain(seen.epoch_began)}" if seen.epoch_began else ""
    return f"epoch {seen.epoch}, {seen.facts} facts{before}"


def _shipped_words(seen: Status) -> str:
    core, lines = seen.unacked_core, seen.unacked - seen.unacked_core
    told = f"all transitions but the newest {core}" if core else "every transition"
    return told + (f"; {lines} heartbeats and lines wait their turn" if lines else "")


def _heartbeat_words(last_answer_ms: int | None, state: str) -> str:
    last = (
        "never answered"
        if last_answer_ms is None
        else f"last answered {moment(last_answer_ms)} UTC"
    )
    return f"{show.coloured(state or 'none')}, {last}"


Machine = Annotated[
    str | None, typer.Argument(help="A machine (app-update) or a stream (app-update/12).")
]


def why(machine: Machine = None, as_json: AsJson = False, file: File = None) -> None:  # noqa: FBT002
    """Say why it is not finished."""
    from baserunner.cli.status import check
    from baserunner.why import explain_all
    from journal.lock import holder

    with show.reader(file) as reader:
        check(reader, file or show.home())
        answers = explain_all(reader, machine)
        ended = "" if answers else _ended(reader, machine)
    if answers and file is None and holder(show.home()) is None:
        typer.echo(
            "no agent runs here: nothing goes on until `baserunner run` is started", err=True
        )
    if as_json:
        show.as_json([asdict(answer) for answer in answers])
        return
    if ended:
        typer.echo(ended)
    for number, answer in enumerate(answers):
        if number:
            typer.echo()
        for line in why_lines(answer):
            typer.echo(line)


def _ended(reader: Any, asked: str | None) -> str:
    """Nothing waits: what came to its end. Exits 2 for what is no machine, 1 for a stream that is not there."""
    if asked is None:
        return "nothing waits: every attempt has come to its end"
    from baserunner.why import believable_ms

    name, attempt = show.machine_of(asked), "/" in asked
    infos = [info for info in reader.streams(name) if not attempt or info.name == asked]
    if attempt and not infos:
        show.fail(f"there is no stream {asked}: see `baserunner journal list`", 1)
    if not infos:
        return f"nothing waits: no {name} has begun"
    last = infos[-1]
    when = f" at {moment(believable_ms(last.last))} UTC" if last.last else ""
    return f"nothing waits: {last.name} ended as {last.state}{when}"


def why_lines(answer: Why) -> list[str]:
    """As it travels to Cloudly, and with how long ago."""
    from interfaces.why import lines
    from interfaces.world import RealWorld, now_ms

    first, *rest = lines(answer, now_ms=now_ms(RealWorld()))
    return [show.paint(first, show.STATE_COLOURS.get(answer.state)), *rest]


def machines(
    draw: Annotated[bool, typer.Option("--draw", help="Print Mermaid diagrams.")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """The state machines."""
    from baserunner.machines import MACHINES

    charts = [known.machine.chart for known in MACHINES.values()]
    if draw:
        for chart in charts:
            typer.echo(chart.mermaid())
        return
    if as_json:
        show.as_json(
            [
                {
                    "name": chart.name,
                    "initial": chart.initial,
                    "final": sorted(chart.final),
                    "arrows": [asdict(arrow) for arrow in chart.arrows],
                    "waits": {state: asdict(waits) for state, waits in chart.waits.items()},
                }
                for chart in charts
            ]
        )
        return
    rows = []
    for chart in charts:
        for state in chart.states:
            waits = chart.waits.get(state)
            limit = "" if waits is None or waits.deadline_s is None else f"{waits.deadline_s:g} s"
            rows.append(
                [
                    chart.name,
                    show.state(state),
                    waits.owner if waits else "final",
                    waits.waits_for if waits else "",
                    limit,
                    ", ".join(chart.allowed(state)),
                ]
            )
    show.table(
        ["machine", "state", "owner", "waits for", "deadline", "facts that may follow"],
        rows,
        prose=["waits for", "facts that may follow"],
    )


def doctor(as_json: AsJson = False) -> None:  # noqa: FBT002
    """Check everything that the agent needs; each finding says what to do. Exit code 1 if one is bad."""
    import os

    import anyio

    from baserunner.doctor import examine

    findings = anyio.run(examine, os.environ)
    if as_json:
        show.as_json([asdict(finding) for finding in findings])
    else:
        colours = {"ok": "green", "note": "yellow", "bad": "red"}
        rows = [
            [show.Cell(f.verdict, colours[f.verdict]), f.what, f.seen, f.todo] for f in findings
        ]
        show.table(["", "what", "seen", "what to do"], rows, prose=["seen", "what to do"])
    raise typer.Exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)
