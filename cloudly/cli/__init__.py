"""The `cloudly` command: works on the data directory itself, also beside a running server.

Rules:
- Tables for people on stdout, `--json` for machines, problems on stderr; 2 for wrong usage, 1 for what failed.
- `--help` and completion import nothing of the server.
"""

from __future__ import annotations

import sys

import typer

from cloudly.cli import node, release, token
from cloudly.cli.serving import serve

app = typer.Typer(
    name="cloudly",
    help="Cloudly, the control plane of BaseOS: nodes, join tokens, releases.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.add_typer(token.app, name="token")
app.add_typer(node.app, name="node")
app.add_typer(release.app, name="release")


def main() -> None:
    """Run the command; a problem that has a name is one line, not a traceback."""
    from cloudly.problems import BadOrder, BadSettings, CloudlyProblem

    try:
        app()
    except BadSettings as problem:
        _end(problem, 2)
    except (BadOrder, CloudlyProblem, OSError) as problem:
        _end(problem, 1)


def _end(problem: Exception, code: int) -> None:
    sys.stderr.write(f"cloudly: {problem}\n")
    raise SystemExit(code)
