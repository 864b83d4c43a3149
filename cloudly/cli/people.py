"""Who gives an order on the command line: `--by`, or the user of the operating system."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloudly.store.audit import By

ByOption = Annotated[
    str | None,
    typer.Option(
        "--by", metavar="NAME", help="Who orders it; the user of this system if not said."
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; whoever meets it will read it.")]


def by_now(by: str | None) -> By:
    """That person, at this moment. Raises BadOrder for what is no name."""
    from cloudly.governance.people import person
    from cloudly.store.audit import By
    from interfaces.world import RealWorld, now_ms

    return By(person(user() if by is None else by), now_ms(RealWorld()))


def user() -> str:
    """Of the operating system; its number where it has no name, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"
