"""The body of a log stream: read by a task of its own, no further than there is room, unpacked in small steps.

Rules:
- Nobody cancels a read: who waits for something else waits for an event, and what was read stays.
- What is not taken is not read: then the server stops reading the socket, and the device's own window closes.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from starlette.types import Receive

from cloudly.http.body import Gunzip

ROOM_BYTES = 32 * 1024
"""As it came, beside what the server itself holds of a body (64 KiB)."""
STEP_BYTES = 64 * 1024
"""Unpacked at once: less than a millisecond."""


class Body:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._chunks: list[bytes] = []
        self._size = 0
        self._news = anyio.Event()
        self._taken = anyio.Event()
        self.has_ended = False
        """All of it has been read."""
        self.is_gone = False
        """Whoever sent it has gone."""

    async def pump(self) -> None:
        """Read it, until its sender has gone."""
        while not self.is_gone:
            message = await self._receive()
            if message["type"] == "http.request":
                self._hold(message.get("body", b""))
                self.has_ended = not message.get("more_body", False)
            else:
                self.is_gone = True
            self._news.set()
            while self._size > ROOM_BYTES:
                self._taken = anyio.Event()
                await self._taken.wait()

    async def news(self, within_s: float) -> None:
        """Until something of it came, somebody called, or the time is over."""
        with anyio.move_on_after(within_s):
            await self._news.wait()
        self._news = anyio.Event()

    def call(self) -> None:
        """Wake who waits for news."""
        self._news.set()

    def take(self) -> list[bytes]:
        """What has come since the last time."""
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._taken.set()
        return chunks

    def _hold(self, chunk: bytes) -> None:
        if chunk:
            self._chunks.append(chunk)
            self._size += len(chunk)


def steps(gunzip: Gunzip | None, chunk: bytes) -> Iterator[bytes]:
    """What the chunk grows to, in pieces. Raises zlib.error."""
    if gunzip is None:
        yield from (chunk[at : at + STEP_BYTES] for at in range(0, len(chunk), STEP_BYTES))
        return
    while True:
        unpacked, chunk = gunzip.step(chunk, STEP_BYTES)
        if unpacked:
            yield unpacked
        if not chunk and len(unpacked) < STEP_BYTES:
            return
