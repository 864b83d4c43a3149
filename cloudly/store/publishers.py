"""Who may push to the registry: a name, the hash of a password, a prefix; rows of `meta`, which needs no table.

A password has 256 bits of randomness, so its SHA-256 needs no salt (`cloudly/tokens.py`).
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass
from typing import Any

from cloudly.balena.registry_scopes import is_repository
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from cloudly.tokens import fingerprint

ROWS = "registry-publisher/"
NAME = re.compile(r"(?!d_)[a-z0-9][a-z0-9._-]{0,62}")
"""Names that begin with `d_` are devices'."""
NOBODY = {"hash": "00" * 32}


@dataclass(frozen=True, slots=True)
class Publisher:
    name: str
    prefix: str
    """Below which repositories it may pull and push; empty: everywhere."""
    created_at_ms: int


def create(db: Connection, new: Publisher, password: str, *, by: By | None = None) -> None:
    """Raises BadOrder when the name is taken or not one, or the prefix could hold no repository."""
    if NAME.fullmatch(new.name) is None:
        raise BadOrder(
            f"{new.name!r} is no name for a publisher: lower-case letters, digits and . _ - , not d_...; for example ci"
        )
    if new.prefix and not is_repository(new.prefix):
        raise BadOrder(
            f"{new.prefix!r} is no prefix of repository names; for example --prefix team/app"
        )
    value = {
        "hash": fingerprint(password).hex(),
        "prefix": new.prefix,
        "created_at_ms": new.created_at_ms,
    }
    done = db.execute(
        "INSERT INTO meta VALUES(?,?) ON CONFLICT DO NOTHING", (ROWS + new.name, json.dumps(value))
    )
    if done.rowcount == 0:
        raise BadOrder(
            f"there is a publisher {new.name} already: `cloudly registry publisher revoke {new.name}` ends it"
        )
    audit.note(db, by, "publisher.created", f"publisher/{new.name}", prefix=new.prefix)


def listed(db: Connection) -> list[Publisher]:
    rows = db.execute(
        "SELECT key, value FROM meta WHERE substr(key, 1, ?)=? ORDER BY key", (len(ROWS), ROWS)
    )
    return [_publisher(key.removeprefix(ROWS), json.loads(value)) for key, value in rows]


def revoke(db: Connection, name: str, *, by: By | None = None) -> None:
    """It gets no more tokens. Raises BadOrder when there is none of that name."""
    if db.execute("DELETE FROM meta WHERE key=?", (ROWS + name,)).rowcount == 0:
        raise NoSuch(
            "publisher",
            f"there is no publisher {name!r}: `cloudly registry publisher list` shows them",
        )
    audit.note(db, by, "publisher.revoked", f"publisher/{name}")


def authenticate(db: Connection, name: str, password: str) -> Publisher | None:
    """Who that is; None for a wrong password and for nobody, after the same work."""
    row = db.execute("SELECT value FROM meta WHERE key=?", (ROWS + name,)).fetchone()
    kept: dict[str, Any] = NOBODY if row is None else json.loads(row[0])
    known = hmac.compare_digest(fingerprint(password), bytes.fromhex(kept["hash"]))
    return _publisher(name, kept) if known and row is not None else None


def _publisher(name: str, kept: dict[str, Any]) -> Publisher:
    return Publisher(name, kept["prefix"], kept["created_at_ms"])
