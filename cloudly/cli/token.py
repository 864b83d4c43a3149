"""`cloudly token`: join tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cloudly.cli import qr as qr_code
from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table, settings_of
from cloudly.cli.people import ByOption, by_now

app = typer.Typer(help="Join tokens: what lets a device enroll.", no_args_is_help=True)


def duration_s(text: str) -> int:
    """24h, 30m, 90s, 7d; `never` is 0."""
    from cloudly.durations import seconds_of

    try:
        return seconds_of(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no duration; for example 24h, 30m, 7d or never"
        ) from None


Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="A label that its nodes come with."),
]
Qr = Annotated[
    bool,
    typer.Option("--qr", help="Draw it as a QR code, with Cloudly's public address. It is secret."),
]
QrFile = Annotated[
    Path | None,
    typer.Option("--qr-file", help="Write that code to a .svg or .png that only you may read."),
]


@app.command()
def create(  # noqa: PLR0913 - options of a command
    *,
    name: Annotated[str, typer.Option(help="What it is for; people read it.")] = "",
    uses: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many nodes may enroll with it.")
    ] = 1,
    expires: Annotated[
        str, typer.Option(help="After how long it admits nobody: 24h, 30m, 7d, never.")
    ] = "24h",
    fleet: Annotated[str, typer.Option(help="Into which its nodes come.")] = "default",
    label: Label = None,
    qr: Qr = False,
    qr_file: QrFile = None,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a join token. It is shown this once; only its hash is kept."""
    lasts_s = duration_s(expires)
    if qr and as_json:
        raise typer.BadParameter("--qr is for people and --json for machines: use --qr-file")
    from pydantic import SecretStr

    from cloudly import labels
    from cloudly.service import join_tokens
    from cloudly.tokens import new_join_token
    from interfaces.join_code import JoinCode
    from interfaces.world import RealWorld

    who, secret = by_now(by), new_join_token(RealWorld())
    given = labels.changed({}, label or [])
    address = _address(data_dir, qr_file) if qr or qr_file else ""
    ask = join_tokens.Ask(name, uses, lasts_s, fleet, given)
    with opened(data_dir) as store:
        made = store.write_now(lambda db: join_tokens.create(db, ask, token=secret, by=who))
    if as_json:
        told = {"id": made.number, "token": secret, "uses": uses}
        print_json(told | {"expires_at_ms": made.expires_at_ms, "labels": given})
    else:
        typer.echo(secret)
    code = JoinCode(address, SecretStr(secret))
    if qr:
        qr_code.draw(code)
    if qr_file:
        qr_code.write(code, qr_file)


def _address(data_dir: Path | None, file: Path | None) -> str:
    """Where devices reach Cloudly, which the code says. Raises BadOrder before anything is made."""
    from cloudly.problems import BadOrder

    if file is not None:
        qr_code.check_file(file)
    address: str | None = settings_of(data_dir).public_url
    if address is None:
        raise BadOrder(
            "a QR code says where Cloudly is, and CLOUDLY_PUBLIC_URL is not set:"
            " for example CLOUDLY_PUBLIC_URL=https://cloudly.example:8443"
        )
    return address


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show join tokens, without the tokens."""
    from cloudly.labels import in_words
    from cloudly.store.join_tokens import listed
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = [_told(dict(row), now) for row in store.read_now(listed)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "fleet", "labels", "state", "uses left", "made", "nodes"),
        [
            (row["id"], row["name"], row["fleet"], in_words(row["labels"]), row["state"],
             f"{row['uses_left']}/{row['uses']}", ago(row["created_at_ms"], now), row["nodes"])
            for row in rows
        ],
        empty="No join tokens yet. `cloudly token create` makes one.",
    )  # fmt: skip


TokenArgument = Annotated[
    int, typer.Argument(metavar="ID", help="Its id, from `cloudly token list`.")
]


@app.command()
def show(token: TokenArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show one join token, without the token: what it gives, and who used it, when."""
    from cloudly.labels import in_words
    from cloudly.store import join_tokens
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        row = _told(dict(store.read_now(lambda db: join_tokens.one(db, token))), now)
        uses = [dict(use) for use in store.read_now(lambda db: join_tokens.uses(db, token))]
    for use in uses:
        del use["node"]  # its number is nobody's business
    del row["nodes"]  # the uses say it
    if as_json:
        print_json(row | {"used_by": uses})
        return
    facts = [
        ("id", row["id"]),
        ("name", row["name"]),
        ("fleet", row["fleet"]),
        ("labels", in_words(row["labels"])),
        ("state", row["state"]),
        ("uses left", f"{row['uses_left']}/{row['uses']}"),
        ("made", ago(row["created_at_ms"], now)),
    ]
    print_table(("", ""), facts, empty="")
    typer.echo("")
    print_table(
        ("node", "name", "agent enrolled", "Supervisor registered"),
        [
            (use["node_id"], use["hostname"], _moment(use["agent_at_ms"]), _moment(use["supervisor_at_ms"]))
            for use in uses
        ],
        empty="Nobody has used it yet.",
    )  # fmt: skip


def _moment(at_ms: int | None) -> str | None:
    from interfaces.why import when

    return None if at_ms is None else when(at_ms)


def _told(row: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """A join token's row as it is shown."""
    from cloudly.labels import load
    from cloudly.service.join_tokens import state_of

    return row | {"labels": load(row["labels"]), "state": state_of(row, now_ms)}


@app.command()
def revoke(token: TokenArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """From now on it admits nobody. Nodes that enrolled with it stay."""
    from cloudly.store.join_tokens import revoke as revoke_token

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: revoke_token(db, token, who.at_ms, by=who))
    typer.echo(f"join token {token} is revoked")
