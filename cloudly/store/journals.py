"""Journals of nodes: cursors, chunks, and the projections that pages and rollouts read, all in one transaction.

Rules:
- Chunk rows are append-only: the journal as it came. Projections can be rebuilt from them.
- Within a lane facts arrive in order and old epochs are fenced, so the order of arrival is the order of (epoch, seq).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cloudly import chunks
from cloudly.batch import Batch, Shipped
from cloudly.deployments import MACHINE
from cloudly.epochs import began
from cloudly.ingest import Heard, Verdict, judge
from cloudly.problems import Refused
from cloudly.reports import load
from cloudly.store import diagnoses, epochs, heads, outcomes, voices
from cloudly.store.heads import Heads
from cloudly.store.sql import Connection
from cloudly.voices import Standing, Voice
from interfaces.journal import Ack, JournalEvent, Lane

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

    @property
    def key(self) -> tuple[int, int, str]:
        return self.node, self.epoch_n, self.lane


def ingest(  # noqa: PLR0913 - whose batch, what was known, and what chance and time it gets
    db: Connection,
    node: int,
    batch: Batch,
    *,
    last: Callable[[], voices.Last],
    now_ms: int,
    new_id: Callable[[], str],
) -> Ack | Refused:
    """Store what is new of a batch. Raises Refused (gap, fork) with what Cloudly has.

    A refusal that leaves a trace (fenced) is returned: what is raised is undone.
    """
    voice = Voice(batch.epoch, batch.writer, {batch.lane: batch.head_seq})
    standing, epoch_n = voices.hear(db, node, voice, now_ms=now_ms, last=last)
    position = heads.positions(db, node, batch.epoch)[batch.lane]
    held = heads.ack(batch.epoch, batch.lane, position.ack)
    if standing is Standing.FENCED:
        return Refused("fenced", ack=held)
    place = Place(node, epoch_n, batch.lane, now_ms)
    try:
        verdict = judge(
            batch, position.ack, lambda seq: heads.hash_at(db, place.key, seq), position.unreached
        )
    except Refused as refused:
        problem = refused.problem
        raise Refused(problem.code, problem.detail, ack=held) from None
    _note_head(db, place, batch)
    if verdict.cursor != position.ack:
        _store(db, place, verdict)
    if verdict.fresh:
        _project(db, place, verdict.fresh, new_id)
        note = began(batch)
        if note is not None:
            epochs.began(db, node, epoch_n, note, now_ms=now_ms)
    return heads.ack(batch.epoch, batch.lane, verdict.cursor)


def _note_head(db: Connection, place: Place, batch: Batch) -> None:
    head = Heard(batch.head_seq, batch.head_hash, batch.writer)
    if head.seq:
        heads.save(db, place.node, place.epoch_n, Heads(batch.epoch, {place.lane: head}))


def _store(db: Connection, place: Place, verdict: Verdict) -> None:
    key = place.key
    before = _last_n(db, key)
    n = chunks.places((fact.event and fact.event.n for fact in verdict.fresh), before)
    epochs.note_beside(db, key, verdict.beside)
    epochs.record(db, key, verdict.missing, now_ms=place.now_ms, at_n=n[0] if n else before + 1)
    if verdict.fresh:
        _append(db, key, verdict.fresh, n, place.now_ms)
    db.execute(
        "UPDATE lane SET ack_seq=?4, ack_hash=?5, prior_seq=CASE WHEN prior_seq>?4 THEN prior_seq END,"
        " prior_hash=CASE WHEN prior_seq>?4 THEN prior_hash END WHERE node=?1 AND epoch_n=?2 AND lane=?3",
        (*key, verdict.cursor.seq, verdict.cursor.hash),
    )


def _last_n(db: Connection, lane: tuple[int, int, str]) -> int:
    row = db.execute(
        "SELECT last_n FROM journal_chunk WHERE node=? AND epoch_n=? AND lane=? ORDER BY first_seq DESC LIMIT 1",
        lane,
    ).fetchone()
    return 0 if row is None else int(row[0])


def _append(
    db: Connection,
    lane: tuple[int, int, str],
    fresh: tuple[Shipped, ...],
    n: list[int],
    now_ms: int,
) -> None:
    db.execute(
        "INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events,"
        " first_n, last_n, quiet) VALUES(?,?,?,?,?,?,?,?,?,?,?)",
        chunk_of(lane, fresh, n, now_ms),
    )


def chunk_of(
    lane: tuple[int, int, str], fresh: tuple[Shipped, ...], n: list[int], now_ms: int
) -> tuple[Any, ...]:
    """A row of `journal_chunk`, in the order of its columns."""
    return (
        *lane,
        fresh[0].seq,
        fresh[-1].seq,
        now_ms,
        sum(fact.event is None for fact in fresh),
        "[" + ",".join(fact.text for fact in fresh) + "]",
        n[0],
        n[-1],
        int(all(chunks.is_quiet(fact.event) for fact in fresh)),
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
            shown.append(shown_row(place, event, reason))
    _save(db, place, streams, shown)
    if is_to_be_pruned(fresh):
        prune(db, place)


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
    values = load(event.data)
    named = values.get("deployment")
    if isinstance(named, str):
        stream.deployment = named
    reason = str(values.get("reason") or "")[:500]
    if event.stream.startswith(diagnoses.MACHINE):
        diagnoses.answer(db, place.node, values, now_ms=place.now_ms)
    if stream.deployment is not None and event.stream.startswith(MACHINE):
        reached = outcomes.Reached(place.node, stream.deployment, event.dst, reason, place.now_ms)
        outcomes.apply(db, reached, new_id)
    return reason


def shown_row(place: Place, event: JournalEvent, reason: str) -> tuple[object, ...]:
    return (
        place.node, place.epoch_n, event.n, event.seq, event.at_ms, place.now_ms,
        event.stream, event.kind, event.src, event.dst, reason,
    )  # fmt: skip


def _save(
    db: Connection, place: Place, streams: dict[str, _Stream], shown: list[tuple[object, ...]]
) -> None:
    db.executemany(
        "INSERT INTO transition"
        "(node, epoch_n, n, seq, at_ms, received_at_ms, stream, kind, src, dst, reason)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(node, epoch_n, n) DO UPDATE SET seq=excluded.seq,"
        " at_ms=excluded.at_ms, received_at_ms=excluded.received_at_ms, stream=excluded.stream, kind=excluded.kind,"
        " src=excluded.src, dst=excluded.dst, reason=excluded.reason",
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


def is_to_be_pruned(fresh: Sequence[Shipped]) -> bool:
    """Now and then: when a batch crosses a round number."""
    return fresh[0].seq // PRUNE_EVERY != (fresh[-1].seq + 1) // PRUNE_EVERY


def prune(db: Connection, place: Place) -> None:
    for sentence, kept in ((PRUNE_TRANSITIONS, KEPT_TRANSITIONS), (PRUNE_STREAMS, KEPT_STREAMS)):
        db.execute(sentence, (place.node, kept))
