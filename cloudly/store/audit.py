"""What people did here: one row per act, never changed, in the transaction of what it tells; webhooks hear of it too.

Rules:
- What an operator takes back leaves no row of its own behind; its act does.
- An act is `thing.done` in the past tense, as `channel.published`; what it was done to is `thing/name`.
- No secret is in it: texts are redacted as in a log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cloudly.logs import redact
from cloudly.store import outbox
from cloudly.store.sql import Connection, Row

MOST = 1000


@dataclass(frozen=True, slots=True)
class By:
    """Who orders, and when."""

    person: str
    """As `governance.people.person` gives it."""
    at_ms: int


def note(db: Connection, by: By, act: str, about: str, **data: Any) -> None:
    """One act; `about` is `thing/name`."""
    said = {
        name: redact(value) if isinstance(value, str) else value for name, value in data.items()
    }
    db.execute(
        "INSERT INTO audit(at_ms, actor, act, object, data) VALUES(?,?,?,?,?)",
        (by.at_ms, by.person, act, about, json.dumps(said, sort_keys=True)),
    )
    outbox.tell(db, act, {"by": by.person, "about": about, **said}, by.at_ms)


def listed(db: Connection, *, about: str | None = None, limit: int = 50) -> list[Row]:
    """The newest first; of one thing, or of everything."""
    where, words = ("", ()) if about is None else (" WHERE object=?", (about,))
    return db.execute(
        f"SELECT id, at_ms, actor, act, object, data FROM audit{where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - one of two
        (*words, min(limit, MOST)),
    ).fetchall()
