"""`baserunner`: the agent, and what an engineer on the device asks of it.

Each command imports what it uses when it runs, so that `--help` and `journal` start fast on a slow device.
Exit codes: 0 well, 1 not well (the answer says what), 2 wrong usage or settings, 3 the agent is (not) running.
"""

from __future__ import annotations

import typer

from baserunner import __version__
from baserunner.cli import inspect as _inspect
from baserunner.cli import journal as _journal
from baserunner.cli import operate as _operate

app = typer.Typer(
    name="baserunner",
    help="The BaseOS device agent: enrolls, heartbeats, drives updates, explains itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_journal.app, name="journal")
app.add_typer(_operate.update_app, name="update")
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
    """The console script."""
    app()
