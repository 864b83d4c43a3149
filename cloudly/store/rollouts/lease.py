"""Which process leads: a row with an owner, an end, and an epoch that grows with each owner.

Rules:
- Who has it renews it long before its end; who finds it ended takes it, with the next epoch. What an older epoch still
  writes is refused by who writes (`story.must_lead`), so two that believe to lead do no harm.
- The clocks of two servers may differ: a lease seems to end sooner or later by that much. One that ends later than
  any could is an error of a clock, and is taken.
- Nothing here is bound to a connection, so it works behind a pooler and on both engines.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudly.store.sql import Connection

LASTS_MS = 6_000
"""Taken over within ten seconds after a kill: six, and the second until another process looks."""
RENEW_MS = 2_000
"""Twice it may fail."""
ABSURD_MS = 60_000


@dataclass(frozen=True, slots=True)
class Lease:
    """What is held, and until when."""

    epoch: int
    until_ms: int


def seen(db: Connection, name: str, owner: str, now_ms: int) -> bool:
    """Whether another process has it now: a look without a write."""
    row = db.execute("SELECT owner, until_ms FROM lease WHERE name=?", (name,)).fetchone()
    return row is not None and row[0] != owner and _is_held(row[1], now_ms)


def take(db: Connection, name: str, owner: str, now_ms: int) -> Lease | None:
    """Take it, or renew it; None: another has it."""
    row = db.execute("SELECT owner, epoch, until_ms FROM lease WHERE name=?", (name,)).fetchone()
    until = now_ms + LASTS_MS
    if row is None:
        db.execute(
            "INSERT INTO lease(name, owner, epoch, until_ms) VALUES(?,?,1,?)", (name, owner, until)
        )
        return Lease(1, until)
    if row[0] != owner and _is_held(row[2], now_ms):
        return None
    epoch = row[1] if row[0] == owner else row[1] + 1
    db.execute(
        "UPDATE lease SET owner=?, epoch=?, until_ms=? WHERE name=?", (owner, epoch, until, name)
    )
    return Lease(epoch, until)


def give_back(db: Connection, name: str, owner: str) -> bool:
    """So that nobody need wait for its end. Whether it was this owner's."""
    return bool(
        db.execute("UPDATE lease SET until_ms=0 WHERE name=? AND owner=?", (name, owner)).rowcount
    )


def _is_held(until_ms: int, now_ms: int) -> bool:
    return now_ms < until_ms <= now_ms + ABSURD_MS
