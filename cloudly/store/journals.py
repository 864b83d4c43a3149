"""Journals of nodes: cursors, chunks, and the projections that pages and rollouts read, all in one transaction.

Rules:
- Chunk rows are append-only: the journal as it came. Projections can be rebuilt from them.
- Within a lane facts arrive in order and old epochs are fenced, so the order of arrival is the order of (epoch, seq).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from sqlite3 import Connection

from cloudly.deployments import MACHINE
from cloudly.ingest import Batch, Cursor, Shipped, Verdict, judge
from cloudly.problems import Refused
from cloudly.store import outcomes
from cloudly.store.nodes import begin_epoch
from interfaces.journal import Ack, JournalEvent, Lane
from journal.chain import genesis

KEPT_TRANSITIONS = (
    200  # per node: what a page shows and a person scrolls; the journal itself keeps all
)
KEPT_STREAMS = 100
PRUNE_EVERY = 50  # facts
PRUNE_TRANSITIONS = (
    "DELETE FROM transition WHERE node=?1 AND (epoch_n, n) <= (SELECT epoch_n, n FROM transition"
    " WHERE node=?1 ORDER BY epoch_n DESC, n DESC LIMIT 1 OFFSET ?2)"
)
PRUNE_STREAMS = (
    "DELETE FROM stream WHERE node=?1 AND (epoch_n, n) <= (SELECT epoch_n, n FROM stream"
    " WHERE node=?1 ORDER BY epoch_n DESC, n DESC LIMIT 1 OFFSET ?2)"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the database a batch belongs."""

    node: int
    epoch_n: int
    lane: str
    now_ms: int


def ingest(
    db: Connection, node: int, batch: Batch, *, now_ms: int, new_id: Callable[[], str]
) -> Ack:
    """Store what is new of a batch. Raises Refused (gap, fork, fenced) with what Cloudly has."""
    epoch_n = _epoch(db, node, batch, now_ms)
    place = Place(node, epoch_n, batch.lane, now_ms)
    cursor = _cursor(db, place, batch.epoch)
    try:
        verdict = judge(batch, cursor, lambda seq: _hash_at(db, place, seq))
    except Refused as refused:
        problem = refused.problem
        raise Refused(
            problem.code, problem.detail, ack=_ack(batch.epoch, batch.lane, cursor)
        ) from None
    if verdict.fresh:
        _store(db, place, batch, verdict)
        _project(db, place, verdict.fresh, new_id)
    return _ack(batch.epoch, batch.lane, verdict.cursor)


def acks(db: Connection, node: int, epoch: str) -> tuple[Ack, ...]:
    """What Cloudly has of each lane of an epoch, known or not."""
    rows = db.execute(
        "SELECT l.lane, l.ack_seq, l.ack_hash FROM epoch e JOIN lane l ON l.node=e.node AND l.epoch_n=e.n"
        " WHERE e.node=? AND e.epoch=?",
        (node, epoch),
    ).fetchall()
    have = {row[0]: Cursor(row[1], row[2]) for row in rows}
    return tuple(
        _ack(epoch, lane.value, have.get(lane.value) or Cursor(0, genesis(epoch, lane.value)))
        for lane in Lane
    )


def _ack(epoch: str, lane: str, cursor: Cursor) -> Ack:
    return Ack(epoch=epoch, lane=Lane(lane), seq=cursor.seq, hash=cursor.hash.hex())


def _epoch(db: Connection, node: int, batch: Batch, now_ms: int) -> int:
    try:
        return begin_epoch(db, node, batch.epoch, now_ms=now_ms)
    except Refused as refused:
        held = next(ack for ack in acks(db, node, batch.epoch) if ack.lane == batch.lane)
        raise Refused(refused.problem.code, refused.problem.detail, ack=held) from None


def _cursor(db: Connection, place: Place, epoch: str) -> Cursor:
    row = db.execute(
        "SELECT ack_seq, ack_hash FROM lane WHERE node=? AND epoch_n=? AND lane=?",
        (place.node, place.epoch_n, place.lane),
    ).fetchone()
    return Cursor(0, genesis(epoch, place.lane)) if row is None else Cursor(row[0], row[1])


def _hash_at(db: Connection, place: Place, seq: int) -> bytes | None:
    row = db.execute(
        "SELECT first_seq, last_seq, events FROM journal_chunk WHERE node=? AND epoch_n=? AND lane=? AND first_seq<=?"
        " ORDER BY first_seq DESC LIMIT 1",
        (place.node, place.epoch_n, place.lane, seq),
    ).fetchone()
    if row is None or row[1] < seq:
        return None
    return bytes.fromhex(json.loads(row[2])[seq - row[0]]["hash"])


def _store(db: Connection, place: Place, batch: Batch, verdict: Verdict) -> None:
    key = (place.node, place.epoch_n, place.lane)
    fresh = verdict.fresh
    if verdict.gap is not None:
        db.execute("INSERT INTO lane_gap VALUES(?,?,?,?,?,?)", (*key, *verdict.gap, place.now_ms))
    db.execute(
        "INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events)"
        " VALUES(?,?,?,?,?,?,?,?)",
        (
            *key,
            fresh[0].seq,
            fresh[-1].seq,
            place.now_ms,
            sum(fact.event is None for fact in fresh),
            "[" + ",".join(fact.text for fact in fresh) + "]",
        ),
    )
    db.execute(
        "INSERT INTO lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq) VALUES(?,?,?,?,?,?)"
        " ON CONFLICT(node, epoch_n, lane) DO UPDATE SET ack_seq=excluded.ack_seq, ack_hash=excluded.ack_hash,"
        " head_seq=excluded.head_seq",
        (*key, verdict.cursor.seq, verdict.cursor.hash, batch.head_seq),
    )


@dataclass(slots=True)
class _Stream:
    """Where a stream of this batch is, and the deployment that an earlier fact of it named."""

    deployment: str | None
    last: JournalEvent | None = None


def _project(
    db: Connection, place: Place, fresh: tuple[Shipped, ...], new_id: Callable[[], str]
) -> None:
    streams: dict[str, _Stream] = {}
    shown: list[tuple[object, ...]] = []
    for fact in fresh:
        event = fact.event
        if event is None or not event.dst:  # a note beside the story is no transition
            continue
        stream = streams.get(event.stream)
        if stream is None:
            stream = streams[event.stream] = _known_stream(db, place, event.stream)
        stream.last = event
        if place.lane == Lane.CORE:
            reason = _transition(db, place, event, stream, new_id)
            shown.append(_shown(place, event, reason))
    _save(db, place, streams, shown)
    if fresh[0].seq // PRUNE_EVERY != (fresh[-1].seq + 1) // PRUNE_EVERY:
        _prune(db, place)


def _known_stream(db: Connection, place: Place, name: str) -> _Stream:
    row = db.execute(
        "SELECT deployment FROM stream WHERE node=? AND epoch_n=? AND stream=?",
        (place.node, place.epoch_n, name),
    ).fetchone()
    return _Stream(None if row is None else row[0])


def _transition(
    db: Connection, place: Place, event: JournalEvent, stream: _Stream, new_id: Callable[[], str]
) -> str:
    """Moves the deployment that the fact is about, if any; returns the fact's reason."""
    values = _values(event.data)
    named = values.get("deployment")
    if isinstance(named, str):
        stream.deployment = named
    reason = str(values.get("reason") or "")[:500]
    if stream.deployment is not None and event.stream.startswith(MACHINE):
        reached = outcomes.Reached(place.node, stream.deployment, event.dst, reason, place.now_ms)
        outcomes.apply(db, reached, new_id)
    return reason


def _shown(place: Place, event: JournalEvent, reason: str) -> tuple[object, ...]:
    return (
        place.node, place.epoch_n, event.n, event.seq, event.at_ms, place.now_ms,
        event.stream, event.kind, event.src, event.dst, reason,
    )  # fmt: skip


def _save(
    db: Connection, place: Place, streams: dict[str, _Stream], shown: list[tuple[object, ...]]
) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO transition"
        "(node, epoch_n, n, seq, at_ms, received_at_ms, stream, kind, src, dst, reason)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        shown,
    )
    db.executemany(
        "INSERT INTO stream(node, epoch_n, stream, n, lane, state, kind, at_ms, deployment)"
        " VALUES(?,?,?,?,?,?,?,?,?) ON CONFLICT(node, epoch_n, stream) DO UPDATE SET n=excluded.n,"
        " lane=excluded.lane, state=excluded.state, kind=excluded.kind, at_ms=excluded.at_ms,"
        " deployment=excluded.deployment",
        [
            (place.node, place.epoch_n, name, one.last.n, place.lane,
             one.last.dst, one.last.kind, one.last.at_ms, one.deployment)
            for name, one in streams.items() if one.last is not None
        ],
    )  # fmt: skip


def _values(data: str) -> dict[str, object]:
    """The fact's data as far as it can be read; it is kept as it came anyway."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _prune(db: Connection, place: Place) -> None:
    for sentence, kept in ((PRUNE_TRANSITIONS, KEPT_TRANSITIONS), (PRUNE_STREAMS, KEPT_STREAMS)):
        db.execute(sentence, (place.node, kept))
