"""Labels of nodes, in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudly import labels
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection


def of(db: Connection, node: int) -> dict[str, str]:
    return labels.load(db.execute("SELECT labels FROM node WHERE id=?", (node,)).fetchone()[0])


def change(
    db: Connection, node: int, changes: Iterable[str], *, by: By | None = None
) -> dict[str, str]:
    """The node's labels after these changes: all of them, or none. Raises BadLabel."""
    before = of(db, node)
    result = labels.changed(before, changes)
    _put(db, node, before, result, by)
    return result


def replace(db: Connection, node: int, wanted: Mapping[str, str], *, by: By | None = None) -> None:
    """These, and no others. Raises BadLabel."""
    result = labels.changed({}, (f"{key}={value}" for key, value in wanted.items()))
    _put(db, node, of(db, node), result, by)


def _put(
    db: Connection, node: int, before: Mapping[str, str], after: Mapping[str, str], by: By | None
) -> None:
    if before == after:
        return
    db.execute("UPDATE node SET labels=? WHERE id=?", (labels.dump(after), node))
    audit.note_of_node(
        db, by, "node.labelled", node,
        set={key: value for key, value in after.items() if before.get(key) != value},
        removed=sorted(set(before) - set(after)),
    )  # fmt: skip
