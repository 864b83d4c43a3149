"""`cloudly node`: nodes as Cloudly knows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli import (
    node_journal,
    node_list,
    node_logs,
    node_rotate,
    node_standing,
    node_words,
)
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of, shown
from cloudly.cli.diagnose import diagnose
from cloudly.cli.node_journal import NodeArgument
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.balena.sides import Reported
    from cloudly.views import NodeView

app = typer.Typer(help="Nodes: devices as Cloudly knows them.", no_args_is_help=True)
app.command()(node_journal.journal)
app.command()(node_journal.gaps)
app.command("export-journal")(node_journal.export_journal)
app.command("verify-journal")(node_journal.verify_journal)
app.command()(diagnose)
app.command()(node_logs.logs)
app.command()(node_words.label)
app.command()(node_rotate.rotate)
app.command()(node_standing.quarantine)
app.command("lift-quarantine")(node_standing.lift_quarantine)
app.command()(node_standing.revoke)
app.command()(node_standing.retire)
app.command()(node_standing.readmit)


@app.command("list")
def list_(
    *,
    select: node_list.Select = None,
    limit: node_list.Limit = 500,
    retired: Annotated[bool, typer.Option("--retired", help="The retired ones too.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show the nodes, the newest first, or those that --select means."""
    from cloudly.labels import in_words
    from cloudly.store import reading
    from cloudly.views import ago, node_view
    from interfaces.world import RealWorld, now_ms

    now, every_s = now_ms(RealWorld()), settings_of(data_dir).heartbeat_every_s
    with opened(data_dir) as store:
        versions = store.read_now(reading.versions)
        rows = node_list.rows_of(
            store, select, limit=limit, now_ms=now, every_s=every_s, retired=retired
        )
    views = [node_view(dict(row), versions=versions, now_ms=now, every_s=every_s) for row in rows]
    if as_json:
        print_json([asdict(view) for view in views])
        return
    print_table(
        ("node", "name", "fleet", "labels", "state", "release", "wanted", "update", "last seen"),
        [
            (view.node_id[:12], view.hostname, view.fleet, in_words(view.labels), view.state,
             view.release_version or short(view.release), view.wanted_version, update_of(view),
             ago(view.last_seen_at_ms, now))
            for view in views
        ],
        empty="No node is like that." if select else
        "No nodes yet. `cloudly token create` makes a join token for one.",
    )  # fmt: skip


@app.command()
def show(node: NodeArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show one node: what it should be, what it is, what it did, and what its Supervisor reported."""
    from cloudly.reports import locks, waiting_of
    from cloudly.service.nodes import in_full
    from cloudly.store import reading
    from cloudly.store.governance.standing import held_by
    from interfaces.why import lines
    from interfaces.world import RealWorld, now_ms

    now, every_s = now_ms(RealWorld()), settings_of(data_dir).heartbeat_every_s
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        versions = store.read_now(reading.versions)
        shown_node = store.read_now(
            lambda db: in_full(db, dict(row), store.devices, now_ms=now, every_s=every_s)
        )
        pinned = store.read_now(lambda db: held_by(db, row["id"], now))
    view, both = shown_node.view, shown_node.both
    if as_json:
        sides = {
            "supervisor_reported": both.reported and asdict(both.reported),
            "disagreements": both.disagreements,
            "pinned": pinned,
        }
        print_json({**asdict(view), "reported": shown_node.reported, **sides, **shown_node.parts})
        return
    _print_node(view, shown_node.parts, now)
    _print_supervisor(both.reported, versions, now)
    held = f"It is pinned {pinned}" if pinned else ""
    for words in (*both.disagreements, *shown_node.asks, shown_node.notice, held):
        if words:
            typer.echo(f"\n{shown(words)}")
    for words in locks(shown_node.reported):
        typer.echo(f"\nUpdate lock: {words}")
    for one in waiting_of(shown_node.reported):
        typer.echo("")
        for line in lines(one, now_ms=now):
            typer.echo(line)


@app.command()
def acknowledge(node: NodeArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Say that two devices with one identity are settled; the alarm comes again if they are not."""
    from cloudly.store import reading, voices

    who = by_now(by)
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        known = store.write_now(lambda db: voices.acknowledge(db, row["id"], by=who))
    typer.echo(
        f"node {row['node_id']}: "
        + ("acknowledged" if known else "there was nothing to acknowledge")
    )


def _print_node(view: NodeView, parts: dict[str, list[dict[str, Any]]], now: int) -> None:
    from cloudly.labels import in_words
    from cloudly.views import ago

    facts = [
        ("node", view.node_id),
        ("name", view.hostname),
        ("fleet", view.fleet),
        ("labels", in_words(view.labels) or None),
        ("state", f"{view.state} {view.state_detail}".strip()),
        ("last seen", ago(view.last_seen_at_ms, now)),
        ("agent", view.agent_version),
        ("node token", token_of(view, now)),
        ("release", view.release_version or short(view.release)),
        (
            "wanted",
            f"{view.wanted_version or '-'} (generation {view.generation}, observed {view.observed_generation})",
        ),
        ("update", update_of(view)),
        ("waits for", "; ".join(view.waiting) or None),
    ]
    print_table(("", ""), facts, empty="")
    typer.echo("")
    print_table(
        ("deployment", "release", "state", "reason"),
        [
            (one["deployment"][:12], one["version"], one["state"], one["reason"])
            for one in parts["deployments"]
        ],
        empty="No release was ordered yet. `cloudly release set` does.",
    )
    typer.echo("")
    print_table(
        ("when", "stream", "from", "to", "kind", "reason"),
        [
            (
                ago(one["at_ms"], now),
                one["stream"],
                one["src"],
                one["dst"],
                one["kind"],
                one["reason"],
            )
            for one in parts["transitions"][:20]
        ],
        empty="No transitions yet: the node has not shipped its journal.",
    )


def _print_supervisor(reported: Reported | None, versions: dict[str, str], now: int) -> None:
    from cloudly.views import ago

    typer.echo("")
    if reported is None:
        typer.echo("Its Supervisor has not registered: it gets no target state.")
        return
    typer.echo(
        f"Its Supervisor {shown(reported.version or '')}: last request {ago(reported.seen_at_ms, now)},"
        f" last report {ago(reported.at_ms, now)}"
    )
    print_table(
        ("service", "release", "status", "image"),
        [
            (one.name, versions.get(one.release, short(one.release)), one.status, one.image)
            for one in reported.services
        ],
        empty="It has reported no service yet.",
    )


def update_of(view: NodeView) -> str | None:
    if view.update_state is None:
        turned = f"rollback to {view.wanted_version}: " if view.rollback_of else ""
        return f"{turned}{view.deployment_state}" if view.deployment_state else None
    progress = "" if view.progress_percent is None else f" {view.progress_percent} %"
    return f"{view.update_state}{progress}"


def token_of(view: NodeView, now: int) -> str | None:
    from cloudly.views import ago

    if view.token_generation is None:
        return None
    since = f"generation {view.token_generation}, since {ago(view.token_since_ms, now)}"
    return f"{since}; {view.rotation}" if view.rotation else since


def short(commit: str | None) -> str | None:
    return commit[:12] if commit else None
