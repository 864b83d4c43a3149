"""`cloudly node diagnose`: ask a node to look at itself, and show what it found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.node_journal import NodeArgument
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.store.store import Store
    from interfaces.world import World

LOOK_EVERY_S = 0.5


def diagnose(  # noqa: PLR0913 - options of a command
    node: NodeArgument,
    *,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds to wait for the answer.")
    ] = 150.0,
    last: Annotated[bool, typer.Option("--last", help="Ask nothing; show the newest.")] = False,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Ask a node to look at itself: disk, clock, journal, Supervisor, services. Exit 1: no answer, or not well."""
    if math.isnan(wait):
        raise typer.BadParameter("--wait must be a number of seconds")
    import anyio

    from cloudly.store import diagnoses, reading
    from interfaces.world import RealWorld, new_id

    world, who = RealWorld(), by_now(by)
    with opened(data_dir) as store:
        number = store.read_now(lambda db: reading.find(db, node))["id"]
        if not last:
            asked = new_id(world)
            store.write_now(lambda db: diagnoses.ask(db, number, asked, now_ms=who.at_ms, by=who))
            anyio.run(_wait, store, world, number, wait)
        found = store.read_now(lambda db: diagnoses.newest(db, number, limit=1))
    if not found:
        typer.echo("no diagnosis was asked of this node yet")
        raise typer.Exit(1)
    _show(dict(found[0]), as_json=as_json)


async def _wait(store: Store, world: World, node: int, wait_s: float) -> None:
    """Until the newest is answered, or that time is over."""
    from cloudly.store import diagnoses

    until = world.monotonic() + wait_s
    while world.monotonic() < until:
        (newest,) = store.read_now(lambda db: diagnoses.newest(db, node, limit=1))
        if newest["answered_at_ms"] is not None:
            return
        await world.sleep(LOOK_EVERY_S)


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    from cloudly.views import diagnosis_view

    view = diagnosis_view(row)
    if as_json:
        print_json(row | {"answer": view.answer})
    elif view.answer is None:
        typer.echo(
            "no answer yet: the node is told with its next heartbeat, and answers with its journal;"
            " `cloudly node diagnose --last` shows it then"
        )
    else:
        print_table(
            ("", "part", "seen", "what to do"),
            [(one.verdict, one.what, one.seen, one.todo) for one in view.findings],
            empty="It found nothing to say.",
        )
    if not view.well:
        raise typer.Exit(1)
