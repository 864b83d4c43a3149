"""`cloudly webhook`: who is told what happens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of, shown
from cloudly.cli.node_journal import moment_ms

if TYPE_CHECKING:
    from cloudly.webhooks.secrets_file import Kept
    from cloudly.webhooks.sending import Outcome

app = typer.Typer(help="Webhooks: others are told what happens here.", no_args_is_help=True)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a webhook. Its signing secret is shown this once; receivers verify by Standard Webhooks."""
    from cloudly.problems import BadOrder
    from cloudly.store import outbox, webhooks
    from cloudly.webhooks import secrets_file, signing
    from cloudly.webhooks.addresses import check_target, checked_url
    from interfaces.world import RealWorld, now_ms

    if NAME.fullmatch(name) is None:
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
    world = RealWorld()
    kept = secrets_file.Kept(signing.new_secret(world), allow_private)
    directory = settings_of(data_dir).data_dir
    with opened(data_dir) as store:
        if store.read_now(lambda db: [row for row in webhooks.listed(db) if row["name"] == name]):
            raise BadOrder(
                f"there is a webhook {name} already: delete it first, or take another name"
            )
        secrets_file.add(directory, name, kept)
        number = store.write_now(lambda db: webhooks.create(db, name, url, kinds, now_ms(world)))
    if url.startswith("http://"):
        typer.echo("cloudly: http, not https: others on the way can read what is told", err=True)
    if as_json:
        print_json({"id": number, "name": name, "secret": kept.secret})
    else:
        typer.echo(kept.secret)


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show webhooks, and what waits for each."""
    from cloudly.store import webhooks
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = [_view(dict(row)) for row in store.read_now(webhooks.listed)]
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
    from cloudly.store import webhooks
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        row = _view(dict(store.read_now(lambda db: webhooks.find(db, name))))
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
def disable(name: NameArgument, *, data_dir: DataDir = None) -> None:
    """Tell it nothing from now on. What happens meanwhile can be replayed later."""
    from cloudly.store import webhooks
    from interfaces.world import RealWorld, now_ms

    with opened(data_dir) as store:
        row = store.read_now(lambda db: webhooks.find(db, name))
        changed = store.write_now(
            lambda db: webhooks.disable(db, row["id"], "by the operator", now_ms(RealWorld()))
        )
    typer.echo(f"webhook {name} is disabled" if changed else f"webhook {name} was disabled already")


@app.command()
def enable(name: NameArgument, *, data_dir: DataDir = None) -> None:
    """Tell it again: first what waited. What happened while it was disabled: `cloudly webhook replay`."""
    from cloudly.store import webhooks
    from interfaces.world import RealWorld, now_ms

    with opened(data_dir) as store:
        row = store.read_now(lambda db: webhooks.find(db, name))
        changed = store.write_now(lambda db: webhooks.enable(db, row["id"], now_ms(RealWorld())))
    typer.echo(f"webhook {name} is enabled" if changed else f"webhook {name} was enabled already")


@app.command()
def delete(name: NameArgument, *, data_dir: DataDir = None) -> None:
    """Remove a webhook, its secret and what waits for it."""
    from cloudly.store import webhooks
    from cloudly.webhooks import secrets_file

    with opened(data_dir) as store:
        row = store.read_now(lambda db: webhooks.find(db, name))
        store.write_now(lambda db: webhooks.delete(db, row["id"]))
    secrets_file.remove(settings_of(data_dir).data_dir, name)
    typer.echo(f"webhook {name} is deleted")


@app.command()
def replay(
    name: NameArgument,
    *,
    since: Annotated[str | None, typer.Option(help="2h (ago) or 2026-11-23T08:00.")] = None,
    event: Annotated[int | None, typer.Option(min=1, help="Only this event.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Tell it again what happened, with the same ids: all of its kinds since a moment, or one event."""
    from cloudly.problems import BadOrder
    from cloudly.store import webhooks
    from interfaces.world import RealWorld, now_ms

    if (since is None) == (event is None):
        raise typer.BadParameter("say --since or --event")
    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        row = store.read_now(lambda db: webhooks.find(db, name))
        if row["disabled_at_ms"] is not None:
            raise BadOrder(f"webhook {name} is disabled: `cloudly webhook enable {name}` first")
        if event is not None:
            store.write_now(lambda db: webhooks.replay(db, row, event, now))
            many = 1
        else:
            since_ms = moment_ms(since or "", now)
            many = store.write_now(lambda db: webhooks.replay_since(db, row, since_ms, now))
    typer.echo(f"{many} event{'' if many == 1 else 's'} will be told again")


@app.command("test")
def send_test(name: NameArgument, *, data_dir: DataDir = None) -> None:
    """Send it an event of kind webhook.test at once, from here; 1 if it was not taken."""
    from cloudly.problems import BadOrder
    from cloudly.store import webhooks
    from cloudly.webhooks import secrets_file

    settings = settings_of(data_dir)
    with opened(data_dir) as store:
        row = store.read_now(lambda db: webhooks.find(db, name))
    try:
        kept = secrets_file.of(settings.data_dir, name)
    except secrets_file.SecretsUnreadable as problem:
        raise BadOrder(str(problem)) from None
    outcome = _send_test(row["url"], name, kept, settings.root_ca)
    if not outcome.is_taken:
        raise BadOrder(f"webhook {name} did not take it: {outcome.problem}")
    typer.echo(f"webhook {name} took it: {outcome.status}")


def _send_test(url: str, name: str, kept: Kept, root_ca: Any) -> Outcome:
    import json

    import anyio

    from cloudly.webhooks.addresses import transport
    from cloudly.webhooks.sending import send
    from cloudly.webhooks.signing import Event
    from interfaces.world import RealWorld, now_ms

    async def sent() -> Outcome:
        now = now_ms(RealWorld())
        event = Event(0, now, "webhook.test", json.dumps({"webhook": name}))
        way = transport(allow_private=kept.allow_private, root_ca=root_ca, most=1)
        try:
            return await send(way, url, kept, event, now // 1000)
        finally:
            await way.aclose()

    return anyio.run(sent)


def _view(row: dict[str, Any]) -> dict[str, Any]:
    import json

    return row | {
        "kinds": json.loads(row["kinds"]),
        "state": "enabled" if row["disabled_at_ms"] is None else "disabled",
    }


def _host(url: str) -> str:
    """Where it is, without the path: that may be a secret."""
    return shown(urlsplit(url).netloc)


def _state_of(delivery: dict[str, Any], now: int) -> str:
    if delivery["next_at_ms"] is None:
        return "given up" if delivery["problem"] else "delivered"
    from interfaces.why import duration

    wait_ms = delivery["next_at_ms"] - now
    return f"again in {duration(wait_ms)}" if wait_ms > 0 else "due"
