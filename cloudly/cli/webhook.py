"""`cloudly webhook`: who is told what happens."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of, shown
from cloudly.cli.node_journal import moment_ms
from cloudly.cli.people import ByOption, by_now
from cloudly.cli.token import duration_s

app = typer.Typer(help="Webhooks: others are told what happens here.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, from `cloudly webhook list`.")
]
SHOWN = 20


@app.command()
def create(  # noqa: PLR0913 - options of a command
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, asked by POST.")],
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only these: deployment.*, node.revoked. Again for more; none: all."),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="It may be on this machine, or in its network.")
    ] = False,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a webhook. Its signing secret is shown this once; receivers verify by Standard Webhooks."""
    from cloudly.service import webhooks
    from cloudly.store import outbox
    from cloudly.webhooks import signing
    from cloudly.webhooks.addresses import check_target, checked_url
    from cloudly.webhooks.secrets_file import Kept
    from interfaces.world import RealWorld

    if webhooks.NAME.fullmatch(name) is None:
        raise typer.BadParameter(f"{name!r} is no name: 1 to 64 letters, digits, `.`, `_`, `-`")
    kinds = kind or []
    for one in kinds:
        if outbox.PATTERN.fullmatch(one) is None:
            raise typer.BadParameter(
                f"{one!r} is no kind of event; for example deployment.* or node.revoked"
            )
    checked_url(url)
    if not allow_private:
        check_target(url)
    kept, who = Kept(signing.new_secret(RealWorld()), allow_private), by_now(by)
    new, directory = webhooks.New(name, url, tuple(kinds)), settings_of(data_dir).data_dir
    with opened(data_dir) as store:
        number = store.write_now(lambda db: webhooks.create(db, directory, new, kept, who))
    if url.startswith("http://"):
        typer.echo("cloudly: http, not https: others on the way can read what is told", err=True)
    if as_json:
        print_json({"id": number, "name": name, "secret": kept.secret})
    else:
        typer.echo(kept.secret)


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show webhooks, and what waits for each."""
    from cloudly.service.webhooks import shown as told
    from cloudly.store import webhooks
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = [told(row) for row in store.read_now(webhooks.listed)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("webhook", "receiver", "kinds", "state", "delivered", "waiting", "since", "given up"),
        [
            (row["name"], _host(row["url"]), ", ".join(row["kinds"]) or "all", row["state"], row["delivered"],
             row["waiting"], row["waiting_since_ms"] and ago(row["waiting_since_ms"], now), row["given_up"])
            for row in rows
        ],
        empty="No webhooks yet. `cloudly webhook create` makes one.",
    )  # fmt: skip


@app.command()
def show(name: NameArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a webhook, its newest deliveries and its last problem."""
    from cloudly.service.webhooks import shown as told
    from cloudly.store import webhooks
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        row = told(store.read_now(lambda db: webhooks.find(db, name)))
        sent = [
            dict(one)
            for one in store.read_now(lambda db: webhooks.deliveries(db, row["id"], limit=SHOWN))
        ]
        problem = store.read_now(lambda db: webhooks.last_problem(db, row["id"]))
    if as_json:
        print_json(row | {"deliveries": sent, "last_problem": problem})
        return
    facts = [
        ("webhook", row["name"]),
        ("URL", row["url"]),
        ("kinds", ", ".join(row["kinds"]) or "all"),
        ("state", f"{row['state']} {row['disabled_why']}".strip()),
        ("delivered", row["delivered"]),
        ("waiting", row["waiting"]),
        ("given up", row["given_up"]),
        ("last problem", problem and f"event {problem['event']}: {problem['problem']}"),
    ]
    print_table(("", ""), facts, empty="")
    typer.echo("")
    print_table(
        ("event", "kind", "happened", "attempts", "answer", "state", "reason"),
        [
            (one["event"], one["kind"], ago(one["at_ms"], now), one["attempts"], one["status"],
             _state_of(one, now), one["problem"])
            for one in sent
        ],
        empty="Nothing was to be told yet.",
    )  # fmt: skip


@app.command()
def disable(name: NameArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Tell it nothing from now on. What happens meanwhile can be replayed later."""
    from cloudly.service import webhooks

    who = by_now(by)
    with opened(data_dir) as store:
        changed = store.write_now(lambda db: webhooks.disable(db, name, who))
    typer.echo(f"webhook {name} is disabled" if changed else f"webhook {name} was disabled already")


@app.command()
def enable(name: NameArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Tell it again: first what waited. What happened while it was disabled: `cloudly webhook replay`."""
    from cloudly.service import webhooks

    who = by_now(by)
    with opened(data_dir) as store:
        changed = store.write_now(lambda db: webhooks.enable(db, name, who))
    typer.echo(f"webhook {name} is enabled" if changed else f"webhook {name} was enabled already")


@app.command()
def rotate(
    name: NameArgument,
    *,
    overlap: Annotated[
        str, typer.Option(help="For so long the old secret signs too: 24h, 7d; 30d at most.")
    ] = "24h",
    at_once: Annotated[
        bool, typer.Option("--at-once", help="It has leaked: nothing of before signs any more.")
    ] = False,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Give it a new secret, which is shown this once. The old one signs beside it for a while."""
    from cloudly.service import webhooks
    from cloudly.webhooks import secrets_file, signing
    from interfaces.world import RealWorld

    overlap_s = 0 if at_once else duration_s(overlap)
    if not at_once and not 0 < overlap_s <= secrets_file.LONGEST_OVERLAP_S:
        raise typer.BadParameter(f"--overlap {overlap!r} is none: 30d at most; or say --at-once")
    secret, directory = signing.new_secret(RealWorld()), settings_of(data_dir).data_dir
    rotation = webhooks.Rotation(directory, name, secret, overlap_s=overlap_s, by=by_now(by))
    with opened(data_dir) as store:
        try:
            store.write_now(rotation.decide)
        except Exception:
            rotation.take_back()
            raise
    typer.echo(secret)
    old = "the old one signs no more" if at_once else f"the old one signs beside it for {overlap}"
    typer.echo(f"cloudly: webhook {name} has a new secret; {old}", err=True)


@app.command()
def delete(name: NameArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Remove a webhook, its secret and what waits for it."""
    from cloudly.service import webhooks
    from cloudly.webhooks import secrets_file

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: webhooks.delete(db, name, who))
    secrets_file.remove(settings_of(data_dir).data_dir, name)
    typer.echo(f"webhook {name} is deleted")


@app.command()
def replay(
    name: NameArgument,
    *,
    since: Annotated[str | None, typer.Option(help="2h (ago) or 2026-11-23T08:00.")] = None,
    event: Annotated[int | None, typer.Option(min=1, help="Only this event.")] = None,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Tell it again what happened, with the same ids: all of its kinds since a moment, or one event."""
    if (since is None) == (event is None):
        raise typer.BadParameter("say --since or --event")
    from cloudly.service import webhooks

    who = by_now(by)
    since_ms = None if since is None else moment_ms(since, who.at_ms)
    with opened(data_dir) as store:
        many = store.write_now(
            lambda db: webhooks.replay(db, name, since_ms=since_ms, event=event, by=who)
        )
    typer.echo(f"{many} event{'' if many == 1 else 's'} will be told again")


@app.command("test")
def send_test(name: NameArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Send it an event of kind webhook.test at once, from here; 1 if it was not taken."""
    import anyio

    from cloudly.problems import BadOrder
    from cloudly.service import webhooks
    from cloudly.store.webhooks import find
    from cloudly.webhooks.addresses import one_way

    settings, who = settings_of(data_dir), by_now(by)
    with opened(data_dir) as store:
        store.read_now(lambda db: find(db, name))
        kept = webhooks.secret_of(settings.data_dir, name)
        url = store.write_now(lambda db: webhooks.about_to_test(db, name, who))
    way = one_way(kept.allow_private, settings.root_ca)
    outcome = anyio.run(webhooks.send_test, way, url, name, kept, who.at_ms)
    if not outcome.is_taken:
        raise BadOrder(f"webhook {name} did not take it: {outcome.problem}")
    typer.echo(f"webhook {name} took it: {outcome.status}")


def _host(url: str) -> str:
    """Where it is, without the path: that may be a secret."""
    return shown(urlsplit(url).netloc)


def _state_of(delivery: dict[str, Any], now: int) -> str:
    if delivery["next_at_ms"] is None:
        return "given up" if delivery["problem"] else "delivered"
    from interfaces.why import duration

    wait_ms = delivery["next_at_ms"] - now
    return f"again in {duration(wait_ms)}" if wait_ms > 0 else "due"
