"""What the commands share: the store they open, the options they repeat, how they print."""

from __future__ import annotations

import json
import os
import sys
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
PROSE = ("reason", "waits for", "nodes", "labels", "")
"""Columns that may be broken; names may not."""
PIPE_WIDTH = 1000
"""Where stdout is no terminal, a row is one line."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def settings_of(data_dir: Path | None, **options: object) -> Settings:
    from cloudly.settings import from_environment

    return from_environment(os.environ, data_dir=data_dir, **options)


@contextmanager
def opened(data_dir: Path | None) -> Iterator[Store]:
    """The store of the data directory, beside a running server or without one."""
    from cloudly.store.store import Store
    from interfaces.world import RealWorld

    settings = settings_of(data_dir)
    where = settings.data_dir
    is_new = settings.database is None and not (where / "cloudly.db").exists()
    store = Store.open(where, RealWorld(), serves=False, database_url=settings.database)
    if is_new:
        typer.echo(f"cloudly: {where} had no database, now it has an empty one", err=True)
    try:
        yield store
    finally:
        store.close()


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """A table for people; a sentence that says what to do where there is nothing."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        if column in PROSE:
            table.add_column(column, overflow="fold", min_width=20)
        else:
            table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    needed = Measurement.get(console, console.options.update(max_width=PIPE_WIDTH), table).minimum
    console.width = max(console.width, needed)  # a terminal wraps lines better than we break names
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def shown(cell: object) -> str:
    """A node's text may hold terminal escapes: what is not printable is replaced."""
    if cell is None:
        return "-"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(cell))
