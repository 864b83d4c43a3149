"""Letting go of what is old: facts of journals, events that were told, what projections keep beside them.

Rules:
- A lane is let go from its beginning on, in slices, and what was let go is on record as a gap of its own kind: how many
  facts, until when, and the hash of the last, so that the chain can still be checked from there.
- Never the last chunk of a lane: what the next batch is compared with, and where the next fact belongs.
- Nothing since the order of the deployment that a node is still at: its story is not over.
- What a device dropped before it was here stays on record as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from cloudly.gaps import RETENTION
from cloudly.store.sql import Connection, Row

SLICE = 50
"""Chunks that one decision lets go: 7 ms on a busy disk; of 500 the worst was 0.6 s (`benchmarks/forgetting.py`)."""
NODES_A_LOOK = 500
EVENTS = 500
OLD_LANES = (
    "SELECT l.node, l.epoch_n, l.lane FROM lane l WHERE l.node>?1 AND l.node<=?2 AND"
    " (SELECT c.received_at_ms FROM journal_chunk c WHERE c.node=l.node AND c.epoch_n=l.epoch_n AND c.lane=l.lane"
    "  ORDER BY c.first_seq LIMIT 1)<?3 AND"
    " (SELECT c.id FROM journal_chunk c WHERE c.node=l.node AND c.epoch_n=l.epoch_n AND c.lane=l.lane"
    "  ORDER BY c.first_seq LIMIT 1 OFFSET 1) IS NOT NULL ORDER BY l.node, l.epoch_n, l.lane"
)
OLD_EVENTS = (
    "SELECT o.id FROM outbox o WHERE o.at_ms<?1 AND NOT EXISTS"
    " (SELECT 1 FROM delivery d JOIN webhook w ON w.id=d.webhook WHERE d.event=o.id"
    "  AND w.disabled_at_ms IS NULL AND (d.next_at_ms>=0 OR d.done_at_ms>=?1)) ORDER BY o.at_ms LIMIT ?2"
)


@dataclass(frozen=True, slots=True, order=True)
class OldLane:
    """One that begins with facts which may be let go."""

    node: int
    epoch_n: int
    name: str

    @property
    def key(self) -> tuple[int, int, str]:
        return self.node, self.epoch_n, self.name


def old_lanes(db: Connection, *, after: int, before_ms: int) -> tuple[list[OldLane], int | None]:
    """Those of the next nodes after that number, and the last node looked at; None: there are no more nodes."""
    row = db.execute(
        "SELECT max(id) FROM (SELECT id FROM node WHERE id>? ORDER BY id LIMIT ?) AS next",
        (after, NODES_A_LOOK),
    ).fetchone()
    if row[0] is None:
        return [], None
    rows = db.execute(OLD_LANES, (after, row[0], before_ms)).fetchall()
    return [OldLane(one[0], one[1], one[2]) for one in rows], int(row[0])


def forget(db: Connection, lane: OldLane, *, before_ms: int, now_ms: int) -> bool:
    """One slice of a lane; whether there may be more to let go of it."""
    held_ms = db.execute(
        "SELECT min(p.ordered_at_ms) FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " WHERE d.node=? AND p.closed=0",
        (lane.node,),
    ).fetchone()[0]
    limit_ms = before_ms if held_ms is None else min(before_ms, held_ms)
    rows = db.execute(
        "SELECT id, first_seq, last_seq, first_n, received_at_ms FROM journal_chunk"
        " WHERE node=? AND epoch_n=? AND lane=? ORDER BY first_seq LIMIT ?",
        (*lane.key, SLICE + 1),
    ).fetchall()
    old = list(takewhile(lambda row: row["received_at_ms"] < limit_ms, rows[:-1]))
    if not old:
        return False
    following = rows[len(old)]
    for run in _runs(old):
        _record(db, lane, run, at_n=following["first_n"], now_ms=now_ms)
    db.execute(
        "DELETE FROM journal_chunk WHERE node=? AND epoch_n=? AND lane=? AND first_seq<=?",
        (*lane.key, old[-1]["first_seq"]),
    )
    _forget_beside(db, lane.node, limit_ms)
    return len(old) == SLICE


def _runs(chunks: Sequence[Row]) -> list[list[Row]]:
    """Parts without a hole between them: holes are on record already."""
    runs: list[list[Row]] = []
    for chunk in chunks:
        if runs and runs[-1][-1]["last_seq"] + 1 == chunk["first_seq"]:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _record(
    db: Connection, lane: OldLane, run: Sequence[Row], *, at_n: int | None, now_ms: int
) -> None:
    first, last = run[0], run[-1]
    events = db.execute("SELECT events FROM journal_chunk WHERE id=?", (last["id"],)).fetchone()
    last_hash = bytes.fromhex(json.loads(events[0])[-1]["hash"])
    longer = db.execute(
        "UPDATE lane_gap SET last_seq=?, at_ms=?, until_ms=?, last_hash=?, at_n=?"
        " WHERE node=? AND epoch_n=? AND lane=? AND why=? AND last_seq=?",
        (
            last["last_seq"], now_ms, last["received_at_ms"], last_hash, at_n,
            *lane.key, RETENTION, first["first_seq"] - 1,
        ),
    ).rowcount  # fmt: skip
    if longer:
        return
    db.execute(
        "INSERT INTO lane_gap(node, epoch_n, lane, first_seq, last_seq, at_ms, why, kinds, since_ms, until_ms,"
        " last_hash, at_n) VALUES(?,?,?,?,?,?,?,'{}',?,?,?,?)",
        (
            *lane.key, first["first_seq"], last["last_seq"], now_ms, RETENTION,
            first["received_at_ms"], last["received_at_ms"], last_hash, at_n,
        ),
    )  # fmt: skip


def _forget_beside(db: Connection, node: int, before_ms: int) -> None:
    """What is shown of facts, and was said in them; the last state of each stream stays."""
    db.execute("DELETE FROM transition WHERE node=? AND received_at_ms<?", (node, before_ms))
    db.execute("DELETE FROM diagnosis WHERE node=? AND answered_at_ms<?", (node, before_ms))


def old_events(db: Connection, before_ms: int) -> bool:
    """Whether there are events that no webhook waits for."""
    return db.execute(OLD_EVENTS, (before_ms, 1)).fetchone() is not None


def forget_events(db: Connection, before_ms: int) -> bool:
    """A slice of them, with their deliveries; whether there may be more."""
    old = [(row[0],) for row in db.execute(OLD_EVENTS, (before_ms, EVENTS)).fetchall()]
    db.executemany("DELETE FROM delivery WHERE event=?", old)
    db.executemany("DELETE FROM outbox WHERE id=?", old)
    return len(old) == EVENTS
