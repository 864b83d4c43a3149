"""What the agent talks to beside its neighbours' programs: a quiet host, and lines that can be cut or lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import httpx

from interfaces.reported import Space
from simulators.world import SimWorld


class QuietHost:
    """A host whose readings never change, so that a seed gives the same story on every machine."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def uptime_s(self) -> float:
        return self._world.monotonic()

    def memory(self) -> Space | None:
        return Space(total_bytes=1_000_000_000, free_bytes=400_000_000)

    def disk(self) -> Space | None:
        return Space(total_bytes=8_000_000_000, free_bytes=4_000_000_000)

    def temperature_c(self) -> float | None:
        return 48.5

    def addresses(self) -> tuple[str, ...]:
        return ("192.0.2.9",)

    def hostname(self) -> str:
        return "simulated"


class Plugged(httpx.AsyncBaseTransport):
    """A transport that can be unplugged, changed or wrapped while it is in use."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.plugged = True
        self.requests: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if not self.plugged:
            raise httpx.ConnectError("unplugged")
        return await self.inner.handle_async_request(request)


class Instead(httpx.AsyncBaseTransport):
    """Says something else in place of some answers; the rest goes through. `fired` counts what was said."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        say: Callable[[httpx.Request], httpx.Response | None],
    ) -> None:
        self._inner = inner
        self._say = say
        self.fired = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        instead = self._say(request)
        if instead is None:
            return await self._inner.handle_async_request(request)
        self.fired += 1
        return instead


class Afterwards(httpx.AsyncBaseTransport):
    """The server has done what it was asked, and then something happens to its answer. `fired` counts that."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        happens: Callable[[httpx.Request, httpx.Response], Awaitable[httpx.Response | None]],
    ) -> None:
        """`happens` gives the answer that arrives, or raises; None: the real one arrives."""
        self._inner = inner
        self._happens = happens
        self.fired = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        await answer.aread()
        try:
            other = await self._happens(request, answer)
        except httpx.TransportError:
            self.fired += 1
            raise
        self.fired += other is not None
        return other or answer


def altered(answer: httpx.Response, **values: object) -> httpx.Response:
    """The same answer with other values in its JSON object."""
    return httpx.Response(answer.status_code, json={**answer.json(), **values})


class Stream(httpx.AsyncByteStream):
    """A body that comes piece by piece; `given` counts the bytes that were taken."""

    def __init__(self, world: SimWorld, pieces: Iterable[bytes], *, every_s: float = 0.0) -> None:
        self._world = world
        self._pieces = pieces
        self._every_s = every_s
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await self._world.sleep(self._every_s)
            self.given += len(piece)
            yield piece
