"""Making a join token, and what has become of one: for `cloudly token` and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudly.store import fleets, join_tokens
from cloudly.store.audit import By
from cloudly.store.sql import Connection


@dataclass(frozen=True, slots=True)
class Ask:
    name: str
    uses: int
    lasts_s: int
    """0: for ever."""
    fleet: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Which its nodes come with."""


@dataclass(frozen=True, slots=True)
class Made:
    number: int
    expires_at_ms: int | None


def create(db: Connection, ask: Ask, *, token: str, by: By) -> Made:
    """Raises NoSuch for a fleet that there is not."""
    now_ms = by.at_ms
    into = fleets.named(db, ask.fleet)["id"]
    expires_at_ms = now_ms + ask.lasts_s * 1000 if ask.lasts_s else None
    new = join_tokens.NewToken(token, ask.name, ask.uses, now_ms, expires_at_ms, into, ask.labels)
    return Made(join_tokens.create(db, new, by=by), expires_at_ms)


def state_of(row: Mapping[str, object], now_ms: int) -> str:
    """usable, used up, expired or revoked."""
    expires = row["expires_at_ms"]
    if row["revoked_at_ms"] is not None:
        return "revoked"
    if not row["uses_left"]:
        return "used up"
    return "expired" if isinstance(expires, int) and expires <= now_ms else "usable"
