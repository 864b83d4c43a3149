"""How far lanes go: what Cloudly has of each (acks), and the furthest head it ever heard of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudly.ingest import Cursor, Heard
from cloudly.store.sql import Connection
from interfaces.journal import Ack, Lane
from journal.chain import genesis

PARAMETERS = 100
"""Of one question; few different texts of it, so that they stay prepared."""
OTHERS = "lane.head_writer IS DISTINCT FROM ?7 AND lane.head_seq>lane.ack_seq AND lane.head_hash IS NOT NULL"
"""The head on record is another writer's, and its facts are not here to compare."""


@dataclass(slots=True)
class Heads:
    """Heads of one node's present epoch, newer than what the database says."""

    epoch: str
    lanes: dict[str, Heard] = field(default_factory=dict)

    def copy(self) -> Heads:
        return Heads(self.epoch, dict(self.lanes))

    def note(self, told: Mapping[str, Heard]) -> None:
        for lane, head in told.items():
            known = self.lanes.get(lane)
            if known is None or head.seq > known.seq:
                self.lanes[lane] = head


@dataclass(frozen=True, slots=True)
class Position:
    """Where one lane is."""

    ack: Cursor
    head: Heard | None = None
    prior: Heard | None = None
    """What another writer than the head's had named before. Cloudly has not come that far."""

    @property
    def unreached(self) -> tuple[Heard, ...]:
        """Heads that Cloudly only heard of."""
        return tuple(
            one for one in (self.prior, self.head) if one is not None and one.seq > self.ack.seq
        )


SAVE = (
    "INSERT INTO lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq, head_hash, head_writer)"
    " VALUES(?1,?2,?3,0,?4,?5,?6,?7) ON CONFLICT(node, epoch_n, lane) DO UPDATE SET"
    f" prior_seq=CASE WHEN {OTHERS} THEN lane.head_seq ELSE lane.prior_seq END,"
    f" prior_hash=CASE WHEN {OTHERS} THEN lane.head_hash ELSE lane.prior_hash END,"
    " head_seq=?5, head_hash=?6, head_writer=?7 WHERE ?5>lane.head_seq"
)
SAVE_MANY = """
INSERT INTO lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq, head_hash, head_writer)
SELECT a.node, a.epoch_n, a.lane, 0, a.start, a.seq, a.hash, a.writer
FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::bytea[], ?::bigint[], ?::bytea[], ?::text[])
 a(node, epoch_n, lane, start, seq, hash, writer)
ON CONFLICT(node, epoch_n, lane) DO UPDATE SET
 prior_seq=CASE WHEN lane.head_writer IS DISTINCT FROM excluded.head_writer AND lane.head_seq>lane.ack_seq
  AND lane.head_hash IS NOT NULL THEN lane.head_seq ELSE lane.prior_seq END,
 prior_hash=CASE WHEN lane.head_writer IS DISTINCT FROM excluded.head_writer AND lane.head_seq>lane.ack_seq
  AND lane.head_hash IS NOT NULL THEN lane.head_hash ELSE lane.prior_hash END,
 head_seq=excluded.head_seq, head_hash=excluded.head_hash, head_writer=excluded.head_writer
WHERE excluded.head_seq>lane.head_seq
"""
"""The same of many rows. PostgreSQL."""


def save(db: Connection, node: int, epoch_n: int, heads: Heads) -> None:
    """Heads that go further than those on record."""
    for lane, head in heads.lanes.items():
        start = genesis(heads.epoch, lane)
        db.execute(SAVE, (node, epoch_n, lane, start, head.seq, head.hash, head.writer))


def save_known(db: Connection, node: int, heads: Heads | None) -> None:
    """What was only in memory, if its epoch is on record."""
    if heads is None:
        return
    row = db.execute("SELECT n FROM epoch WHERE node=? AND epoch=?", (node, heads.epoch)).fetchone()
    if row is not None:
        save(db, node, row[0], heads)


def save_many(db: Connection, known: Mapping[int, Heads]) -> None:
    """The same of many nodes, by one question for their epochs and one sentence for all rows."""
    numbers = _numbers(db, known)
    db.executemany(
        SAVE,
        [
            (node, numbers[node], lane, genesis(told.epoch, lane), head.seq, head.hash, head.writer)
            for node, told in sorted(known.items())
            if node in numbers
            for lane, head in told.lanes.items()
        ],
    )


def _numbers(db: Connection, known: Mapping[int, Heads]) -> dict[int, int]:
    """The number of each node's epoch, as far as it is on record."""
    nodes = sorted(known)
    found: dict[int, int] = {}
    for first in range(0, len(nodes), PARAMETERS):
        some = nodes[first : first + PARAMETERS]
        marks = ",".join("?" * len(some))
        rows = db.execute(
            f"SELECT node, epoch, n FROM epoch WHERE node IN ({marks})",  # noqa: S608 - question marks
            some,
        )
        found |= {node: n for node, epoch, n in rows if known[node].epoch == epoch}
    return found


def hash_at(db: Connection, lane: tuple[int, int, str], seq: int) -> bytes | None:
    """The hash of a fact that is here. `lane`: node, number of the epoch, name."""
    row = db.execute(
        "SELECT first_seq, last_seq, events FROM journal_chunk WHERE node=? AND epoch_n=? AND lane=? AND first_seq<=?"
        " ORDER BY first_seq DESC LIMIT 1",
        (*lane, seq),
    ).fetchone()
    if row is None or row[1] < seq:
        return None
    return bytes.fromhex(json.loads(row[2])[seq - row[0]]["hash"])


def positions(db: Connection, node: int, epoch: str) -> dict[str, Position]:
    """Where each lane of an epoch is, known or not."""
    rows = db.execute(
        "SELECT l.lane, l.ack_seq, l.ack_hash, l.head_seq, l.head_hash, l.head_writer, l.prior_seq, l.prior_hash"
        " FROM epoch e JOIN lane l ON l.node=e.node AND l.epoch_n=e.n WHERE e.node=? AND e.epoch=?",
        (node, epoch),
    ).fetchall()
    return _unheard_of(epoch) | {row[0]: _position(row) for row in rows}


def positions_of_many(
    db: Connection, asked: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], dict[str, Position]]:
    """The same of many nodes and epochs. PostgreSQL."""
    rows = db.execute(
        "SELECT e.node, e.epoch, l.lane, l.ack_seq, l.ack_hash, l.head_seq, l.head_hash, l.head_writer, l.prior_seq,"
        " l.prior_hash FROM unnest(?::bigint[], ?::text[]) a(node, epoch)"
        " JOIN epoch e ON e.node=a.node AND e.epoch=a.epoch JOIN lane l ON l.node=e.node AND l.epoch_n=e.n",
        ([node for node, _ in asked], [epoch for _, epoch in asked]),
    )
    found = {key: _unheard_of(key[1]) for key in asked}
    for node, epoch, *row in rows:
        found[node, epoch][row[0]] = _position(row)
    return found


def _unheard_of(epoch: str) -> dict[str, Position]:
    return {lane.value: Position(Cursor(0, genesis(epoch, lane.value))) for lane in Lane}


def _position(row: Sequence[Any]) -> Position:
    """Of lane, ack, head and prior, as `positions` asks for them."""
    _, ack_seq, ack_hash, head_seq, head_hash, writer, prior_seq, prior_hash = row
    return Position(
        Cursor(ack_seq, ack_hash),
        None if head_hash is None else Heard(head_seq, head_hash, writer),
        None if prior_seq is None else Heard(prior_seq, prior_hash, None),
    )


def acks(epoch: str, found: Mapping[str, Position]) -> tuple[Ack, ...]:
    return tuple(ack(epoch, lane.value, found[lane.value].ack) for lane in Lane)


def heard(
    epoch: str, found: Mapping[str, Position], newer: Heads | None, asks: Mapping[str, Heard]
) -> tuple[Ack, ...]:
    """The furthest head of each lane; or the one before, to whoever is not behind, for him to compare."""
    newest = newer.lanes if newer is not None and newer.epoch == epoch else {}
    told = []
    for lane in Lane:
        position = found[lane.value]
        heads = [*position.unreached, newest.get(lane.value)]
        known = [one for one in heads if one is not None and one.seq > position.ack.seq]
        furthest = max(known, key=lambda one: one.seq, default=None)
        asking = asks.get(lane.value)
        if furthest is not None and asking is not None and asking.seq >= furthest.seq:
            furthest = min(known, key=lambda one: one.seq)
        at = position.ack if furthest is None else Cursor(furthest.seq, furthest.hash)
        told.append(ack(epoch, lane.value, at))
    return tuple(told)


def ack(epoch: str, lane: str, cursor: Cursor) -> Ack:
    return Ack(epoch=epoch, lane=Lane(lane), seq=cursor.seq, hash=cursor.hash.hex())
