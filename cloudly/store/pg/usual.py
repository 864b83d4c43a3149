"""Many usual decisions in a few sentences: what most requests of nodes write, for all of a batch at once.

Rules:
- The nodes' rows are locked before anything is read of them, so what was read is true until the COMMIT.
- Each table is written by one sentence for the whole batch, its rows as arrays.
- What turns out not to be usual is returned, and decided by its own function after these.
- Of one node only the first decision of a batch is taken here: the next one must see what it wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudly import chunks
from cloudly.ingest import Cursor, Heard
from cloudly.problems import StoreUnavailable
from cloudly.store import heads, journals
from cloudly.store.database import Pending
from cloudly.store.heads import Position
from cloudly.store.journals import Place
from cloudly.store.pg.bridge import Bridge, wait
from cloudly.store.usual import UsualBatch, UsualBeat, reason_of
from cloudly.voices import Standing
from interfaces.journal import Lane
from journal.chain import genesis

log = logging.getLogger("cloudly")

FEWEST = 2
"""With fewer there is nothing to gain."""

KNOWN = """
SELECT n.id, c.token_hash, v.epoch_n, v.epoch, v.writer, c.still_open, n.agent_version
FROM node n JOIN credential c ON c.node=n.id JOIN voice v ON v.node=n.id
WHERE n.id=ANY(?::bigint[]) ORDER BY n.id FOR NO KEY UPDATE OF n
"""
LANES = """
SELECT l.node, l.lane, l.ack_seq, l.ack_hash, l.head_seq, l.head_hash, l.head_writer, l.prior_seq, l.prior_hash,
 coalesce((SELECT j.last_n FROM journal_chunk j WHERE j.node=l.node AND j.epoch_n=l.epoch_n AND j.lane=l.lane
  ORDER BY j.first_seq DESC LIMIT 1), 0)
FROM unnest(?::bigint[], ?::bigint[], ?::text[]) a(node, epoch_n, lane)
JOIN lane l ON l.node=a.node AND l.epoch_n=a.epoch_n AND l.lane=a.lane
"""
LIVE = """
INSERT INTO node_live(node, last_seen_at_ms, observed_generation, stable_hash)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[]) ON CONFLICT(node) DO UPDATE SET
 last_seen_at_ms=excluded.last_seen_at_ms, observed_generation=excluded.observed_generation,
 stable_hash=excluded.stable_hash
"""
STATUS = """
INSERT INTO node_status(node, reported) SELECT * FROM unnest(?::bigint[], ?::text[])
ON CONFLICT(node) DO UPDATE SET reported=excluded.reported
"""
OPENED = "UPDATE credential SET still_open=0 WHERE node=ANY(?::bigint[]) AND still_open=1"
VERSIONS = """
UPDATE node n SET agent_version=a.version FROM unnest(?::bigint[], ?::text[]) a(node, version) WHERE n.id=a.node
"""
CHUNKS = """
INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events, first_n, last_n,
 quiet)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[],
 ?::text[], ?::bigint[], ?::bigint[], ?::bigint[])
"""
CURSORS = """
INSERT INTO lane(node, epoch_n, lane, ack_seq, ack_hash, head_seq, head_hash, head_writer)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::bytea[], ?::bigint[], ?::bytea[], ?::text[])
ON CONFLICT(node, epoch_n, lane) DO UPDATE SET ack_seq=excluded.ack_seq, ack_hash=excluded.ack_hash,
 head_seq=excluded.head_seq, head_hash=excluded.head_hash, head_writer=excluded.head_writer
"""
TRANSITIONS = """
INSERT INTO transition(node, epoch_n, n, seq, at_ms, received_at_ms, stream, kind, src, dst, reason)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[],
 ?::text[], ?::text[], ?::text[], ?::text[])
ON CONFLICT(node, epoch_n, n) DO UPDATE SET seq=excluded.seq, at_ms=excluded.at_ms,
 received_at_ms=excluded.received_at_ms, stream=excluded.stream, kind=excluded.kind, src=excluded.src,
 dst=excluded.dst, reason=excluded.reason
"""
STREAMS = """
INSERT INTO stream(node, epoch_n, stream, n, lane, state, kind, at_ms)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::bigint[])
ON CONFLICT(node, epoch_n, stream) DO UPDATE SET n=excluded.n, lane=excluded.lane, state=excluded.state,
 kind=excluded.kind, at_ms=excluded.at_ms
"""


def decide(bridge: Bridge, part: Sequence[Pending]) -> list[Pending]:
    """Decide what is usual; returns the rest, in its order. In a transaction, in a greenlet."""
    wait(bridge.say("SAVEPOINT usual"))
    try:
        left = _decide(bridge, part)
    except StoreUnavailable:
        raise
    except Exception:
        log.exception("requests that looked usual were not; each is decided by itself")
        wait(bridge.say("ROLLBACK TO usual"))
        left = list(part)
    wait(bridge.say("RELEASE usual"))
    return left


def _decide(bridge: Bridge, part: Sequence[Pending]) -> list[Pending]:
    first: dict[int, Pending] = {}
    for pending in part:
        if pending.usual is not None and pending.nodes is not None:
            first.setdefault(pending.nodes[0], pending)
    if len(first) < FEWEST:
        return list(part)
    known = {row[0]: row for row in bridge.execute(KNOWN, (sorted(first),))}
    beats, batches = _Beats(), _Batches()
    asked = [one for node, one in first.items() if _speaks(one.usual, known.get(node))]
    for pending in asked:
        if isinstance(pending.usual, UsualBeat):
            beats.take(pending, pending.usual, known[pending.usual.heartbeat.caller.node])
    lanes = [(one, one.usual) for one in asked if isinstance(one.usual, UsualBatch)]
    batches.take(bridge, lanes, known)
    beats.write(bridge)
    batches.write(bridge)
    decided = {id(one) for one in (*beats.decided, *batches.decided)}
    return [one for one in part if id(one) not in decided]


def _speaks(usual: object, known: Any) -> bool:
    """Whether it is of the writer and epoch whose turn it is."""
    if known is None:
        return False
    if isinstance(usual, UsualBeat):
        voice, caller = usual.heartbeat.voice, usual.heartbeat.caller
        if voice is None or caller.token_hash != known[1]:
            return False
        return (voice.epoch, voice.writer) == (known[3], known[4])
    if isinstance(usual, UsualBatch):
        return (usual.batch.epoch, usual.batch.writer) == (known[3], known[4]) and usual.is_plain
    return False


@dataclass
class _Beats:
    """Heartbeats with news."""

    decided: list[Pending] = field(default_factory=list)
    live: list[tuple[Any, ...]] = field(default_factory=list)
    status: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    versions: list[tuple[Any, ...]] = field(default_factory=list)
    heads: list[tuple[Any, ...]] = field(default_factory=list)

    def take(self, pending: Pending, usual: UsualBeat, known: Any) -> None:
        beat, found = usual.heartbeat, usual.heads()
        if found is None:
            return
        node, epoch_n, epoch = known[0], known[2], known[3]
        self.live.append((node, beat.at_ms, beat.observed_generation, beat.stable_hash))
        self.status.append((node, beat.reported))
        if known[5]:
            self.opened.append(node)
        if known[6] != beat.agent_version:
            self.versions.append((node, beat.agent_version))
        for lane, head in found.items():
            start = genesis(epoch, lane)
            self.heads.append((node, epoch_n, lane, start, head.seq, head.hash, head.writer))
        usual.taken()
        pending.result = Standing.PRESENT
        self.decided.append(pending)

    def write(self, bridge: Bridge) -> None:
        _write(bridge, LIVE, self.live)
        _write(bridge, STATUS, self.status)
        _write(bridge, VERSIONS, self.versions)
        _write(bridge, heads.SAVE_MANY, self.heads)
        if self.opened:
            bridge.execute(OPENED, (self.opened,))


@dataclass
class _Batches:
    """The next facts of lanes."""

    decided: list[Pending] = field(default_factory=list)
    chunks: list[tuple[Any, ...]] = field(default_factory=list)
    cursors: list[tuple[Any, ...]] = field(default_factory=list)
    shown: list[tuple[Any, ...]] = field(default_factory=list)
    streams: list[tuple[Any, ...]] = field(default_factory=list)
    full: list[Place] = field(default_factory=list)

    def take(
        self, bridge: Bridge, asked: Sequence[tuple[Pending, UsualBatch]], known: dict[int, Any]
    ) -> None:
        keys = [(one.node, known[one.node][2], one.batch.lane) for _, one in asked]
        found = {(row[0], row[1]): row for row in _ask(bridge, LANES, keys)}
        for pending, usual in asked:
            row = found.get((usual.node, usual.batch.lane))
            position, last_n = _position(usual, row)
            self._take(pending, usual, known[usual.node][2], position, last_n)

    def _take(
        self, pending: Pending, usual: UsualBatch, epoch_n: int, position: Position, last_n: int
    ) -> None:
        verdict = usual.verdict(position)
        if verdict is None:
            return
        place = Place(usual.node, epoch_n, usual.batch.lane, usual.now_ms)
        head, cursor = usual.head_after(position), verdict.cursor
        if verdict.fresh:
            n = chunks.places((fact.event and fact.event.n for fact in verdict.fresh), last_n)
            self.chunks.append(journals.chunk_of(place.key, verdict.fresh, n, place.now_ms))
            self._show(place, verdict.fresh)
        if verdict.fresh or _goes_further(head, position):
            row = (*place.key, cursor.seq, cursor.hash, head.seq, head.hash if head.seq else None)
            self.cursors.append((*row, head.writer))
        pending.result = heads.ack(usual.batch.epoch, usual.batch.lane, cursor)
        self.decided.append(pending)

    def _show(self, place: Place, fresh: Sequence[Any]) -> None:
        streams: dict[str, tuple[Any, ...]] = {}
        for fact in fresh:
            event = fact.event
            if event is None or not event.dst:
                continue
            streams[event.stream] = (
                place.node, place.epoch_n, event.stream, event.n, place.lane,
                event.dst, event.kind, event.at_ms,
            )  # fmt: skip
            if place.lane == Lane.CORE:
                self.shown.append(journals.shown_row(place, event, reason_of(event.data)))
        self.streams += streams.values()
        if journals.is_to_be_pruned(fresh):
            self.full.append(place)

    def write(self, bridge: Bridge) -> None:
        _write(bridge, CHUNKS, self.chunks)
        _write(bridge, CURSORS, self.cursors)
        _write(bridge, TRANSITIONS, _newest(self.shown, 3))
        _write(bridge, STREAMS, self.streams)
        for place in self.full:
            journals.prune(bridge, place)


def _position(usual: UsualBatch, row: Any) -> tuple[Position, int]:
    batch = usual.batch
    if row is None:
        return Position(Cursor(0, genesis(batch.epoch, batch.lane))), 0
    head = None if row[5] is None else Heard(row[4], row[5], row[6])
    prior = None if row[7] is None else Heard(row[7], row[8], None)
    return Position(Cursor(row[2], row[3]), head, prior), row[9]


def _goes_further(head: Heard, position: Position) -> bool:
    return head.seq > (0 if position.head is None else position.head.seq)


def _newest(rows: list[tuple[Any, ...]], key: int) -> list[tuple[Any, ...]]:
    """The last one of each key: a sentence may touch a row once."""
    return list({row[:key]: row for row in rows}.values())


def _ask(bridge: Bridge, sentence: str, rows: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    return bridge.execute(sentence, _columns(rows)) if rows else ()


def _write(bridge: Bridge, sentence: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        bridge.execute(sentence, _columns(rows))


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
