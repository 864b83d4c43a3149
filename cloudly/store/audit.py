"""What people did here: one row per act, never changed, in the transaction of what it tells; webhooks hear of it too.

Rules:
- What an operator takes back leaves no row of its own behind; its act does.
- An act is `thing.done` in the past tense, as `channel.published`; what it was done to is `thing/name`.
- No secret is in it: texts are redacted as in a log, and values whose name says what they are.
- What nobody ordered, because Cloudly did it by itself, is in no audit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloudly.store import outbox
from cloudly.store.sql import Connection, Row

MOST = 1000
LAST = 2**62


@dataclass(frozen=True, slots=True)
class By:
    """Who orders, and when."""

    person: str
    """As `governance.people.person` gives it."""
    at_ms: int


def note(db: Connection, by: By | None, act: str, about: str, **data: Any) -> None:
    """One act, which webhooks hear of; `about` is `thing/name`. `by` None: nobody ordered it."""
    if by is not None and keep(db, by, act, about, **data):
        outbox.tell(db, act, {"by": by.person, "about": about, **data}, by.at_ms)


def note_of_node(db: Connection, by: By | None, act: str, node: int, **data: Any) -> None:
    """The same of a node, by its number."""
    note(db, by, act, of_node(db, node), **data)


def keep(db: Connection, by: By | None, act: str, about: str, **data: Any) -> bool:
    """The entry alone, for what webhooks hear of otherwise, or had better not. Whether a person ordered it."""
    if by is None or not by.person:
        return False
    db.execute(
        "INSERT INTO audit(at_ms, actor, act, object, data) VALUES(?,?,?,?,?)",
        (by.at_ms, by.person, act, about, json.dumps(outbox.plain(data), sort_keys=True)),
    )
    return True


def of_node(db: Connection, node: int) -> str:
    """How an entry names it."""
    row = db.execute("SELECT node_id FROM node WHERE id=?", (node,)).fetchone()
    return f"node/{row[0]}"


def listed(
    db: Connection, *, about: str | None = None, after: int | None = None, limit: int = 50
) -> list[Row]:
    """The newest first; of one thing, or of everything. `after`: only those older than that one."""
    where, words = ("", ()) if about is None else (" AND object=?", (about,))
    return db.execute(
        f"SELECT id, at_ms, actor, act, object, data FROM audit WHERE id<?{where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - one of two
        (LAST if after is None else after, *words, min(limit, MOST)),
    ).fetchall()


def document(row: Row) -> dict[str, Any]:
    """An entry as programs read it."""
    return dict(row) | {"data": json.loads(row["data"])}
