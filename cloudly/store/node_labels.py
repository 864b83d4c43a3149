"""Labels of nodes, in the database."""

from __future__ import annotations

from collections.abc import Iterable

from cloudly import labels
from cloudly.store.sql import Connection


def of(db: Connection, node: int) -> dict[str, str]:
    return labels.load(db.execute("SELECT labels FROM node WHERE id=?", (node,)).fetchone()[0])


def change(db: Connection, node: int, changes: Iterable[str]) -> dict[str, str]:
    """The node's labels after these changes: all of them, or none. Raises BadLabel."""
    result = labels.changed(of(db, node), changes)
    db.execute("UPDATE node SET labels=? WHERE id=?", (labels.dump(result), node))
    return result
