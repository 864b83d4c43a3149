"""`cloudly release ban`, `unban`, `bans`: what is given to no node ever again, by digest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, shown
from cloudly.cli.people import ByOption, Reason, by_now

if TYPE_CHECKING:
    from cloudly.store.governance.bans import Reach

What = Annotated[
    str,
    typer.Argument(
        metavar="RELEASE|sha256:…", help="A release by name, or an image by its digest."
    ),
]


def ban(
    what: What,
    *,
    reason: Reason,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Never again, on no node: no order, rollout, channel or fleet gives it. Says where it is now."""
    from cloudly.store.governance import bans

    who = by_now(by)
    with opened(data_dir) as store:
        reach = store.write_now(lambda db: bans.ban(db, what, who, reason))
    if as_json:
        print_json(asdict(reach))
        return
    typer.echo(shown(f"{what} is banned"))
    _print_reach(reach)


def _print_reach(reach: Reach) -> None:
    typer.echo(
        f"{reach.running} nodes run it and keep it, {reach.coming} were ordered it and may still apply it:"
        " `cloudly release set NODE RELEASE` orders something else"
    )
    if reach.nodes:
        more = " …" if reach.running + reach.coming > len(reach.nodes) else ""
        typer.echo(f"nodes: {' '.join(shown(one[:12]) for one in reach.nodes)}{more}")
    if reach.fleets:
        typer.echo(
            f"new nodes of these fleets get nothing until `cloudly release set --fleet`: {', '.join(reach.fleets)}"
        )
    if reach.channels:
        typer.echo(f"it is not offered any more in: {', '.join(reach.channels)}")


def unban(
    what: What,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the audit.")] = "",
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """It may be ordered again; that orders nothing."""
    from cloudly.store.governance import bans

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: bans.unban(db, what, who, reason))
    typer.echo(shown(f"{what} is not banned any more"))


def bans(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what is banned, by whom and why, and how many nodes run it still."""
    from cloudly.store.governance import bans
    from interfaces.why import when

    with opened(data_dir) as store:
        rows = store.read_now(
            lambda db: [
                dict(row) | asdict(bans.reach(db, row["digest"])) for row in bans.listed(db)
            ]
        )
    if as_json:
        print_json(rows)
        return
    print_table(
        ("digest", "release", "by", "when", "running", "coming", "reason"),
        [
            (row["digest"][:19], row["version"], row["actor"], when(row["at_ms"]), row["running"],
             row["coming"], row["reason"])
            for row in rows
        ],
        empty="Nothing is banned.",
    )  # fmt: skip
