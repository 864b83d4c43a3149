"""`locks`, `locks break`: who holds updates up, why, and until when; and ending that. Read from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from baserunner.cli import show

if TYPE_CHECKING:
    from baserunner.locks.machine import Lease
    from interfaces.world import World
    from journal.recall import Stream

app = typer.Typer(help="Update locks of neighbours: who holds them, why, until when.")

NEWEST = 50
"""So many that have ended are shown."""
MAX_REASON = 500
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.callback(invoke_without_command=True)
def locks(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """List the update locks that are held; the agent need not run for that."""
    if context.invoked_subcommand is not None:
        return
    from baserunner.cli.status import check
    from baserunner.locks.told import ended_leases, open_leases
    from interfaces.world import RealWorld

    with show.reader() as reader:
        check(reader, show.home())
        held, unreadable = open_leases(reader)
        ended = ended_leases(reader, NEWEST) if everything else []
    world = RealWorld()
    rows = [_told(stream, world) for stream in (*ended, *held)]
    if as_json:
        show.as_json(rows)
        return
    for one in unreadable:
        typer.echo(f"{one.stream} is of a newer agent and cannot be read here", err=True)
    if not rows:
        typer.echo("no update lock is held: nobody holds updates up")
        return
    from baserunner.cli.clock import moment

    show.table(
        ["lock", "owner", "reason", "since (UTC)", "left", "state", "why it ended"],
        [
            [
                one["stream"],
                one["owner"],
                one["reason"],
                moment(one["since_ms"]),
                _left_words(one),
                show.state(one["state"]),
                one["ended_why"],
            ]
            for one in rows
        ],
        prose=["reason", "why it ended"],
    )


def _told(stream: Stream[Lease], world: World) -> dict[str, Any]:
    lease = stream.believed
    left_s = None if stream.ended else lease.left_s(world.boot_id(), world.monotonic())
    return {
        "stream": stream.name,
        "lock": lease.lock,
        "owner": lease.owner,
        "reason": lease.holds_for,
        "state": stream.state,
        "since_ms": lease.since_ms,
        "until_ms": None if stream.ended else lease.until_ms,
        "left_s": left_s,
        "ttl_s": lease.ttl_s,
        "ended_why": lease.ended_why,
    }


def _left_words(one: dict[str, Any]) -> str:
    from interfaces.why import duration

    if one["state"] != "held":
        return ""
    if one["left_s"] is None:
        return "counts from the agent's start: the host has booted"
    if one["left_s"] == 0:
        return "over: the agent will write that down"
    return duration(one["left_s"] * 1000)


@app.command("break", help="End an update lock that stands in the way; who and why is kept.")
def break_(
    lock: Annotated[str, typer.Argument(help="As `baserunner locks` names it: lock/3, or its id.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is kept and told to the holder.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """End it, whatever its holder says."""
    from baserunner.cli.process import give_order, no_agent
    from baserunner.orders import OrderKind

    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON or not reason.isprintable():
        show.fail(f"--reason is a line of 1 to {MAX_REASON} characters", 2)
    if not 0 < len(lock) <= 100 or not lock.isprintable():
        show.fail("that is no update lock: see `baserunner locks`", 2)
    if refusal := no_agent(show.home()):
        show.fail(refusal[1], refusal[0])
    show.ask(
        f"The holder of {lock} believes that nothing is changed under it. End its update lock?",
        yes=yes,
    )
    code, said = give_order(show.home(), OrderKind.BREAK_LOCK, lock=lock, reason=reason)
    if code:
        show.fail(said, code)
    typer.echo(said)
