"""`cloudly servers`: which servers one Cloudly has, and which keys they have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.settings import Settings
    from cloudly.store.store import Store

app = typer.Typer(help="The servers of this Cloudly: several may share one PostgreSQL.")


@app.callback(invoke_without_command=True)
def servers(context: typer.Context, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the servers that run, or ran: where, since when, and which of them keep logs of devices elsewhere."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(data_dir)
    with opened(data_dir) as store:
        _show(store, settings, as_json=as_json)


def _show(store: Store, settings: Settings, *, as_json: bool) -> None:
    from cloudly import servers as known
    from cloudly import slots
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    world = RealWorld()
    if not store.is_shared:
        held = slots.in_use(settings.data_dir)
        if as_json:
            print_json([{"slot": slot, "process": process} for slot, process in held.items()])
            return
        rows = [(slot, process, "this directory") for slot, process in held.items()]
        print_table(
            ("slot", "process", "logs"),
            rows,
            empty="No server runs; with SQLite there is one at most.",
        )
        return
    now, here = now_ms(world), known.directory_id(settings.data_dir, world)
    found = store.read_now(known.listed)
    if as_json:
        print_json(
            [
                {**asdict(one), "state": one.state(now), "here": one.directory == here}
                for one in found
            ]
        )
        return
    print_table(
        ("host", "slot", "process", "state", "seen", "since", "logs"),
        [
            (
                one.host,
                one.slot,
                one.process,
                one.state(now),
                ago(one.seen_at_ms, now),
                ago(one.started_at_ms, now),
                "this directory" if one.directory == here else f"there, in {one.path}",
            )
            for one in found
        ],
        empty="No server has been heard of in the last days.",
    )


@app.command("accept-keys")
def accept_keys(*, by: ByOption = None, data_dir: DataDir = None) -> None:
    """The keys in this data directory are the right ones: servers with others do not start from now on.

    Only where a key is lost or was replaced on purpose; otherwise copy the key that the other servers have. What was
    made with another key (tickets of devices that have not enrolled yet, registry tokens, certificates) ends.
    """
    from cloudly import keys
    from interfaces.world import RealWorld

    settings, world, who = settings_of(data_dir), RealWorld(), by_now(by)
    used = keys.of(settings, world)
    with opened(data_dir) as store:
        keys.accept(store, used, by=who)
        words = "are those of all servers now; copy them into each data directory"
        if not store.is_shared:
            words = "are those of the one server that there is with SQLite; nothing was changed"
    typer.echo(f"{', '.join(name for key in used for name in key.files)}: {words}")
