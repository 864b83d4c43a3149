"""`cloudly node quarantine`, `lift-quarantine`, `revoke`, `retire`, `readmit`: whether, and how far, it is let in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloudly.cli.common import DataDir, opened
from cloudly.cli.node_journal import NodeArgument
from cloudly.cli.people import ByOption, by_now

if TYPE_CHECKING:
    from cloudly.store.node_standing import Word
    from cloudly.store.sql import Connection

Reason = Annotated[str, typer.Option("--reason", help="Why; who looks at it later reads it.")]


def quarantine(
    node: NodeArgument, *, reason: Reason, by: ByOption = None, data_dir: DataDir = None
) -> None:
    """It goes on reporting, but no rollout and no order reaches it, unless forced."""
    from cloudly.store import node_standing

    word = _word(by, reason)
    row = _change(node, data_dir, lambda db, number: node_standing.quarantine(db, number, word))
    typer.echo(f"node {row['node_id']} is in quarantine")


def lift_quarantine(node: NodeArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """End its quarantine: orders reach it again."""
    from cloudly.store import node_standing

    row = _change(node, data_dir, partial(node_standing.lift_quarantine, by=by_now(by)))
    typer.echo(f"node {row['node_id']} is in no quarantine any more")


def revoke(node: NodeArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Its credentials are refused from now on, until it is readmitted or comes with a fresh join token."""
    from cloudly.store import node_standing

    who = by_now(by)
    row = _change(node, data_dir, partial(node_standing.revoke, now_ms=who.at_ms, by=who))
    typer.echo(f"node {row['node_id']} is revoked")


def retire(
    node: NodeArgument, *, reason: Reason, by: ByOption = None, data_dir: DataDir = None
) -> None:
    """It is out of service: refused, and in no list and no count; its story is kept."""
    from cloudly.store import node_standing

    word = _word(by, reason)
    row = _change(node, data_dir, lambda db, number: node_standing.retire(db, number, word))
    typer.echo(f"node {row['node_id']} is retired")


def readmit(node: NodeArgument, *, by: ByOption = None, data_dir: DataDir = None) -> None:
    """Take back that it was revoked or retired: the credentials that it had are taken again."""
    from cloudly.store import node_standing

    row = _change(node, data_dir, partial(node_standing.readmit, by=by_now(by)))
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
    from cloudly.store.node_standing import Word

    who = by_now(by)
    return Word(who.person, reason, who.at_ms)
