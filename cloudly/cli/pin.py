"""`cloudly pin` and `cloudly unpin`: a hold of a node or a fleet on one release, or on what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, shown
from cloudly.cli.people import ByOption, Reason, by_now
from cloudly.cli.token import duration_s

if TYPE_CHECKING:
    from cloudly.store.governance.pins import Target
    from cloudly.store.sql import Connection

app = typer.Typer(help="Pins: hold a node or a fleet on a release.", no_args_is_help=True)
unpin = typer.Typer(help="Lift a pin.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the node or of the fleet.")]
Release = Annotated[
    str | None,
    typer.Argument(metavar="[RELEASE]", help="A version or a commit; without one, what it runs."),
]
Until = Annotated[
    str, typer.Option("--until", help="After how long it ends by itself: 7d, 12h, never.")
]


def target_of(db: Connection, scope: str, name: str) -> Target:
    """Raises BadOrder."""
    from cloudly.governance.pins import Scope
    from cloudly.store import fleets, reading
    from cloudly.store.governance.pins import Target

    if scope == Scope.FLEET:
        fleet = fleets.find(db, name)
        return Target(Scope.FLEET, fleet["id"], fleet["name"])
    node = reading.find(db, name)
    return Target(Scope.NODE, node["id"], node["node_id"])


@app.command("node")
def pin_node(  # noqa: PLR0913 - options of a command
    name: Name,
    release: Release = None,
    *,
    reason: Reason,
    until: Until = "never",
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Hold a node: orders of anything else are refused. Its pin wins over its fleet's."""
    _pin("node", (name, release), (reason, until, by), data_dir)


@app.command("fleet")
def pin_fleet(  # noqa: PLR0913 - options of a command
    name: Name,
    release: Release = None,
    *,
    reason: Reason,
    until: Until = "never",
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Hold every node of a fleet; new ones get the release that it is pinned to."""
    _pin("fleet", (name, release), (reason, until, by), data_dir)


def _pin(
    scope: str,
    what: tuple[str, str | None],
    why: tuple[str, str, str | None],
    data_dir: Path | None,
) -> None:
    from cloudly.store.governance import pins
    from cloudly.store.releases import find_release

    (name, release), (reason, until, by) = what, why
    lasts_s, who = duration_s(until), by_now(by)
    until_ms = who.at_ms + lasts_s * 1000 if lasts_s else None
    with opened(data_dir) as store:
        done = store.write_now(
            lambda db: pins.pin(
                db,
                target_of(db, scope, name),
                None if release is None else find_release(db, release),
                who,
                reason=reason,
                until_ms=until_ms,
            )
        )
    typer.echo(
        shown(
            f"{done.scope} {done.name} is pinned to {done.version or 'what it runs'} {done.origin}"
        )
    )


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the pins, also those that have ended."""
    from cloudly.store.governance import pins
    from interfaces.why import when
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = [dict(row) for row in store.read_now(pins.listed)]
    for row in rows:
        row["holds"] = row["until_ms"] is None or now < row["until_ms"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("what", "name", "release", "by", "since", "until", "reason"),
        [
            (row["scope"], row["name"], row["version"] or "what it runs", row["actor"],
             when(row["at_ms"]),
             "-" if row["until_ms"] is None else when(row["until_ms"]) + ("" if row["holds"] else " (ended)"),
             row["reason"])
            for row in rows
        ],
        empty="Nothing is pinned.",
    )  # fmt: skip


Why = Annotated[str, typer.Option("--reason", help="Kept in the audit.")]


@unpin.command("node")
def unpin_node(
    name: Name, *, reason: Why = "", by: ByOption = None, data_dir: DataDir = None
) -> None:
    """Lift the pin of a node; its fleet's counts again."""
    _unpin("node", name, reason, by, data_dir)


@unpin.command("fleet")
def unpin_fleet(
    name: Name, *, reason: Why = "", by: ByOption = None, data_dir: DataDir = None
) -> None:
    """Lift the pin of a fleet; those of its nodes stay."""
    _unpin("fleet", name, reason, by, data_dir)


def _unpin(scope: str, name: str, reason: str, by: str | None, data_dir: Path | None) -> None:
    from cloudly.store.governance import pins

    who = by_now(by)
    with opened(data_dir) as store:
        target = store.read_now(lambda db: target_of(db, scope, name))
        store.write_now(lambda db: pins.unpin(db, target, who, reason=reason))
    typer.echo(shown(f"{target.words} is not pinned any more"))
