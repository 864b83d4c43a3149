"""The outbox: what happened here and is to be told to others, in the transaction of what it tells.

Rules:
- `tell` is called by whoever changes something, with the same `db`: either both are durable or neither is.
- Where there is no webhook nothing is written; an event is on its way to every enabled webhook that wants its kind.
- A kind is words with full stops between, as `deployment.rolled_back` (Standard Webhooks 1.0.0, "Event types").
- An event holds no secret and is small: texts are redacted and cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cloudly.logs import SECRET_NAME, redact
from cloudly.store.sql import Connection

KIND = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){1,3}")
PATTERN = re.compile(
    rf"\*|[a-z][a-z0-9_]{{0,39}}(\.[a-z][a-z0-9_]{{0,39}}){{0,2}}\.\*|{KIND.pattern}"
)
"""What a webhook may want: `*`, `deployment.*`, `node.revoked`."""
LONGEST_TEXT = 1000
MOST_VALUES = 100
DEEPEST = 5


def tell(db: Connection, kind: str, data: Mapping[str, Any], now_ms: int) -> int | None:
    """Write an event down for the webhooks that there are; its number, None where there is no webhook."""
    assert KIND.fullmatch(kind), kind  # noqa: S101 - kinds are our own words
    hooks = db.execute("SELECT id, kinds, disabled_at_ms FROM webhook ORDER BY id").fetchall()
    if not hooks:
        return None
    wanting = [
        hook["id"]
        for hook in hooks
        if hook["disabled_at_ms"] is None and wants(json.loads(hook["kinds"]), kind)
    ]
    return write(db, wanting, kind, data, now_ms)


def tell_of_node(
    db: Connection, kind: str, node: int, data: Mapping[str, Any], now_ms: int
) -> int | None:
    """The same of a node, named as people know it."""
    if db.execute("SELECT 1 FROM webhook LIMIT 1").fetchone() is None:
        return None
    row = db.execute(
        "SELECT n.node_id AS node, n.hostname, f.name AS fleet FROM node n LEFT JOIN fleet f ON f.id=n.fleet"
        " WHERE n.id=?",
        (node,),
    ).fetchone()
    return tell(db, kind, {**dict(row), **data}, now_ms)


def tell_of_deployment(db: Connection, state: str, deployment: str, now_ms: int) -> int | None:
    """What has become of the order to one node."""
    if db.execute("SELECT 1 FROM webhook LIMIT 1").fetchone() is None:
        return None
    row = db.execute(
        "SELECT p.deployment, p.node, p.reason, p.rollback_of, p.rollout, p.generation, r.commit_id AS release,"
        " r.version FROM deployment p JOIN release r ON r.id=p.release WHERE p.deployment=?",
        (deployment,),
    ).fetchone()
    data = dict(row)
    node = data.pop("node")
    return tell_of_node(db, f"deployment.{state.replace('-', '_')}", node, data, now_ms)


def write(
    db: Connection, hooks: Iterable[int], kind: str, data: Mapping[str, Any], now_ms: int
) -> int:
    """The event, on its way to these webhooks; its number."""
    row = db.execute(
        "INSERT INTO outbox(at_ms, kind, data) VALUES(?,?,?) RETURNING id",
        (now_ms, kind, json.dumps(plain(data), ensure_ascii=True, separators=(",", ":"))),
    ).fetchone()
    event = int(row[0])
    queue(db, [(hook, event) for hook in hooks], now_ms)
    return event


def queue(db: Connection, deliveries: Iterable[tuple[int, int]], now_ms: int) -> None:
    """Each webhook is to be told that event, from now on; one that it was told is told again."""
    db.executemany(
        "INSERT INTO delivery(webhook, event, queued_at_ms, attempts, next_at_ms, done_at_ms, status, problem)"
        " VALUES(?1,?2,?3,0,?3,NULL,NULL,'') ON CONFLICT(webhook, event) DO UPDATE SET"
        " queued_at_ms=excluded.queued_at_ms, attempts=0, next_at_ms=excluded.next_at_ms, done_at_ms=NULL,"
        " status=NULL, problem=''",
        [(hook, event, now_ms) for hook, event in deliveries],
    )


def wants(patterns: Iterable[str], kind: str) -> bool:
    """Whether a webhook that asked for these is to be told; one that asked for nothing is told everything."""
    asked = list(patterns)
    return not asked or any(
        one in {"*", kind} or (one.endswith(".*") and kind.startswith(one[:-1])) for one in asked
    )


def plain(value: object, name: str = "", depth: int = 0) -> Any:
    """A value as it may leave the house: what a device says may hold anything."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if SECRET_NAME.search(name):
        return "[redacted]"
    if isinstance(value, Mapping) and depth < DEEPEST:
        few = list(value.items())[:MOST_VALUES]
        return {str(key)[:100]: plain(one, str(key), depth + 1) for key, one in few}
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [plain(one, name, depth + 1) for one in value[:MOST_VALUES]]
    return redact(str(value)[:LONGEST_TEXT])
