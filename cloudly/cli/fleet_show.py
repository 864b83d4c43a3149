"""`cloudly fleet show`, `follow`, `unfollow`: one fleet in figures, and the channel that its new nodes follow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import (
    AsJson,
    DataDir,
    opened,
    print_json,
    print_table,
    settings_of,
    shown,
)
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.store.store import Store

FleetArgument = Annotated[
    str, typer.Argument(metavar="FLEET", help="Its name, from `cloudly fleet list`.")
]


def show(fleet: FleetArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a fleet: what its new nodes get and why, its pin, and its nodes by state and by release."""
    from cloudly.store import fleets
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    every_s = settings_of(data_dir).heartbeat_every_s
    with opened(data_dir) as store:
        row = store.read_now(lambda db: fleets.seen(db, fleet, now))
        states, versions = _counted(store, row["id"], now, every_s)
    if as_json:
        known = {key: row[key] for key in row if key not in {"policy", "release"}}
        print_json({**known, "states": dict(states), "releases": dict(versions)})
        return
    wanted = f"{row['version']} ({row['commit_id'][:12]})" if row["version"] else None
    facts = [
        ("fleet", row["name"]),
        ("follows", row["channel"]),
        ("new nodes get", wanted),
        ("pinned", row["pinned"] and f"to {row['pinned']} {row['pin']}"),
        ("nodes", row["nodes"]),
        ("have it", row["succeeded"]),
    ]
    print_table(("", ""), facts, empty="")
    typer.echo("")
    print_table(("state", "nodes"), sorted(states.items()), empty="It has no nodes.")
    typer.echo("")
    print_table(
        ("release", "nodes"),
        [(version or "none or unknown", many) for version, many in versions.most_common()],
        empty="",
    )


def _counted(
    store: Store, fleet: int, now: int, every_s: float
) -> tuple[Counter[str], Counter[str]]:
    """Nodes by state and by release, a slice in memory at a time."""
    from cloudly.store import node_views

    states: Counter[str] = Counter()
    versions: Counter[str] = Counter()
    after, dark_after_ms = 0, int(node_views.HEARTBEATS_DARK * every_s * 1000)
    while True:
        ask: dict[str, Any] = {"after_id": after, "limit": node_views.SLICE, "fleet": fleet}
        some = store.read_now(
            lambda db, ask=ask: node_views.slices(
                db, now_ms=now, dark_after_ms=dark_after_ms, **ask
            )  # type: ignore[misc]
        )
        states.update(str(view.state) for _, view in some)
        versions.update(view.version for _, view in some)
        if len(some) < node_views.SLICE:
            return states, versions
        after = some[-1][0]


def follow(
    fleet: FleetArgument,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="From `cloudly channel list`.")],
    *,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Its new nodes get what the channel offers, and its nodes may only have what is published there."""
    from cloudly.store import fleets
    from cloudly.store.governance import channels, following

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(
            lambda db: following.follow(db, fleets.find(db, fleet), channels.find(db, channel), who)
        )
    typer.echo(shown(f"fleet {fleet} follows {channel}: no node that is there changes by that"))


def unfollow(fleet: FleetArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """It follows no channel any more; what that offers now stays what its new nodes get."""
    from cloudly.store import fleets
    from cloudly.store.governance import following

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: following.unfollow(db, fleets.find(db, fleet), who))
    typer.echo(shown(f"fleet {fleet} follows no channel"))
