"""Who asks, and how a refusal looks to a Supervisor: what all of its requests share.

Rules:
- No answer has a Retry-After: a Supervisor reads its seconds as milliseconds and floods us (recorded: 42 in 10 s).
- Who asks is settled before the body is read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudly.batch import malformed
from cloudly.http.answers import problem_answer
from cloudly.http.body import read_body
from cloudly.http.device import MAX_HEARTBEAT
from cloudly.logs import note_node
from cloudly.problems import Refused, StoreProblem
from cloudly.settings import Settings
from cloudly.store.store import Store
from cloudly.tokens import bearer, fingerprint
from interfaces.world import World, now_ms

log = logging.getLogger("cloudly")

M = TypeVar("M")
NUMBER = re.compile(r"[1-9][0-9]{0,14}")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who is behind a device key."""

    device: int
    uuid: str
    key_hash: bytes
    """It is asked once more in the transaction that writes: a body takes its time."""


class Door:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self.store = store
        self.world = world
        self.settings = settings

    def now_ms(self) -> int:
        return now_ms(self.world)

    async def supervisor(self, request: Request) -> Supervisor:
        """Raises Refused (node-unknown, node-revoked)."""
        key = self.key(request)
        device, uuid = await self.store.authenticate_device(key)
        note_node(uuid)
        self.store.devices.seen(device, self.now_ms())
        return Supervisor(device, uuid, fingerprint(key))

    @staticmethod
    def key(request: Request) -> str:
        """The device key or join token that it comes with. Raises Refused."""
        key = bearer(request.headers.get("authorization"))
        if key is None:
            raise Refused("node-unknown")
        return key

    async def body(self, request: Request) -> bytes:
        return await read_body(
            request, limit=MAX_HEARTBEAT, deadline_s=self.settings.body_deadline_s
        )

    async def json(self, request: Request, model: TypeAdapter[M]) -> M:
        """The body as that model. Raises Refused, which names the place and not the content."""
        try:
            return model.validate_json(await self.body(request))
        except ValidationError as problem:
            raise malformed(problem) from None


def route(path: str, handler: Handler, method: str) -> Route:
    """A route of the device contract: its refusals never say when to ask again."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refused as refused:
            return _refusal(refused)
        except (StoreProblem, OSError) as problem:
            log.error("a Supervisor was not answered: %s", problem)  # noqa: TRY400 - one line says it
            return _refusal(Refused("busy"))

    return Route(path, answer, methods=[method], name=path)


def device_of(request: Request) -> int:
    """The device number in the path. Raises Refused (not-found)."""
    text = request.path_params["device"]
    if NUMBER.fullmatch(text) is None:
        raise Refused("not-found")
    return int(text)


def _refusal(refused: Refused) -> Response:
    return problem_answer(refused.problem.model_copy(update={"retry_after_s": None}))
