"""`status`, `why`, `machines`, `doctor`: what can be seen without changing anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from baserunner.cli import show

if TYPE_CHECKING:
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
                "release": show.plain(seen.release or "none that this journal knows of"),
                "update": f"{seen.update} {show.coloured(seen.update_state)}"
                if seen.update
                else "none",
                "journal": f"epoch {seen.epoch}, {seen.facts} facts, {seen.unacked} not yet with Cloudly"
                if seen.epoch
                else "none",
            }
        )
    raise typer.Exit(0 if seen.healthy else 1)


def _heartbeat_words(last_answer_ms: int | None, state: str) -> str:
    last = (
        "never answered"
        if last_answer_ms is None
        else f"last answered {show.moment(last_answer_ms)} UTC"
    )
    return f"{show.coloured(state or 'none')}, {last}"


Machine = Annotated[
    str | None, typer.Argument(help="A machine (app-update) or a stream (app-update/12).")
]


def why(machine: Machine = None, as_json: AsJson = False) -> None:  # noqa: FBT002
    """Say why it is not finished."""
    from baserunner.why import explain_all

    with show.reader() as reader:
        answers = explain_all(reader, machine)
    if as_json:
        show.as_json([asdict(answer) for answer in answers])
        return
    if not answers:
        typer.echo("nothing waits: every attempt has come to its end")
    for answer in answers:
        _print_why(answer)


def _print_why(answer: Why) -> None:
    until = show.moment(answer.until_ms) + " UTC" if answer.until_ms else "as long as it takes"
    typer.secho(f"{answer.stream} is {answer.state}", bold=True)
    show.pairs(
        {
            "waits for": show.plain(answer.waits_for),
            "owner": answer.owner,
            "since": f"{show.moment(answer.since_ms)} UTC",
            "until": until,
            "then": show.plain(answer.then),
            "after a restart": show.plain(answer.resume),
            **({"last problem": show.plain(answer.reason)} if answer.reason else {}),
            "last facts": show.plain("; ".join(answer.tried) or "none"),
        }
    )


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
                    show.coloured(state),
                    waits.owner if waits else "final",
                    show.plain(waits.waits_for) if waits else "",
                    limit,
                    ", ".join(chart.allowed(state)),
                ]
            )
    show.table(
        ["machine", "state", "owner", "waits for", "deadline", "facts that may follow"], rows
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
        marks = {
            "ok": "[green]ok[/green]",
            "note": "[yellow]note[/yellow]",
            "bad": "[red]bad[/red]",
        }
        rows = [
            [marks[f.verdict], f.what, show.plain(f.seen), show.plain(f.todo)] for f in findings
        ]
        show.table(["", "what", "seen", "what to do"], rows)
    raise typer.Exit(1 if any(finding.verdict == "bad" for finding in findings) else 0)
