"""`run`, `enroll`, `update check|force`, `reboot`: what changes something."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from baserunner.cli import show

if TYPE_CHECKING:
    from baserunner.orders import OrderKind
    from baserunner.settings import Settings

update_app = typer.Typer(help="Updates of the app layer.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command("run", help="Run the agent, as the container's main process, until SIGTERM.")(run)
    app.command("enroll", help="Give the agent a join token; enroll now if no agent runs.")(enroll)
    app.command("reboot", help="Reboot the device through the Supervisor; proven by the boot id.")(
        reboot
    )


def run() -> None:
    """Run the agent."""
    settings: Settings = show.settings()
    # httpx would load its own command line, and with it rich, pygments and click: 6 MB of an agent's 55.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    from baserunner.cli.process import run_agent

    raise typer.Exit(run_agent(settings))


TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help="Read the join token from this file; default: standard input."
    ),
]


def enroll(token_file: TokenFile = None) -> None:
    """The token is never an argument: arguments are visible to every process of the host.

    What a QR code of `cloudly token create --qr` says will do too.
    """
    import re

    from pydantic import SecretStr

    from interfaces.join_code import is_join_code

    if token_file is None and sys.stdin.isatty():
        typer.echo("join token: ", nl=False, err=True)
    try:
        raw = sys.stdin.readline() if token_file is None else token_file.read_text("ascii")
    except (OSError, ValueError) as error:
        seen = error.strerror if isinstance(error, OSError) else "it is not plain text"
        show.fail(f"cannot read the join token from {token_file or 'standard input'}: {seen}", 2)
    settings: Settings | None = None
    token = raw.strip()
    if is_join_code(token):
        settings = show.settings()
        token = _token_of(token, settings.cloudly_url)
    if not re.fullmatch(r"[A-Za-z0-9_-]{20,200}", token):
        show.fail("that is not a join token; `cloudly token create` makes one: bjt_...", 2)
    from baserunner.cli.process import enroll_now

    _say(*enroll_now(settings or show.settings(), SecretStr(token)))


def _token_of(text: str, cloudly_url: str) -> str:
    """The token in a join code, if it is for the Cloudly that this device asks. Exits 2."""
    from interfaces.join_code import BadJoinCode, read_join_code

    try:
        code = read_join_code(text)
    except BadJoinCode as problem:
        show.fail(f"that join code cannot be used: {problem}", 2)
    if code.cloudly.rstrip("/") != cloudly_url.rstrip("/"):
        show.fail(
            f"that join code is for {code.cloudly}, and this device asks {cloudly_url}"
            " (BASEOS_CLOUDLY_URL)",
            2,
        )
    return code.token.get_secret_value()


@update_app.command("check", help="Heartbeat now and see what Cloudly wants.")
def check() -> None:
    from baserunner.orders import OrderKind

    _order(OrderKind.CHECK)


@update_app.command("force", help="Apply the update under way even if others hold update locks.")
def force(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    from baserunner.orders import OrderKind

    _require_agent()
    show.ask("This deletes the update locks of other services. Go on?", yes=yes)
    _order(OrderKind.FORCE)


def reboot(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Reboot the device."""
    from baserunner.orders import OrderKind

    _require_agent()
    show.ask("Reboot this device?", yes=yes)
    _order(OrderKind.REBOOT)


def _require_agent() -> None:
    """Before somebody is asked. Exits 1 or 3."""
    from baserunner.cli.process import no_agent

    if refusal := no_agent(show.home()):
        code, said = refusal
        show.fail(said, code)


def _order(kind: OrderKind) -> None:
    from baserunner.cli.process import give_order

    _say(*give_order(show.home(), kind))


def _say(code: int, said: str) -> NoReturn:
    if code:
        show.fail(said, code)
    typer.echo(said)
    raise typer.Exit
