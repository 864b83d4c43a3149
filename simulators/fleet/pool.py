"""One pool of connections for all devices, and a count of what was answered.

Rules:
- A device that closes its client does not close the pool; whoever made the pool does.
- Log streams have a pool of their own: a stream holds its connection, and must not keep others from polling.
"""

from __future__ import annotations

import ssl
from collections import Counter

import httpx


class SharedPool(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.answers: Counter[str] = Counter()
        """How often each answer came, by `METHOD status`, or `METHOD <error>`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.HTTPError as error:
            self.answers[f"{request.method} {type(error).__name__}"] += 1
            raise
        self.answers[f"{request.method} {response.status_code}"] += 1
        return response

    async def aclose(self) -> None:
        """Nothing: a device has closed its client."""

    async def close(self) -> None:
        await self._inner.aclose()


def polling_pool(connections: int, trusted: ssl.SSLContext | None) -> SharedPool:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return SharedPool(httpx.AsyncHTTPTransport(verify=trusted or True, limits=limits))


def log_pool(connections: int, trusted: ssl.SSLContext | None) -> SharedPool:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
    return SharedPool(httpx.AsyncHTTPTransport(verify=trusted or True, limits=limits))
