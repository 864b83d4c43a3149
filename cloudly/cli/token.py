"""`cloudly token`: join tokens."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table

app = typer.Typer(help="Join tokens: what lets a device enroll.", no_args_is_help=True)

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> int:
    """24h, 30m, 90s, 7d; `never` is 0."""
    if text == "never":
        return 0
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; for example 24h, 30m, 7d or never")
    return int(found[1]) * UNITS_S[found[2]]


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
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a join token. It is shown this once; only its hash is kept."""
    lasts_s = duration_s(expires)
    from cloudly.store import fleets
    from cloudly.store.join_tokens import NewToken
    from cloudly.store.join_tokens import create as create_token
    from cloudly.tokens import new_join_token
    from interfaces.world import RealWorld, now_ms

    world = RealWorld()
    now = now_ms(world)
    expires_at_ms = now + lasts_s * 1000 if lasts_s else None
    with opened(data_dir) as store:
        into = store.read_now(lambda db: fleets.find(db, fleet))["id"]
        new = NewToken(new_join_token(world), name, uses, now, expires_at_ms, into)
        number = store.write_now(lambda db: create_token(db, new))
    if as_json:
        print_json(
            {"id": number, "token": new.token, "uses": uses, "expires_at_ms": new.expires_at_ms}
        )
    else:
        typer.echo(new.token)


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show join tokens, without the tokens."""
    from cloudly.store.join_tokens import listed
    from cloudly.views import ago
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        rows = [dict(row) for row in store.read_now(listed)]
    for row in rows:
        row["state"] = token_state(row, now)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "fleet", "state", "uses left", "made", "nodes"),
        [
            (row["id"], row["name"], row["fleet"], row["state"], f"{row['uses_left']}/{row['uses']}",
             ago(row["created_at_ms"], now), row["nodes"])
            for row in rows
        ],
        empty="No join tokens yet. `cloudly token create` makes one.",
    )  # fmt: skip


def token_state(row: dict[str, object], now_ms: int) -> str:
    """usable, used up, expired or revoked."""
    expires = row["expires_at_ms"]
    if row["revoked_at_ms"] is not None:
        return "revoked"
    if not row["uses_left"]:
        return "used up"
    return "expired" if isinstance(expires, int) and expires <= now_ms else "usable"


@app.command()
def revoke(
    token: Annotated[int, typer.Argument(metavar="ID", help="Its id, from `cloudly token list`.")],
    *,
    data_dir: DataDir = None,
) -> None:
    """From now on it admits nobody. Nodes that enrolled with it stay."""
    from cloudly.store.join_tokens import revoke as revoke_token
    from interfaces.world import RealWorld, now_ms

    with opened(data_dir) as store:
        store.write_now(lambda db: revoke_token(db, token, now_ms(RealWorld())))
    typer.echo(f"join token {token} is revoked")
