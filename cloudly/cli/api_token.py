"""`cloudly api-token`: what programs use the HTTP API with (docs/api.md)."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table
from cloudly.cli.people import ByOption, by_now
from cloudly.cli.token import duration_s

app = typer.Typer(help="API tokens: what programs use the HTTP API with.", no_args_is_help=True)

TokenName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Its orders are `api/NAME`'s; letters, digits, dot, dash."),
]


@app.command()
def create(  # noqa: PLR0913 - options of a command
    name: TokenName,
    *,
    role: Annotated[
        str,
        typer.Option(
            metavar="viewer|operator|approver|admin",
            help="What it may do: see, give orders, approve releases, everything.",
        ),
    ],
    expires: Annotated[
        str, typer.Option(help="After how long it admits nobody: 90d, 24h, never.")
    ] = "90d",
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make an API token. It is shown this once; only its hash is kept."""
    lasts_s = duration_s(expires)
    from cloudly.access import Role
    from cloudly.store import api_tokens
    from cloudly.tokens import new_api_token
    from interfaces.world import RealWorld

    if role not in set(Role):
        raise typer.BadParameter(f"--role {role!r} is none of {', '.join(Role)}")
    who, token = by_now(by), new_api_token(RealWorld())
    ends = who.at_ms + lasts_s * 1000 if lasts_s else None
    new = api_tokens.NewApiToken(token, name, Role(role), who.at_ms, ends)
    with opened(data_dir) as store:
        number = store.write_now(lambda db: api_tokens.create(db, new, by=who))
    if as_json:
        print_json(
            {
                "id": number,
                "name": name,
                "role": role,
                "token": new.token,
                "expires_at_ms": new.expires_at_ms,
            }
        )
    else:
        typer.echo(new.token)


@app.command("list")
def list_(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show API tokens, without the tokens."""
    from cloudly.store import api_tokens
    from cloudly.views import ago
    from interfaces.why import when
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    with opened(data_dir) as store:
        found = store.read_now(api_tokens.listed)
    rows = [dict(row) | {"state": api_tokens.state_of(dict(row), now)} for row in found]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "role", "state", "made", "expires", "last used"),
        [
            (row["id"], row["name"], row["role"], row["state"], ago(row["created_at_ms"], now),
             when(row["expires_at_ms"])[:10] if row["expires_at_ms"] else "never",
             when(row["used_at_ms"])[:10] if row["used_at_ms"] else "never")
            for row in rows
        ],
        empty="No API tokens yet. `cloudly api-token create` makes one.",
    )  # fmt: skip


@app.command()
def revoke(name: TokenName, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """From now on it admits nobody."""
    from cloudly.store import api_tokens

    who = by_now(by)
    with opened(data_dir) as store:
        store.write_now(lambda db: api_tokens.revoke(db, name, who.at_ms, by=who))
    typer.echo(f"API token {name} is revoked")
