"""`cloudly node label`: an operator's words on a node, by which rollouts select it."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudly.cli.common import AsJson, DataDir, opened, print_json
from cloudly.cli.node_journal import NodeArgument
from cloudly.cli.people import ByOption, by_now

Changes = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Set a label, or remove it.")
]


def label(
    node: NodeArgument,
    changes: Changes,
    *,
    by: ByOption = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Set labels of a node, or remove them; a rollout selects by them: label.KEY=VALUE."""
    from cloudly.labels import in_words
    from cloudly.store import node_labels, reading

    who = by_now(by)
    with opened(data_dir) as store:
        row = store.read_now(lambda db: reading.find(db, node))
        labels = store.write_now(lambda db: node_labels.change(db, row["id"], changes, by=who))
    if as_json:
        print_json({"node": row["node_id"], "labels": labels})
    else:
        typer.echo(f"node {row['node_id']}: {in_words(labels) or 'no labels'}")
