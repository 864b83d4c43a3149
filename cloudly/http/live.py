"""Live pages: server-sent events of what changed since the last look.

Rules:
- The store's version is asked once a second (microseconds); only when it moved, or a minute's worth of silence may have
  turned a node late, is anything read.
- A stream ends when the server is about to stop or its reader has gone, and there are never more than `MOST`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cloudly.problems import Refused
from interfaces.world import World

LOOK_EVERY_S = 1.0
SPEAK_EVERY_LOOKS = 15  # a comment, so that proxies and browsers keep the connection
MOST = 100


@dataclass(slots=True)
class Closing:
    """Set once, when the server is about to stop: live pages end, so that nobody waits for them."""

    now: bool = False


class Live:
    def __init__(self, world: World, closing: Closing) -> None:
        self._world = world
        self._closing = closing
        self.open = 0

    def stream(self, request: Request, changes: Callable[[], Awaitable[str | None]]) -> Response:
        """Events with what `changes` returns at each look; None: nothing changed. Raises Refused."""
        if self.open >= MOST:
            raise Refused("busy", "Too many live pages are open.")
        return _Stream(self, self._events(request, changes))

    async def _events(
        self, request: Request, changes: Callable[[], Awaitable[str | None]]
    ) -> AsyncIterator[str]:
        yield ": live\n\n"
        looks = 0
        while not self._closing.now and not await request.is_disconnected():
            html = await changes()
            looks += 1
            if html is not None:
                yield event(html)
            elif looks % SPEAK_EVERY_LOOKS == 0:
                yield ": still here\n\n"
            await self._world.sleep(LOOK_EVERY_S)


class _Stream(StreamingResponse):
    """Counted from before its first byte until its reader has gone, however that happens."""

    def __init__(self, live: Live, events: AsyncIterator[str]) -> None:
        super().__init__(
            events, headers={"cache-control": "no-store"}, media_type="text/event-stream"
        )
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._live.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._live.open -= 1


def event(html: str) -> str:
    """One message; every kind of line break would end a field."""
    return "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
