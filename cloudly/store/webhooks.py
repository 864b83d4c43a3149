"""Webhooks and their deliveries in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudly.problems import BadOrder, NoSuch
from cloudly.store import outbox
from cloudly.store.sql import Connection, Row
from cloudly.webhooks.pace import GIVEN_UP_MS
from cloudly.webhooks.signing import Event

MOST_REPLAYED = 100_000
GONE = "the receiver answered 410: it wants no more"
LISTED = (
    "SELECT w.*,"
    " (SELECT count(*) FROM delivery d WHERE d.webhook=w.id AND d.next_at_ms>=0) AS waiting,"
    " (SELECT min(queued_at_ms) FROM delivery d WHERE d.webhook=w.id AND d.next_at_ms>=0) AS waiting_since_ms,"
    " (SELECT count(*) FROM delivery d WHERE d.webhook=w.id AND d.done_at_ms>=0 AND d.problem='') AS delivered,"
    " (SELECT count(*) FROM delivery d WHERE d.webhook=w.id AND d.done_at_ms>=0 AND d.problem<>'') AS given_up"
    " FROM webhook w"
)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that has something to be told."""

    id: int
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is not done."""

    event: Event
    queued_at_ms: int
    attempts: int
    next_at_ms: int


# -- operators


def create(db: Connection, name: str, url: str, kinds: Sequence[str], now_ms: int) -> int:
    """Raises BadOrder."""
    _is_free(db, name)
    row = db.execute(
        "INSERT INTO webhook(name, url, kinds, created_at_ms, disabled_why) VALUES(?,?,?,?,'') RETURNING id",
        (name, url, json.dumps(list(kinds)), now_ms),
    ).fetchone()
    return int(row[0])


def _is_free(db: Connection, name: str) -> None:
    if db.execute("SELECT 1 FROM webhook WHERE name=?", (name,)).fetchone() is not None:
        raise BadOrder(f"there is a webhook {name} already: delete it first, or take another name")


def listed(db: Connection) -> list[Row]:
    return db.execute(f"{LISTED} ORDER BY w.name").fetchall()


def find(db: Connection, name: str) -> Row:
    """Raises NoSuch."""
    row: Row | None = db.execute(f"{LISTED} WHERE w.name=?", (name,)).fetchone()
    if row is None:
        raise NoSuch("webhook", f"there is no webhook {name!r}: `cloudly webhook list` shows them")
    return row


def deliveries(db: Connection, hook: int, *, limit: int, after: int | None = None) -> list[Row]:
    """The newest events first; `after`: only those older than that one."""
    return db.execute(
        "SELECT d.*, o.kind, o.at_ms FROM delivery d JOIN outbox o ON o.id=d.event WHERE d.webhook=? AND d.event<?"
        " ORDER BY d.event DESC LIMIT ?",
        (hook, 2**62 if after is None else after, limit),
    ).fetchall()


def disable(db: Connection, hook: int, why: str, now_ms: int) -> bool:
    """Nothing is sent, and nothing new is queued. Whether it was enabled."""
    return bool(
        db.execute(
            "UPDATE webhook SET disabled_at_ms=?, disabled_why=? WHERE id=? AND disabled_at_ms IS NULL",
            (now_ms, why, hook),
        ).rowcount
    )


def enable(db: Connection, hook: int, now_ms: int) -> bool:
    """What was waiting goes out at once, and has three days again. Whether it was disabled."""
    changed = db.execute(
        "UPDATE webhook SET disabled_at_ms=NULL, disabled_why='' WHERE id=? AND disabled_at_ms IS NOT NULL",
        (hook,),
    ).rowcount
    if changed:
        db.execute(
            "UPDATE delivery SET next_at_ms=?1, queued_at_ms=?1, attempts=0"
            " WHERE webhook=?2 AND next_at_ms IS NOT NULL",
            (now_ms, hook),
        )
    return bool(changed)


def delete(db: Connection, hook: int) -> None:
    db.execute("DELETE FROM delivery WHERE webhook=?", (hook,))
    db.execute("DELETE FROM webhook WHERE id=?", (hook,))


def replay_since(db: Connection, hook: Row, since_ms: int, now_ms: int) -> int:
    """Everything of its kinds since then is told again; how many events. Raises BadOrder."""
    rows = db.execute(
        "SELECT id, kind FROM outbox WHERE at_ms>=? ORDER BY id LIMIT ?",
        (since_ms, MOST_REPLAYED + 1),
    ).fetchall()
    if len(rows) > MOST_REPLAYED:
        raise BadOrder(f"more than {MOST_REPLAYED} events happened since then: say a later moment")
    kinds = json.loads(hook["kinds"])
    found = [(hook["id"], row["id"]) for row in rows if outbox.wants(kinds, row["kind"])]
    outbox.queue(db, found, now_ms)
    return len(found)


def replay(db: Connection, hook: Row, event: int, now_ms: int) -> None:
    """One event is told again, whatever kind it is. Raises BadOrder."""
    if db.execute("SELECT 1 FROM outbox WHERE id=?", (event,)).fetchone() is None:
        raise BadOrder(f"there is no event {event}: it never was, or it was let go")
    outbox.queue(db, [(hook["id"], event)], now_ms)


# -- deliveries


def with_something_due(db: Connection, now_ms: int) -> list[Hook]:
    rows = db.execute(
        "SELECT w.id, w.name, w.url FROM webhook w WHERE w.disabled_at_ms IS NULL AND w.id IN"
        " (SELECT d.webhook FROM delivery d WHERE d.next_at_ms<=?) ORDER BY w.id",
        (now_ms,),
    )
    return [Hook(row["id"], row["name"], row["url"]) for row in rows]


def waiting(db: Connection, hook: int, *, after: int, limit: int) -> list[Due]:
    """What is not done, in the order of events; nothing of a webhook that is disabled or gone.

    Found by what is due, not among all that was ever delivered: the plus keeps SQLite from the other index.
    """
    rows = db.execute(
        "SELECT o.id, o.at_ms, o.kind, o.data, d.queued_at_ms, d.attempts, d.next_at_ms FROM delivery d"
        " JOIN outbox o ON o.id=d.event JOIN webhook w ON w.id=d.webhook"
        " WHERE d.next_at_ms>=0 AND +d.webhook=? AND +d.event>? AND w.disabled_at_ms IS NULL"
        " ORDER BY d.event LIMIT ?",
        (hook, after, limit),
    )
    return [
        Due(
            Event(row["id"], row["at_ms"], row["kind"], row["data"]),
            row["queued_at_ms"],
            row["attempts"],
            row["next_at_ms"],
        )
        for row in rows
    ]


def delivered(db: Connection, hook: int, event: int, status: int, now_ms: int) -> None:
    db.execute(
        "UPDATE delivery SET attempts=attempts+1, next_at_ms=NULL, done_at_ms=?, status=?, problem=''"
        " WHERE webhook=? AND event=?",
        (now_ms, status, hook, event),
    )


def failed(  # noqa: PLR0913 - which, how, and when again
    db: Connection, hook: int, event: int, *, status: int | None, problem: str, next_at_ms: int
) -> None:
    db.execute(
        "UPDATE delivery SET attempts=attempts+1, next_at_ms=?, status=?, problem=?"
        " WHERE webhook=? AND event=? AND next_at_ms IS NOT NULL",
        (next_at_ms, status, problem, hook, event),
    )


def give_up(db: Connection, hook: int, problem: str, now_ms: int) -> int:
    """All that has waited too long, after yet another attempt failed; how many."""
    return int(
        db.execute(
            "UPDATE delivery SET next_at_ms=NULL, done_at_ms=?, problem=? WHERE webhook=? AND next_at_ms IS NOT NULL"
            " AND queued_at_ms<=?",
            (now_ms, f"given up after three days: {problem}", hook, now_ms - GIVEN_UP_MS),
        ).rowcount
    )


def wake(db: Connection, hook: int, now_ms: int) -> None:
    """The receiver is back: what waited for a later attempt is due, in its order."""
    db.execute(
        "UPDATE delivery SET next_at_ms=? WHERE webhook=? AND next_at_ms>?", (now_ms, hook, now_ms)
    )


def last_problem(db: Connection, hook: int) -> dict[str, Any] | None:
    """Of the newest delivery that has one."""
    row = db.execute(
        "SELECT event, status, problem, next_at_ms FROM delivery WHERE webhook=? AND problem<>''"
        " ORDER BY event DESC LIMIT 1",
        (hook,),
    ).fetchone()
    return None if row is None else dict(row)
