"""`cloudly audit`: what people did here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json, print_table


def audit(
    *,
    about: Annotated[
        str | None, typer.Option(help="Of one thing only: channel/stable, node/…, fleet/shops.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show what people did: who, when, and why."""
    from cloudly.store import audit
    from interfaces.why import when

    with opened(data_dir) as store:
        rows = store.read_now(lambda db: audit.listed(db, about=about, limit=limit))
    documents = [audit.document(row) for row in rows]
    if as_json:
        print_json(documents)
        return
    print_table(
        ("when", "who", "did", "to", ""),
        [
            (when(one["at_ms"]), one["actor"], one["act"], one["object"], _said(one["data"]))
            for one in documents
        ],
        empty="Nobody has done anything yet.",
    )


def _said(data: dict[str, Any]) -> str:
    """What was said, without what was not."""
    told = {name: value for name, value in data.items() if value or type(value) is int}
    return ", ".join(f"{name} {_word(value)}" for name, value in told.items())


def _word(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={said}" for name, said in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
