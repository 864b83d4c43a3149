"""Who orders: what `--by` says, or the user of the operating system."""

from __future__ import annotations

import os
import pwd
from typing import Annotated

import typer

By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who orders it; else the user of this system."),
]


def person(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
