"""How the CLI shows things: durations, moments, tables, JSON. For people on a terminal; `--json` for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import typer

from baserunner.problems import SettingsProblem

STATE_COLOURS = {
    "succeeded": "green",
    "enrolled": "green",
    "done": "green",
    "resting": "green",
    "staged": "cyan",
    "downloading": "cyan",
    "applying": "yellow",
    "verifying": "yellow",
    "rolling-back": "yellow",
    "backing-off": "yellow",
    "rolled-back": "magenta",
    "rollback-needed": "red",
    "failed": "red",
    "refused": "red",
    "rejected": "red",
    "unclear": "red",
    "parked": "red",
}


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr, and the exit code."""
    typer.echo(f"baserunner: {message}", err=True)
    raise typer.Exit(code)


def as_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def duration(milliseconds: float) -> str:
    """A length of time in its two largest units: 250 ms, 3.2 s, 4 m 05 s, 2 h 10 m, 3 d 4 h."""
    seconds = abs(milliseconds) / 1000
    sign = "-" if milliseconds < 0 else ""
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{sign}{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes} m {rest_s:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{sign}{hours} h {minutes:02} m"
    return f"{sign}{hours // 24} d {hours % 24} h"


def moment(at_ms: int) -> str:
    """UTC, to the second; the raw number where it is beyond the calendar."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


def coloured(state: str) -> str:
    colour = STATE_COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else state


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table for people; plain lines where stdout is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(drawn)


def pairs(values: Mapping[str, str]) -> None:
    """Names and values, one pair a line."""
    from rich.console import Console

    width = max(map(len, values), default=0)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for name, value in values.items():
        console.print(f"[dim]{name:<{width}}[/dim]  {value}")


def plain(text: object) -> str:
    """Text that came from elsewhere, without markup and control characters of its own."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "\ufffd" for c in str(text)))


def home() -> Path:
    """The agent's home in the data directory."""
    import os

    from baserunner.place import home_in, read_data_dir

    return home_in(read_data_dir(os.environ))


def reader(path: Path | None = None) -> Any:
    """A reader of the journal: the agent's own, or the file or folder at `path`. Exits 1 with the reason."""
    from journal.problems import JournalProblem
    from journal.reader import open_reader

    try:
        return open_reader(path or home())
    except JournalProblem as problem:
        fail(str(problem), 1)


def settings() -> Any:
    """The settings. Exits 2 with the one line that says what is missing."""
    import os

    from baserunner.settings import read_settings

    try:
        return read_settings(os.environ)
    except SettingsProblem as problem:
        fail(str(problem), 2)
