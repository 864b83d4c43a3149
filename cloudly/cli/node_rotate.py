"""`cloudly node rotate`: ask nodes to draw another node token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json

if TYPE_CHECKING:
    from cloudly.store.sql import Connection


def rotate(
    node: Annotated[
        str | None,
        typer.Argument(metavar="[NODE]", help="Node id, the beginning of one, or host name."),
    ] = None,
    *,
    every_node: Annotated[bool, typer.Option("--all", help="Every node.")] = False,
    fleet: Annotated[str | None, typer.Option(help="Every node of that fleet.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Ask for another node token, with the next heartbeat. The old one is good until the new one was used."""
    if [node is not None, every_node, fleet is not None].count(True) != 1:
        raise typer.BadParameter("give NODE, --fleet FLEET, or --all")
    from cloudly.store import rotation
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())

    def work(db: Connection) -> tuple[int, int]:
        meant = _meant(db, node, fleet)
        return len(meant), rotation.ask(db, meant, now_ms=now)

    with opened(data_dir) as store:
        nodes, asked = store.write_now(work)
    if as_json:
        print_json({"nodes": nodes, "asked": asked})
        return
    before = f"; {nodes - asked} were asked before" if nodes > asked else ""
    typer.echo(f"{asked} of {nodes} nodes are asked for another node token{before}")


def _meant(db: Connection, node: str | None, fleet: str | None) -> list[int]:
    """Raises BadOrder for a node whose agent has not enrolled, and where nothing is meant."""
    from cloudly.problems import BadOrder
    from cloudly.store import fleets, reading, rotation

    if node is None:
        into = None if fleet is None else int(fleets.find(db, fleet)["id"])
        return rotation.may_rotate(db, into)
    row = reading.find(db, node)
    if row["token_generation"] is None:
        raise BadOrder(f"node {row['node_id']} has no node token: its agent has not enrolled")
    return [row["id"]]
