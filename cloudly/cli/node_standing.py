"""`cloudly node quarantine`, `lift-quarantine`, `revoke`, `retire`, `readmit`: whether, and how far, it is let in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import DataDir, opened
from cloudly.cli.node_journal import NodeArgument

if TYPE_CHECKING:
    from cloudly.store.node_standing import Word
    from cloudly.store.sql import Connection

Reason = Annotated[str, typer.Option("--reason", help="Why; who looks at it later reads it.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who says so; default: the user that runs this.")
]


def quarantine(
    node: NodeArgument, *, reason: Reason, by: By = None, data_dir: DataDir = None
) -> None:
    """It goes on reporting, but no rollout and no order reaches it, unless forced."""
    from cloudly.store import node_standing

    word = _word(by, reason)
    row = _change(node, data_dir, lambda db, number: node_standing.quarantine(db, number, word))
    typer.echo(f"node {row['node_id']} is in quarantine")


def lift_quarantine(node: NodeArgument, *, data_dir: DataDir = None) -> None:
    """End its quarantine: orders reach it again."""
    from cloudly.store import node_standing

    row = _change(node, data_dir, node_standing.lift_quarantine)
    typer.echo(f"node {row['node_id']} is in no quarantine any more")


def revoke(node: NodeArgument, *, data_dir: DataDir = None) -> None:
    """Its credentials are refused from now on, until it is readmitted or comes with a fresh join token."""
    from cloudly.store import node_standing
    from interfaces.world import RealWorld, now_ms

    now = now_ms(RealWorld())
    row = _change(node, data_dir, lambda db, number: node_standing.revoke(db, number, now))
    typer.echo(f"node {row['node_id']} is revoked")


def retire(node: NodeArgument, *, reason: Reason, by: By = None, data_dir: DataDir = None) -> None:
    """It is out of service: refused, and in no list and no count; its story is kept."""
    from cloudly.store import node_standing

    word = _word(by, reason)
    row = _change(node, data_dir, lambda db, number: node_standing.retire(db, number, word))
    typer.echo(f"node {row['node_id']} is retired")


def readmit(node: NodeArgument, *, data_dir: DataDir = None) -> None:
    """Take back that it was revoked or retired: the credentials that it had are taken again."""
    from cloudly.store import node_standing

    row = _change(node, data_dir, node_standing.readmit)
    typer.echo(f"node {row['node_id']} is readmitted; its agent asks again within the hour")


def _change(
    node: str, data_dir: Path | None, change: Callable[[Connection, int], object]
) -> dict[str, Any]:
    """One decision; returns the node's row of before."""
    from cloudly.store import reading

    def work(db: Connection) -> dict[str, Any]:
        row = dict(reading.find(db, node))
        change(db, row["id"])
        return row

    with opened(data_dir) as store:
        return store.write_now(work)


def _word(by: str | None, reason: str) -> Word:
    import os
    import pwd

    from cloudly.store.node_standing import Word
    from interfaces.world import RealWorld, now_ms

    if by is None:
        try:
            by = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container's user without a name
            by = f"uid {os.getuid()}"
    return Word(by, reason, now_ms(RealWorld()))
