"""The `cloudly` command: works on the data directory itself, also beside a running server.

Rules:
- Tables for people on stdout, `--json` for machines, problems on stderr; 2 for wrong usage, 1 for what failed.
- `--help` and completion import nothing of the server.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cloudly.cli import (
    api_token,
    ca,
    channel,
    fleet,
    image,
    node,
    pin,
    registry,
    release,
    rollout,
    servers,
    token,
    webhook,
)
from cloudly.cli.audit import audit
from cloudly.cli.serving import serve

app = typer.Typer(
    name="cloudly",
    help="Cloudly, the control plane of BaseOS: fleets, nodes, join tokens, releases.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(audit)
app.add_typer(fleet.app, name="fleet")
app.add_typer(channel.app, name="channel")
app.add_typer(pin.app, name="pin")
app.add_typer(pin.unpin, name="unpin")
app.add_typer(token.app, name="token")
app.add_typer(api_token.app, name="api-token")
app.add_typer(node.app, name="node")
app.add_typer(release.app, name="release")
app.add_typer(rollout.app, name="rollout")
app.add_typer(registry.app, name="registry")
app.add_typer(ca.app, name="ca")
app.add_typer(webhook.app, name="webhook")
app.add_typer(image.app, name="image")
app.add_typer(servers.app, name="servers")


@app.callback(invoke_without_command=True)
def _root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"cloudly {version_of('baseos')}")
        raise typer.Exit


def main() -> None:
    """Run the command; a problem that has a name is one line, not a traceback."""
    from cloudly.problems import BadOrder, BadSettings, CloudlyProblem

    try:
        app(prog_name="cloudly")
    except BadSettings as problem:
        _end(problem, 2)
    except (BadOrder, CloudlyProblem) as problem:
        _end(problem, 1)
    except (UnicodeError, OverflowError) as error:
        _end(f"an argument cannot be taken: {error}", 2)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else error, 1)


def _end(problem: object, code: int) -> None:
    sys.stderr.write(f"cloudly: {problem}\n")
    raise SystemExit(code)
