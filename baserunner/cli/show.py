"""How the CLI shows things: durations, moments, tables, JSON. For people on a terminal; `--json` for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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


PIPE_WIDTH = 1000
"""Where stdout is no terminal, a row is one line: for grep, for a ticket."""
PROSE = 20
"""How narrow a column of sentences may become."""


def table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], *, prose: Iterable[str] = ()
) -> None:
    """A table for people; one plain line a row where stdout is not a terminal.

    Only the columns named in `prose` are broken: a name in two pieces cannot be read or copied. A terminal that is
    too narrow for the rest wraps the lines itself.
    """
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        if column in prose:
            drawn.add_column(column, overflow="fold", min_width=PROSE)
        else:
            drawn.add_column(column, no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=PIPE_WIDTH), drawn).minimum
    console.width = max(console.width, needed)
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def pairs(values: Mapping[str, str]) -> None:
    """Names and values, one pair a line."""
    from rich.console import Console

    width = max(map(len, values), default=0)
    console = Console(highlight=False, soft_wrap=True)
    for name, value in values.items():
        console.print(f"[dim]{name:<{width}}[/dim]  {value}")


def plain(text: object) -> str:
    """Text that came from elsewhere, without markup and control characters of its own."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "\ufffd" for c in str(text)))


def home() -> Path:
    """The agent's home in the data directory."""
    from baserunner.place import home_in, read_data_dir

    return home_in(read_data_dir(os.environ))


def barred(home: Path) -> str:
    """Why this user cannot look into the agent's home; empty if it can, and if there is none."""
    try:
        home.stat()
    except PermissionError:
        pass
    except OSError:
        return ""
    else:
        if os.access(home, os.R_OK | os.X_OK):
            return ""
    return f"uid {os.geteuid()} may not look into {home}: run as the agent's user or root"


@contextmanager
def reader(path: Path | None = None) -> Iterator[Any]:
    """A reader of the journal: the agent's own, or the file or folder at `path`. Exits 1 with the reason."""
    from journal.problems import JournalProblem, NoJournal
    from journal.reader import open_reader

    where = path or home()
    if reason := barred(where if path is None else path.parent):
        fail(reason, 1)
    try:
        with open_reader(where) as opened:
            yield opened
    except NoJournal:
        todo = (
            "the agent makes it when it starts; BASEOS_DATA_DIR says where its data is"
            if path is None
            else "give a journal.db, or the folder it is in"
        )
        fail(f"there is no journal in {where}: {todo}", 1)
    except JournalProblem as problem:
        fail(str(problem), 1)


def machine_of(asked: str) -> str:
    """The machine of `app-update` or `app-update/12`. Exits 2 if there is no such machine."""
    from baserunner.machines import MACHINES

    name = asked.partition("/")[0]
    if name not in MACHINES:
        fail(f"there is no machine {name!r}; there are {', '.join(MACHINES)}", 2)
    return name


def ask(question: str, *, yes: bool) -> None:
    """Go on only after a yes. Exits 2 where nobody can be asked, 1 after a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{question} Nobody is there to answer: add --yes", 2)
    if not typer.confirm(question):
        fail("nothing was done", 1)


def settings() -> Any:
    """The settings. Exits 2 with the one line that says what is missing."""
    from baserunner.settings import read_settings

    try:
        return read_settings(os.environ)
    except SettingsProblem as problem:
        fail(str(problem), 2)
