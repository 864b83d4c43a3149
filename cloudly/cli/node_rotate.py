"""`cloudly node rotate`: ask nodes to draw another node token."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json
from cloudly.cli.people import ByOption, by_now


def rotate(  # noqa: PLR0913 - options of a command
    node: Annotated[
        str | None,
        typer.Argument(metavar="[NODE]", help="Node id, the beginning of one, or host name."),
    ] = None,
    *,
    every_node: Annotated[bool, typer.Option("--all", help="Every node.")] = False,
    fleet: Annotated[str | None, typer.Option(help="Every node of that fleet.")] = None,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Ask for another node token, with the next heartbeat. The old one is good until the new one was used."""
    if [node is not None, every_node, fleet is not None].count(True) != 1:
        raise typer.BadParameter("give NODE, --fleet FLEET, or --all")
    from cloudly.service import rotation

    who = by_now(by)
    with opened(data_dir) as store:
        if node is not None:
            done = store.write_now(lambda db: rotation.ask_named(db, node, who))
        else:
            done = rotation.ask_fleets(store.write_now, fleet, who)
    if as_json:
        print_json({"nodes": done.nodes, "asked": done.asked})
        return
    before = f"; {done.nodes - done.asked} were asked before" if done.nodes > done.asked else ""
    typer.echo(f"{done.asked} of {done.nodes} nodes are asked for another node token{before}")
