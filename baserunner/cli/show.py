"""How the CLI shows things: durations, moments, tables, JSON. For people on a terminal; `--json` for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import typer

from baserunner.problems import SettingsProblem
from interfaces.why import printable

if TYPE_CHECKING:
    from journal.survey import Survey

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


def coloured(state: str) -> str:
    """Rich markup; a state that came from elsewhere stays what it is."""
    colour = STATE_COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else plain(state)


def wants_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str | None, *, dim: bool = False) -> str:
    """For lines that rich does not draw."""
    if not (wants_colours() and (colour or dim)):
        return text
    return typer.style(text, fg=colour, dim=dim or None)


WIDEST = 1000
PROSE = 20
"""How narrow a column of sentences may become."""


class Cell(str):
    """A cell of a table with a colour of its own, where there are colours."""

    __slots__ = ("colour",)
    colour: str

    def __new__(cls, text: str, colour: str = "") -> Self:
        cell = super().__new__(cls, text)
        cell.colour = colour
        return cell


def state(name: str) -> Cell:
    return Cell(printable(name), STATE_COLOURS.get(name, ""))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, prose: Iterable[str] = ()
) -> None:
    """A table for people; one plain line a row where stdout is not a terminal, and there rich is not even loaded.

    Only the columns named in `prose` are broken: a name in two pieces cannot be read or copied. A terminal that is
    too narrow for the rest wraps the lines itself.
    """
    shown = [[Cell(printable(cell), getattr(cell, "colour", "")) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, shown, prose)
        return
    widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
    lines = [_row(columns, widths), "-" * (sum(widths) + 3 * len(widths) - 3)]
    sys.stdout.write("\n".join([*lines, *(_row(row, widths) for row in shown)]) + "\n")


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "   ".join(
        f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def _rich_table(columns: Sequence[str], rows: list[list[Cell]], prose: Iterable[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        if column in prose:
            drawn.add_column(column, overflow="fold", min_width=PROSE)
        else:
            drawn.add_column(column, no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell, style=cell.colour) for cell in row))
    console = Console(highlight=False)
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), drawn).minimum
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

    return escape(printable(text))


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
def reader(path: Path | None = None) -> Iterator[Survey]:
    """A reader of the journal: the agent's own, or what is at `path`. Exits 1 with the reason."""
    from baserunner.cli.source import opened
    from journal.problems import Damaged, JournalProblem, NoJournal
    from journal.verify import what_is_wrong

    where = path or home()
    if reason := barred(where) if path is None else unreadable(path):
        fail(reason, 1)
    try:
        with opened(where) as survey:
            try:
                yield survey
            except (TypeError, ValueError, KeyError, AttributeError):
                if wrong := what_is_wrong(survey):
                    raise Damaged(f"read {where}", wrong, "copy its files, then salvage") from None
                raise
    except NoJournal:
        todo = (
            "the agent makes it when it starts; BASEOS_DATA_DIR says where its data is"
            if path is None
            else "give a journal.db, the folder it is in, or an export"
        )
        fail(f"there is no journal in {where}: {todo}", 1)
    except Damaged as problem:
        fail(f"{problem} (`baserunner journal salvage --to FOLDER` reads what can be read)", 1)
    except JournalProblem as problem:
        fail(str(problem), 1)


def unreadable(path: Path) -> str:
    """Why this user cannot read the file or folder at `path`; empty if it can, or if there is none."""
    try:
        path.stat()
        allowed = os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
    except PermissionError:
        allowed = False
    except OSError:
        return ""
    return "" if allowed else f"uid {os.geteuid()} may not read {path}: run as its owner or root"


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
