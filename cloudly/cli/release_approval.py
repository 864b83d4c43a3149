"""`cloudly release approve`, `refuse`, `take-back`: one word per person about a release that a channel was proposed."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudly.cli.channel import ReleaseArgument, change
from cloudly.cli.common import DataDir
from cloudly.cli.people import ByOption, by_now

Channel = Annotated[str, typer.Option("--channel", help="In which channel.")]


def approve(
    release: ReleaseArgument,
    *,
    channel: Channel,
    note: Annotated[str, typer.Option(help="Kept beside the yes.")] = "",
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Say yes to a proposed release; the yes that was missing publishes it."""
    from cloudly.store.governance import approving

    who = by_now(by)
    change(
        data_dir,
        channel,
        release,
        lambda db, row, found: approving.approve(db, row, found, who, note=note),
    )


def refuse(
    release: ReleaseArgument,
    *,
    channel: Channel,
    note: Annotated[str, typer.Option(help="Why not; who proposed it will ask.")],
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Say no to a proposed release; nothing publishes it until you say otherwise."""
    from cloudly.store.governance import approving

    who = by_now(by)
    change(
        data_dir,
        channel,
        release,
        lambda db, row, found: approving.refuse(db, row, found, who, note=note),
    )


def take_back(
    release: ReleaseArgument,
    *,
    channel: Channel,
    by: ByOption = None,
    data_dir: DataDir = None,
) -> None:
    """Take your word on a proposed release back, whichever it was."""
    from cloudly.store.governance import approving

    who = by_now(by)
    change(
        data_dir, channel, release, lambda db, row, found: approving.take_back(db, row, found, who)
    )
