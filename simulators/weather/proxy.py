"""A TCP proxy with moods: faults on real sockets, between a real client and a real server.

Rules:
- Each connection gets one mood and one cut point, drawn from the seed in the order of connections.
- A mood is counted in `fired` when it bites: when the reset is sent, the byte dripped, the silence begun.

Source: the chaos proxy of the reliability note. In the moods that cut the answer, the server had executed 6 of 6
requests although the client saw an error.
"""

from __future__ import annotations

import contextlib
import random  # noqa: TID251 - chance from a seed is what weather is
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import anyio
import anyio.abc
from anyio.abc import SocketAttribute

from interfaces.world import World

LONG_S: Final = 3600.0
"""A silence that outlasts any patience."""

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Mood(StrEnum):
    CALM = "calm"
    LATENCY = "latency"
    """Each piece comes 50 to 300 ms late."""
    REFUSE = "refuse"
    """The connection is reset at once."""
    BLACKHOLE = "blackhole"
    """It is accepted, and then there is nothing."""
    RESET_AFTER = "reset-after"
    """The answer is cut, by a reset."""
    TRUNCATE = "truncate"
    """The answer is cut, by an end that looks orderly."""
    STALL = "stall"
    """The answer stops in the middle, and the connection stays open."""
    DRIP = "drip"
    """The answer comes seven bytes at a time."""


CUTS: Final = (Mood.RESET_AFTER, Mood.TRUNCATE, Mood.STALL)


@dataclass(slots=True)
class _Connection:
    mood: Mood
    cut_at: int
    """How many bytes of the answer pass before it is cut."""
    passed: int = 0


@dataclass
class ChaosProxy:
    """`await tasks.start(proxy.serve)` gives the port; its moods may be changed while it runs."""

    upstream: tuple[str, int]
    world: World
    seed: int | str
    moods: tuple[Mood, ...] = tuple(Mood)
    fired: Counter[Mood] = field(default_factory=Counter)
    plan: list[tuple[Mood, int]] = field(default_factory=list)
    """Mood and cut point of each connection so far."""

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}/proxy")  # noqa: S311 - a simulation's

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        """Proxy on a free port of loopback, until cancelled; `started` with the port."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        async with listener:
            port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not a database
            task_status.started(port)
            await listener.serve(self._handle)

    async def _handle(self, client: anyio.abc.SocketStream) -> None:
        mood = self._chance.choice(self.moods)
        connection = _Connection(mood, self._chance.randint(0, 120))
        self.plan.append((mood, connection.cut_at))
        async with client:
            with contextlib.suppress(*GONE, OSError):
                await self._treat(client, connection)

    async def _treat(self, client: anyio.abc.SocketStream, connection: _Connection) -> None:
        if connection.mood is Mood.REFUSE:
            self.fired[Mood.REFUSE] += 1
            _reset_on_close(client)
            return
        if connection.mood is Mood.BLACKHOLE:
            self.fired[Mood.BLACKHOLE] += 1
            await self.world.sleep(LONG_S)
            return
        if connection.mood is Mood.CALM:
            self.fired[Mood.CALM] += 1
        server = await anyio.connect_tcp(*self.upstream)
        async with server, anyio.create_task_group() as pumps:
            pumps.start_soon(self._up, client, server, pumps.cancel_scope)
            await self._down(server, client, connection)
            pumps.cancel_scope.cancel()

    async def _up(
        self,
        client: anyio.abc.SocketStream,
        server: anyio.abc.SocketStream,
        both: anyio.CancelScope,
    ) -> None:
        with contextlib.suppress(*GONE):
            while True:
                await server.send(await client.receive())
        both.cancel()

    async def _down(
        self,
        server: anyio.abc.SocketStream,
        client: anyio.abc.SocketStream,
        connection: _Connection,
    ) -> None:
        with contextlib.suppress(*GONE):
            while not await self._cut(client, connection, await server.receive()):
                pass

    async def _cut(
        self, client: anyio.abc.SocketStream, connection: _Connection, piece: bytes
    ) -> bool:
        """Pass a piece of the answer on, as the mood wants; True when that was the end of it."""
        mood = connection.mood
        left = connection.cut_at - connection.passed
        if mood in CUTS and len(piece) > left:
            await client.send(piece[: max(0, left)])
            self.fired[mood] += 1
            if mood is Mood.STALL:
                await self.world.sleep(LONG_S)
            if mood is Mood.RESET_AFTER:
                _reset_on_close(client)
            return True
        await self._pass(client, mood, piece)
        connection.passed += len(piece)
        return False

    async def _pass(self, client: anyio.abc.SocketStream, mood: Mood, piece: bytes) -> None:
        if mood is Mood.LATENCY:
            self.fired[mood] += 1
            await self.world.sleep(self._chance.uniform(0.05, 0.3))
        if mood is not Mood.DRIP:
            await client.send(piece)
            return
        self.fired[mood] += 1
        for begin in range(0, len(piece), 7):
            await client.send(piece[begin : begin + 7])
            await self.world.sleep(0.005)


def _reset_on_close(client: anyio.abc.SocketStream) -> None:
    raw = client.extra(SocketAttribute.raw_socket)  # noqa: S610 - not a database
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
