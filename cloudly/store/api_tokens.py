"""API tokens: made once, shown once, looked up by their hash, revoked at once.

Rules:
- Of the tokens that are not revoked no two have one name: what was done by `api/ci` was done with that one.
- The day of its last use is kept, not the moment: a request that is not the day's first writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudly.access import Role
from cloudly.problems import BadOrder, NoSuch, Refused
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from cloudly.tokens import fingerprint

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DAY_MS = 86_400_000
COLUMNS = "id, name, role, created_at_ms, expires_at_ms, revoked_at_ms, used_at_ms"


@dataclass(frozen=True, slots=True)
class NewApiToken:
    token: str
    name: str
    role: Role
    now_ms: int
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind an API token."""

    number: int
    name: str
    role: Role
    used_at_ms: int | None

    @property
    def actor(self) -> str:
        """Whose order it is, in all that is kept of orders."""
        return f"api/{self.name}"


def create(db: Connection, new: NewApiToken, *, by: By | None = None) -> int:
    """Its number; of the token only the hash is kept. Raises BadOrder."""
    if NAME.fullmatch(new.name) is None:
        raise BadOrder(
            f"{new.name!r} is no name for an API token: 1 to 64 letters, digits, `.`, `_`, `-`; for example ci"
        )
    if db.execute(
        "SELECT 1 FROM api_token WHERE name=? AND revoked_at_ms IS NULL", (new.name,)
    ).fetchone():
        raise BadOrder(
            f"there is an API token {new.name!r} already: revoke it first, or give this one another name"
        )
    row = db.execute(
        "INSERT INTO api_token(hash, name, role, created_at_ms, expires_at_ms) VALUES(?,?,?,?,?) RETURNING id",
        (fingerprint(new.token), new.name, new.role.value, new.now_ms, new.expires_at_ms),
    ).fetchone()
    told = {"role": new.role.value, "expires_at_ms": new.expires_at_ms}
    audit.note(db, by, "api_token.created", f"api-token/{new.name}", **told)
    return int(row[0])


def listed(db: Connection, *, after: int | None = None, limit: int = 500) -> list[Row]:
    """The newest first, without the tokens; `after`: only those older than that number."""
    return db.execute(
        f"SELECT {COLUMNS} FROM api_token WHERE id<? ORDER BY id DESC LIMIT ?",  # noqa: S608 - our own columns
        (2**62 if after is None else after, limit),
    ).fetchall()


def find(db: Connection, number: int) -> Row:
    """Raises NoSuch."""
    row: Row | None = db.execute(
        f"SELECT {COLUMNS} FROM api_token WHERE id=?",  # noqa: S608 - our own columns
        (number,),
    ).fetchone()
    if row is None:
        raise NoSuch("API token", f"there is no API token {number}")
    return row


def revoke(db: Connection, name: str, now_ms: int, *, by: By | None = None) -> int:
    """The one of that name that is not revoked admits nobody from now on. Its number. Raises NoSuch."""
    row = db.execute(
        "UPDATE api_token SET revoked_at_ms=? WHERE name=? AND revoked_at_ms IS NULL RETURNING id",
        (now_ms, name),
    ).fetchone()
    if row is None:
        raise NoSuch(
            "API token",
            f"there is no API token {name!r} that is not revoked: `cloudly api-token list` shows them",
        )
    audit.note(db, by, "api_token.revoked", f"api-token/{name}")
    return int(row[0])


def authenticate(db: Connection, token: str, now_ms: int) -> Caller:
    """Whose API token it is. Raises Refused."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM api_token WHERE hash=?",  # noqa: S608 - our own columns
        (fingerprint(token),),
    ).fetchone()
    if row is None:
        raise Refused("api-token-unknown")
    if row["revoked_at_ms"] is not None:
        raise Refused("api-token-revoked")
    if row["expires_at_ms"] is not None and row["expires_at_ms"] <= now_ms:
        raise Refused("api-token-expired")
    return Caller(row["id"], row["name"], Role(row["role"]), row["used_at_ms"])


def is_first_today(caller: Caller, now_ms: int) -> bool:
    return caller.used_at_ms is None or caller.used_at_ms // DAY_MS < now_ms // DAY_MS


def used(db: Connection, number: int, now_ms: int) -> None:
    """On this day; a clock that was set back changes nothing."""
    day_ms = now_ms - now_ms % DAY_MS
    db.execute(
        "UPDATE api_token SET used_at_ms=?1 WHERE id=?2 AND (used_at_ms IS NULL OR used_at_ms<?1)",
        (day_ms, number),
    )


def state_of(row: Mapping[str, Any], now_ms: int) -> str:
    """usable, expired or revoked."""
    if row["revoked_at_ms"] is not None:
        return "revoked"
    expires = row["expires_at_ms"]
    return "expired" if expires is not None and expires <= now_ms else "usable"
