"""What the device remembers of facts that went before Cloudly had them: which, how many of each kind, when, and why.

Neighbouring ranges become one. A lane never has more than MOST: then the oldest two become one, with what lies between.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass, replace

from journal.facts import Lane

MOST = 32
"""As many as one batch may tell (interfaces.journal.JournalBatch.gaps)."""
MOST_KINDS = 50
OTHERS = "other"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A range of seqs, first and last included. `why` is "space" or "age"."""

    lane: Lane
    first_seq: int
    last_seq: int
    why: str
    kinds: dict[str, int]
    since_ms: int | None
    until_ms: int | None


def read(row: tuple[str, int, int, str, str]) -> Tombstone:
    lane, first, last, why, told = row
    values = json.loads(told)
    return Tombstone(
        Lane(lane), first, last, why, values["kinds"], values["since_ms"], values["until_ms"]
    )


def bury(connection: sqlite3.Connection, new: Tombstone) -> None:
    """Inside the transaction that deletes the facts."""
    query = "SELECT lane, first_seq, last_seq, why, told FROM tombstone WHERE lane = ? ORDER BY first_seq"
    there = [read(row) for row in connection.execute(query, (new.lane.value,))]
    if there and there[-1].last_seq + 1 >= new.first_seq and there[-1].why == new.why:
        there[-1] = _both(there[-1], new)
    else:
        there.append(new)
    while len(there) > MOST:
        there[:2] = [_both(there[0], there[1])]
    connection.execute("DELETE FROM tombstone WHERE lane = ?", (new.lane.value,))
    connection.executemany("INSERT INTO tombstone VALUES (?, ?, ?, ?, ?)", map(_row, there))


def clear(connection: sqlite3.Connection, lane: Lane, acked: int) -> None:
    """Cloudly has heard of what lies before its ack."""
    connection.execute(
        "DELETE FROM tombstone WHERE lane = ? AND last_seq <= ?", (lane.value, acked)
    )


def fewer(kinds: Counter[str]) -> dict[str, int]:
    """The most frequent kinds; the rest of them under one name."""
    if len(kinds) <= MOST_KINDS:
        return dict(kinds)
    most = dict(kinds.most_common(MOST_KINDS - 1))
    most[OTHERS] = most.get(OTHERS, 0) + kinds.total() - sum(most.values())
    return most


def _both(one: Tombstone, two: Tombstone) -> Tombstone:
    since = [each for each in (one.since_ms, two.since_ms) if each is not None]
    until = [each for each in (one.until_ms, two.until_ms) if each is not None]
    return replace(
        one,
        last_seq=max(one.last_seq, two.last_seq),
        why=one.why if one.why == two.why else "space",
        kinds=fewer(Counter(one.kinds) + Counter(two.kinds)),
        since_ms=min(since, default=None),
        until_ms=max(until, default=None),
    )


def _row(stone: Tombstone) -> tuple[object, ...]:
    told = {"kinds": stone.kinds, "since_ms": stone.since_ms, "until_ms": stone.until_ms}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return (stone.lane.value, stone.first_seq, stone.last_seq, stone.why, text)
