"""What baserunner asks: register, heartbeat, journal. The hot path, so plain Starlette routes.

Rules:
- Who asks is settled before the body is parsed; a stranger's body is not even read.
- An answer that says something is durable goes out after it is.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudly.batch import decode, malformed
from cloudly.http.answers import json_answer
from cloudly.http.body import read_body
from cloudly.ingest import Heard
from cloudly.logs import note_node
from cloudly.problems import Refused
from cloudly.rotation import wanted_generation
from cloudly.settings import Settings
from cloudly.store.heads import Heads
from cloudly.store.joining import Ask
from cloudly.store.nodes import Beat, Caller, stable_hash
from cloudly.store.store import Store
from cloudly.store.voices import uptime_ms
from cloudly.tickets import Tickets
from cloudly.tokens import bearer, fingerprint, new_nonce
from cloudly.voices import Voice
from interfaces.enrollment import RegisterAnswer, RegisterRequest
from interfaces.heartbeat import HeartbeatAnswer, HeartbeatRequest
from interfaces.journal import JournalAnswer
from interfaces.world import World, new_id, now_ms

M = TypeVar("M", bound=BaseModel)

MAX_REGISTER = 16 * 1024
MAX_HEARTBEAT = 64 * 1024
MAX_JOURNAL = 1024 * 1024

VOLATILE = {
    "uptime_s": True,
    "temperature_c": True,
    "memory": True,
    "disk": True,
    "journal": True,
}
"""Parts of a report that differ each time: kept in memory, not worth a write of their own."""

CROWDED = 64
"""Decisions queued for one COMMIT above which nodes are asked to ship their journals more slowly."""


class DeviceApi:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._store = store
        self._world = world
        self._settings = settings
        self._tickets = Tickets(settings.data_dir, world)

    def routes(self) -> list[Route]:
        return [
            Route("/baseos/v1/nodes/register", self.register, methods=["POST"]),
            Route("/baseos/v1/nodes/heartbeat", self.heartbeat, methods=["POST"]),
            Route("/baseos/v1/nodes/journal", self.journal, methods=["POST"]),
        ]

    async def register(self, request: Request) -> Response:
        ticket = await self._ticket_of(request)
        join_token = "" if ticket else await join_token_of(request, self._store)
        asked = parse(RegisterRequest, await self._body(request, MAX_REGISTER))
        enrolled = await self._store.enroll(
            Ask(
                join_token=join_token,
                ticket=ticket,
                node_id=asked.node_id,
                secret=asked.enrollment_secret.get_secret_value(),
                epoch=asked.epoch,
                agent_version=asked.agent_version,
                hostname=asked.hostname,
                device_type=asked.device_type,
                now_ms=now_ms(self._world),
                nonce=new_nonce(self._world),
                deployment=new_id(self._world),
            )
        )
        answer = RegisterAnswer.model_validate(
            {
                "node_id": enrolled.node_id,
                "node_token": enrolled.node_token,
                "token_generation": enrolled.generation,
                "incarnation": self._store.incarnation,
                "heartbeat_every_s": self._settings.heartbeat_every_s,
            }
        )
        return json_answer(answer, 201)

    async def heartbeat(self, request: Request) -> Response:
        caller = await caller_of(request, self._store)
        beat = parse(HeartbeatRequest, await self._body(request, MAX_HEARTBEAT))
        if beat.node_id != caller.node_id:
            raise Refused("node-mismatch")
        at_ms = now_ms(self._world)
        heads = _heads(beat)
        caller = await self._store.beat(_beat(caller, beat, heads, at_ms))
        acks, heard = (
            ((), ())
            if beat.epoch is None
            else await self._store.known_of(caller.node, beat.epoch, heads)
        )
        answer = HeartbeatAnswer(
            incarnation=self._store.incarnation,
            server_time_ms=at_ms,
            desired=await self._store.desired(caller),
            heartbeat_every_s=self._settings.heartbeat_every_s,
            diagnosis=caller.diagnosis,
            rotate_token=wanted_generation(
                caller.token, now_ms=at_ms, most_days=self._settings.node_token_days
            ),
            acks=acks,
            heard=heard,
        )
        return json_answer(answer)

    async def journal(self, request: Request) -> Response:
        caller = await caller_of(request, self._store)
        batch = decode(await self._body(request, MAX_JOURNAL))
        ack = await self._store.ingest(caller.node, batch, now_ms=now_ms(self._world))
        answer = JournalAnswer(
            incarnation=self._store.incarnation,
            ack=ack,
            next_after_s=next_after_s(self._store.waiting),
        )
        return json_answer(answer)

    async def _ticket_of(self, request: Request) -> int | None:
        """Whose enrollment ticket a request comes with; None: it comes with none."""
        presented = bearer(request.headers.get("authorization"))
        if presented is None:
            return None
        return await self._store.read(lambda db: self._tickets.node_of(db, presented))

    async def _body(self, request: Request, limit: int) -> bytes:
        return await read_body(request, limit=limit, deadline_s=self._settings.body_deadline_s)


async def caller_of(request: Request, store: Store) -> Caller:
    """The node whose token a request comes with. Raises Refused."""
    token = bearer(request.headers.get("authorization"))
    if token is None:
        raise Refused("node-unknown")
    caller = await store.authenticate(fingerprint(token))
    note_node(caller.node_id)
    return caller


async def join_token_of(request: Request, store: Store) -> str:
    """The join token that a request comes with, if it is one. Raises Refused."""
    join_token = bearer(request.headers.get("authorization"))
    if join_token is None:
        raise Refused("token-unknown")
    await store.check_join_token(join_token)
    return join_token


def next_after_s(waiting: int) -> float:
    """How long a node should keep its next batch back: one second for each full queue ahead of it."""
    return float(waiting // CROWDED)


def parse(model: type[M], body: bytes) -> M:
    """The body as that model. Raises Refused (malformed), which names the place and not the content."""
    try:
        return model.model_validate_json(body)
    except ValidationError as problem:
        raise malformed(problem) from None


def _beat(caller: Caller, beat: HeartbeatRequest, heads: Heads | None, at_ms: int) -> Beat:
    stable = beat.reported.model_dump_json(exclude=VOLATILE)
    return Beat(
        caller=caller,
        voice=_voice(beat, heads),
        heads=heads,
        at_ms=at_ms,
        agent_version=beat.agent_version,
        observed_generation=beat.reported.observed_generation,
        stable_hash=stable_hash(beat.agent_version, stable.encode()),
        reported=beat.reported.model_dump_json(),
    )


def _heads(beat: HeartbeatRequest) -> Heads | None:
    """The head of each lane of the epoch that it speaks of."""
    if beat.epoch is None:
        return None
    told = {
        head.lane.value: Heard(head.seq, bytes.fromhex(head.hash), beat.writer)
        for head in beat.reported.journal
        if head.epoch == beat.epoch and head.seq
    }
    return Heads(beat.epoch, told)


def _voice(beat: HeartbeatRequest, heads: Heads | None) -> Voice | None:
    if beat.epoch is None or heads is None:
        return None
    reported = beat.reported
    return Voice(
        beat.epoch,
        beat.writer,
        {lane: head.seq for lane, head in heads.lanes.items()},
        reported.boot_id,
        uptime_ms({"uptime_s": reported.uptime_s}),
        reported.addresses,
    )
