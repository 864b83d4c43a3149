"""Webhooks as operators handle them: made, changed, tried, told again; for `cloudly webhook` and the API.

Rules:
- The row and the secret come in one transaction: the file is written when the database has said yes, before it commits.
  So of two that make one name at once, one gets the name and his secret. A secret whose row was not committed is
  nobody's, and the next one of that name writes over it.
- What is done to webhooks is in the audit, and told to no webhook: a test would ring at all of them.
- Where a receiver is stands in the audit without the path: that may be a secret.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from cloudly.problems import BadOrder
from cloudly.store import audit, webhooks
from cloudly.store.audit import By
from cloudly.store.sql import Connection, Row
from cloudly.webhooks import secrets_file
from cloudly.webhooks.secrets_file import Kept, SecretsUnreadable
from cloudly.webhooks.sending import Outcome, send
from cloudly.webhooks.signing import Event

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BY_OPERATOR = "by the operator"
TEST = "webhook.test"


@dataclass(frozen=True, slots=True)
class New:
    """A webhook to be made; its name, URL and kinds were looked at."""

    name: str
    url: str
    kinds: tuple[str, ...]


def create(db: Connection, directory: Path, new: New, kept: Kept, by: By) -> int:
    """Its number. Raises BadOrder when there is one of that name."""
    number = webhooks.create(db, new.name, new.url, new.kinds, by.at_ms)
    told = {"receiver": receiver_of(new.url), "kinds": list(new.kinds)}
    _note(db, by, "created", new.name, **told, allow_private=kept.allow_private)
    secrets_file.add(directory, new.name, kept)
    return number


def enable(db: Connection, name: str, by: By) -> bool:
    """Whether it was disabled. Raises NoSuch."""
    changed = webhooks.enable(db, webhooks.find(db, name)["id"], by.at_ms)
    if changed:
        _note(db, by, "enabled", name)
    return changed


def disable(db: Connection, name: str, by: By) -> bool:
    """Whether it was enabled. Raises NoSuch."""
    changed = webhooks.disable(db, webhooks.find(db, name)["id"], BY_OPERATOR, by.at_ms)
    if changed:
        _note(db, by, "disabled", name)
    return changed


def delete(db: Connection, name: str, by: By) -> None:
    """With what waits for it; its secret is let go once this is durable. Raises NoSuch."""
    webhooks.delete(db, webhooks.find(db, name)["id"])
    _note(db, by, "deleted", name)


class Rotation:
    """A new secret: `decide` is the decision; where it was not committed, `take_back` puts back what was before it."""

    def __init__(self, directory: Path, name: str, secret: str, *, overlap_s: int, by: By) -> None:
        self._directory = directory
        self._name = name
        self._secret = secret
        self._overlap_s = overlap_s
        self._by = by
        self._before: Kept | None = None

    def decide(self, db: Connection) -> None:
        """May be decided more than once. Raises BadOrder; then nothing was changed."""
        webhooks.find(db, self._name)
        found = secret_of(self._directory, self._name)
        overlap_ms = self._overlap_s * 1000
        kept = secrets_file.rotated(
            found, self._secret, overlap_ms=overlap_ms, now_ms=self._by.at_ms
        )
        _note(db, self._by, "rotated", self._name, overlap_s=self._overlap_s)
        if found.secret != self._secret:
            self._before = found
            secrets_file.add(self._directory, self._name, kept)

    def take_back(self) -> None:
        """Nobody was shown the secret: it must not be the one that signs."""
        if self._before is not None:
            secrets_file.take_back(self._directory, self._name, self._secret, self._before)


def replay(db: Connection, name: str, *, since_ms: int | None, event: int | None, by: By) -> int:
    """All of its kinds since then, or one event, is told again; how many. Raises BadOrder."""
    row = webhooks.find(db, name)
    if row["disabled_at_ms"] is not None:
        raise BadOrder(f"webhook {name} is disabled: `cloudly webhook enable {name}` first")
    if event is not None:
        webhooks.replay(db, row, event, by.at_ms)
        many = 1
    else:
        many = webhooks.replay_since(db, row, since_ms or 0, by.at_ms)
    _note(db, by, "replayed", name, since_ms=since_ms, event=event, events=many)
    return many


def about_to_test(db: Connection, name: str, by: By) -> str:
    """Where it is to be sent; the act is written down before anything leaves the house. Raises NoSuch."""
    url = str(webhooks.find(db, name)["url"])
    _note(db, by, "tested", name)
    return url


async def send_test(
    way: httpx.AsyncBaseTransport, url: str, name: str, kept: Kept, now_ms: int
) -> Outcome:
    """An event that happened nowhere, at once. The way is closed then."""
    event = Event(0, now_ms, TEST, json.dumps({"webhook": name}))
    try:
        return await send(way, url, kept, event, now_ms // 1000)
    finally:
        await way.aclose()


def secret_of(directory: Path, name: str) -> Kept:
    """Raises BadOrder where this data directory does not have it."""
    try:
        return secrets_file.of(directory, name)
    except SecretsUnreadable as problem:
        raise BadOrder(str(problem)) from None


def receiver_of(url: str) -> str:
    """Where it is, without the path: that may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def shown(row: Row) -> dict[str, Any]:
    """A row of `webhooks.listed` as it is told."""
    known: dict[str, Any] = dict(row)
    return known | {
        "kinds": json.loads(row["kinds"]),
        "receiver": receiver_of(row["url"]),
        "state": "enabled" if row["disabled_at_ms"] is None else "disabled",
    }


def state_of(delivery: Row, now_ms: int) -> str:
    """delivered, given up, due or waiting."""
    if delivery["next_at_ms"] is None:
        return "given up" if delivery["problem"] else "delivered"
    return "waiting" if delivery["next_at_ms"] > now_ms else "due"


def _note(db: Connection, by: By, act: str, name: str, **data: Any) -> None:
    audit.keep(db, by, f"webhook.{act}", f"webhook/{name}", **data)
