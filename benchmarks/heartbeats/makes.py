"""Stores to compare with: one that keeps nothing, and one that says each request in one statement."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from benchmarks.heartbeats.fleet import EPOCH, WRITER, node_id
from cloudly.batch import Batch
from cloudly.rotation import TokenAge
from cloudly.store.nodes import Beat, Caller
from interfaces.desired import DesiredState
from interfaces.journal import Ack, Lane

AGE = TokenAge(1, 0, None)
ACKS = tuple(Ack(epoch=EPOCH, lane=lane, seq=0, hash="00" * 32) for lane in Lane)


class _Devices:
    completed: Any = None


async def _nothing(*_: Any, **__: Any) -> None: ...


class NullStore:
    """Answers as Cloudly's does, from nothing."""

    incarnation = "0" * 32
    app_uuid = "a" * 32
    waiting = 0
    broken = False

    def __init__(self) -> None:
        self.devices = _Devices()

    def __getattr__(self, name: str) -> Any:
        """Whatever else the application wants to be told or to call: there is nothing to do."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing

    async def authenticate(self, token_hash: bytes) -> Caller:
        return self._caller(1, token_hash)

    @staticmethod
    def _caller(number: int, token_hash: bytes) -> Caller:
        name = AnyName(node_id(number))
        return Caller(number, name, token_hash, False, b"", None, 0, EPOCH, WRITER, None, AGE)

    async def beat(self, heartbeat: Beat) -> Caller:
        return heartbeat.caller

    async def known_of(self, _node: int, _epoch: str, _heads: Any) -> tuple[Any, Any]:
        return ACKS, ACKS

    async def desired(self, _caller: Caller) -> DesiredState:
        return DesiredState(generation=0)

    async def ingest(self, _node: int, batch: Batch, *, now_ms: int) -> Ack:
        del now_ms
        last = batch.events[-1]
        return Ack(epoch=batch.epoch, lane=Lane(batch.lane), seq=last.seq, hash=last.hash.hex())


class AnyName(str):
    """Whoever asks is the one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


AUTHENTICATE = (
    "SELECT n.id, n.node_id FROM credential c JOIN node n ON n.id=c.node WHERE c.token_hash=$1"
)
BEAT = """
WITH live AS (UPDATE node_live SET last_seen_at_ms=$2, stable_hash=$3 WHERE node=$1)
UPDATE node_status SET reported=$4 WHERE node=$1
"""
INGEST = """
WITH known AS (SELECT ack_seq FROM lane WHERE node=$1 AND epoch_n=1 AND lane=$2 AND ack_seq=$3 FOR UPDATE),
 chunk AS (INSERT INTO journal_chunk(node, epoch_n, lane, first_seq, last_seq, received_at_ms, opaque, events,
   first_n, last_n, quiet) SELECT $1, 1, $2, $3+1, $4, $5, 0, $6, $3+1, $4, 0 FROM known),
 shown AS (INSERT INTO transition(node, epoch_n, n, seq, at_ms, received_at_ms, stream, kind, src, dst, reason)
   SELECT $1, 1, e.n, e.seq, e.at_ms, $5, e.stream, e.kind, e.src, e.dst, ''
   FROM known, jsonb_to_recordset($6::jsonb)
     AS e(n bigint, seq bigint, at_ms bigint, stream text, kind text, src text, dst text)),
 streams AS (INSERT INTO stream(node, epoch_n, stream, n, lane, state, kind, at_ms)
   SELECT $1, 1, $8, $4, $2, $9, $10, $5 FROM known
   ON CONFLICT(node, epoch_n, stream) DO UPDATE SET n=excluded.n, state=excluded.state)
UPDATE lane SET ack_seq=$4, ack_hash=$7, head_seq=$4, head_hash=$7
 WHERE node=$1 AND epoch_n=1 AND lane=$2 AND EXISTS (SELECT 1 FROM known)
"""


class OneStatementStore(NullStore):
    """The same rows, one durable statement for each request."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._pool: Any = None

    async def pool(self) -> Any:
        if self._pool is None:
            self._pool = asyncpg.create_pool(self._url, min_size=0, max_size=16)
        return await self._pool

    async def authenticate(self, token_hash: bytes) -> Caller:
        row = await (await self.pool()).fetchrow(AUTHENTICATE, token_hash)
        return Caller(row[0], row[1], token_hash, False, b"", None, 0, EPOCH, WRITER, None, AGE)

    async def beat(self, heartbeat: Beat) -> Caller:
        values = (heartbeat.at_ms, heartbeat.stable_hash, heartbeat.reported)
        await (await self.pool()).execute(BEAT, heartbeat.caller.node, *values)
        return heartbeat.caller

    async def ingest(self, node: int, batch: Batch, *, now_ms: int) -> Ack:
        first, last = batch.events[0], batch.events[-1]
        text = json.dumps([json.loads(one.text) for one in batch.events])
        event = last.event
        assert event is not None
        await (await self.pool()).execute(
            INGEST, node, batch.lane, first.seq - 1, last.seq, now_ms, text, last.hash,
            event.stream, event.dst, event.kind,
        )  # fmt: skip
        return Ack(epoch=batch.epoch, lane=Lane(batch.lane), seq=last.seq, hash=last.hash.hex())
