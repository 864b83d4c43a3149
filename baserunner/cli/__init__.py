"""`baserunner`: the agent, and what an engineer on the device asks of it.

Each command imports what it uses when it runs, so that `--help` and `journal` start fast on a slow device.
Exit codes: 0 well, 1 not well (the answer says what), 2 wrong usage or settings, 3 the agent is (not) running.
A reader that goes away (`| head -1`) ends a command with 1 and without a word, as other programs do.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from baserunner import __version__
from baserunner.cli import inspect as _inspect
from baserunner.cli import journal as _journal
from baserunner.cli import locks as _locks
from baserunner.cli import operate as _operate

app = typer.Typer(
    name="baserunner",
    help="The BaseOS device agent: enrolls, heartbeats, drives updates, explains itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich is 2/3 of what --help would cost
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_journal.app, name="journal")
app.add_typer(_operate.update_app, name="update")
app.add_typer(_locks.app, name="locks")
_operate.add_to(app)
_inspect.add_to(app)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),  # noqa: FBT001
) -> None:
    if version:
        typer.echo(f"baserunner {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script; a problem that nobody handled is one line all the same."""
    try:
        app(prog_name="baserunner")
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as problem:
        from baserunner.problems import BaserunnerProblem
        from journal.problems import JournalProblem

        if not isinstance(problem, BaserunnerProblem | JournalProblem):
            raise  # a mistake of ours, which is not to be hidden
        _end(str(problem))


def _end(said: str) -> NoReturn:
    sys.stderr.write(f"baserunner: {said}\n")
    raise SystemExit(1)
