"""What the commands share: the store they open, the options they repeat, how they print."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cloudly.settings import Settings
    from cloudly.store.store import Store

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="CLOUDLY_DATA_DIR", help="Where Cloudly keeps its database."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def settings_of(data_dir: Path | None, **options: object) -> Settings:
    from cloudly.settings import from_environment

    return from_environment(os.environ, data_dir=data_dir, **options)


@contextmanager
def opened(data_dir: Path | None) -> Iterator[Store]:
    """The store of the data directory, beside a running server or without one."""
    from cloudly.store.store import Store
    from interfaces.world import RealWorld

    store = Store.open(settings_of(data_dir).data_dir, RealWorld())
    try:
        yield store
    finally:
        store.close()


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """A table for people; a sentence that says what to do where there is nothing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not rows:
        console.print(Text(empty))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    console.print(table)


def shown(cell: object) -> str:
    """A node's text may hold terminal escapes: what is not printable is replaced."""
    if cell is None:
        return "-"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(cell))
