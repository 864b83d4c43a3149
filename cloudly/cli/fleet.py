"""`cloudly fleet`: nodes that share a desired state."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated

import typer

from cloudly.cli import fleet_show
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.node_journal import NodeArgument
from cloudly.cli.people import ByOption, by_now

app = typer.Typer(help="Fleets: nodes that share a desired state.", no_args_is_help=True)
app.command()(fleet_show.show)
app.command()(fleet_show.follow)
app.command()(fleet_show.unfollow)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FleetArgument = fleet_show.FleetArgument


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash.")],
    *,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Make a fleet: `cloudly token create --fleet` lets nodes in, `cloudly release set --fleet` says what they run."""
    if NAME.fullmatch(name) is None:
        raise typer.BadParameter(
            f"{name!r} is no name of a fleet: 1 to 64 letters, digits, `.`, `_`, `-`"
        )
    from cloudly.store import fleets

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: fleets.create(db, name, who.at_ms, by=who))
    typer.echo(f"fleet {name} is made")


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the fleets, what their new nodes get, and how many nodes there are."""
    from cloudly.store import fleets
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = store.read_now(lambda db: fleets.overview(db, now))
    if as_json:
        print_json(
            [{key: row[key] for key in row if key not in {"policy", "release"}} for row in rows]
        )
        return
    print_table(
        ("id", "fleet", "nodes", "wanted", "release", "succeeded", "follows", "pinned"),
        [
            (row["id"], row["name"], row["nodes"], row["version"],
             row["commit_id"] and row["commit_id"][:12], row["succeeded"], row["channel"], row["pinned"])
            for row in rows
        ],
        empty="",
    )  # fmt: skip


@app.command()
def move(
    node: NodeArgument, fleet: FleetArgument, *, by: ByOption = None, data_dir: DataDir = None
) -> None:
    """Put a node into a fleet; it gets what that fleet shall run. Its volumes stay."""
    from cloudly.store import fleets, reading
    from interfaces.world import RealWorld, new_id

    world, who = RealWorld(), by_now(by)
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        move_it = partial(fleets.move, new_id=partial(new_id, world), now_ms=who.at_ms, by=who)
        moved = store.write_now(lambda db: move_it(db, row["id"], fleets.named(db, fleet)))
    what = moved.why or f"generation {moved.generation}"
    typer.echo(f"node {row['node_id']} is in fleet {fleet}: {what}")


@app.command()
def remove(fleet: FleetArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Remove an empty fleet."""
    from cloudly.store import fleets

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: fleets.remove(db, fleets.find(db, fleet), by=who))
    typer.echo(f"fleet {fleet} is removed")
