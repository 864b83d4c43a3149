"""Weather on the way to a server: an httpx transport around another one.

Rules:
- A caller's own patience counts: silence ends in the timeout that httpx was given, as on a real socket. In memory
  nobody else would enforce it.
- What reaches the server is done there before the answer is spoilt.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

import anyio
import httpx

from interfaces.world import World
from simulators.weather.faults import Fault, Weather

PATIENCE_S: Final = 60.0
"""Of a caller that has set no timeout: silence must end some time, or virtual time would stand still."""

PORTAL: Final = "<html><head><title>Welcome to the guest network</title></head><body><form>...</form></body></html>"
HUGE_BYTES: Final = 1 << 30
PIECE: Final = b"x" * 65_536

LOST: Final = (Fault.REQUEST_LOST, Fault.PARTITION)
BUSY: Final = (Fault.BUSY_SECONDS, Fault.BUSY_DATE, Fault.BUSY_GARBAGE)


class WeatherTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport, weather: Weather, world: World) -> None:
        self._inner = inner
        self._weather = weather
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self._weather.draw()
        if self._weather.partitioned(anyio.current_time()):
            fault = Fault.PARTITION
        if fault is None:
            return await self._inner.handle_async_request(request)
        self._weather.note(fault, f"{request.method} {request.url.path}")
        if fault is Fault.LATENCY:
            return await self._late(request)
        instead = await self._instead(fault, request)
        if instead is not None:
            return instead
        answer = await self._inner.handle_async_request(request)
        await answer.aread()
        return await self._spoilt(fault, request, answer)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _late(self, request: httpx.Request) -> httpx.Response:
        late_s, patience_s = self._weather.latency_s(), _patience_s(request, "read")
        if late_s / 2 > patience_s:
            await self._world.sleep(patience_s)
            raise httpx.ReadTimeout("weather: too late", request=request)
        await self._world.sleep(late_s / 2)
        answer = await self._inner.handle_async_request(request)
        await self._world.sleep(late_s / 2)
        return answer

    async def _instead(self, fault: Fault, request: httpx.Request) -> httpx.Response | None:
        """What happens in place of asking the server; None when it is asked. Raises httpx.TransportError."""
        if fault in LOST:
            await self._world.sleep(_patience_s(request, "connect"))
            raise httpx.ConnectTimeout("weather: the request was lost", request=request)
        if fault is Fault.RESET_BEFORE:
            raise httpx.ConnectError("weather: connection reset", request=request)
        if fault is Fault.SERVER_ERROR:
            status = self._weather.chance.choice((500, 502, 503, 504))
            return httpx.Response(status, html="<h1>upstream is not well</h1>", request=request)
        if fault is Fault.CAPTIVE_PORTAL:
            return httpx.Response(200, html=PORTAL, request=request)
        if fault is Fault.CAPTIVE_REDIRECT:
            headers = {"location": "http://portal.invalid/login"}
            return httpx.Response(302, headers=headers, html=PORTAL, request=request)
        if fault in BUSY:
            headers = {"retry-after": self._retry_after(fault)}
            return httpx.Response(429, headers=headers, text="slow down", request=request)
        return None

    def _retry_after(self, fault: Fault) -> str:
        seconds = self._weather.chance.randint(*self._weather.forecast.retry_after_s)
        if fault is Fault.BUSY_DATE:
            return format_datetime(self._world.now() + timedelta(seconds=seconds), usegmt=True)
        return str(seconds) if fault is Fault.BUSY_SECONDS else "soon, we hope"

    async def _spoilt(
        self, fault: Fault, request: httpx.Request, answer: httpx.Response
    ) -> httpx.Response:
        """The server has answered, and this is what arrives. Raises httpx.TransportError."""
        if fault is Fault.RESPONSE_LOST:
            await self._world.sleep(_patience_s(request, "read"))
            raise httpx.ReadTimeout("weather: the response was lost", request=request)
        if fault is Fault.RESET_AFTER:
            raise httpx.ReadError("weather: connection reset", request=request)
        if fault is Fault.TRUNCATED:
            body: httpx.AsyncByteStream = httpx.ByteStream(
                answer.content[: len(answer.content) // 2]
            )
        elif fault is Fault.DRIPPING:
            body = _Dripping(self._world, answer.content)
        elif fault is Fault.NEVER_ENDING:
            body = _NeverEnding(self._world)
        else:
            body = _Huge()
        return httpx.Response(
            answer.status_code,
            headers=_headers_for_another_body(answer),
            stream=body,
            request=request,
        )


class _Dripping(httpx.AsyncByteStream):
    def __init__(self, world: World, body: bytes) -> None:
        self._world = world
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for byte in self._body:
            await self._world.sleep(1.0)
            yield bytes((byte,))


class _NeverEnding(httpx.AsyncByteStream):
    def __init__(self, world: World) -> None:
        self._world = world

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"padding": "'
        while True:
            await self._world.sleep(1.0)
            yield b"x" * 100


class _Huge(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield json.dumps({"padding": ""})[:-2].encode()
        for _ in range(HUGE_BYTES // len(PIECE)):
            yield PIECE


def _headers_for_another_body(answer: httpx.Response) -> httpx.Headers:
    headers = httpx.Headers(answer.headers)
    for name in ("content-length", "content-encoding"):
        headers.pop(name, None)
    return headers


def _patience_s(request: httpx.Request, phase: str) -> float:
    """How long the caller waits in this phase."""
    timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
    seconds = timeouts.get(phase)
    return PATIENCE_S if seconds is None else seconds
