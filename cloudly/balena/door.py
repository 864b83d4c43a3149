"""Who asks, and how a refusal looks to a Supervisor: what all of its requests share.

Rules:
- No answer has a Retry-After: a Supervisor reads its seconds as milliseconds and floods us (recorded: 42 in 10 s).
- Who asks is settled before the body is read.
"""

from __future__ import annotations

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
from cloudly.problems import Refused, StoreUnavailable
from cloudly.settings import Settings
from cloudly.store.store import Store
from cloudly.tokens import bearer
from interfaces.world import World, now_ms

M = TypeVar("M")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who is behind a device key."""

    device: int
    uuid: str


class Door:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self.store = store
        self.world = world
        self.settings = settings

    def now_ms(self) -> int:
        return now_ms(self.world)

    def supervisor(self, request: Request) -> Supervisor:
        """Raises Refused (node-unknown, node-revoked)."""
        device, uuid = self.store.authenticate_device(self.key(request))
        self.store.devices.seen(device, self.now_ms())
        return Supervisor(device, uuid)

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
        except StoreUnavailable:
            return _refusal(Refused("busy"))

    return Route(path, answer, methods=[method], name=path)


def _refusal(refused: Refused) -> Response:
    return problem_answer(refused.problem.model_copy(update={"retry_after_s": None}))
