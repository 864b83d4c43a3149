"""A load balancer as plain as can be: each connection goes to the next server; one that refuses is passed over."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field

import anyio
import anyio.abc
from anyio.abc import SocketAttribute

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


@dataclass
class Balancer:
    """`await tasks.start(balancer.serve)` gives the port; `servers` may change while it runs."""

    servers: list[int]
    """Ports on loopback."""
    taken: Counter[int] = field(default_factory=Counter)
    """Connections that each server, by its place, has had."""
    refused: int = 0
    _next: int = 0

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        async with listener:
            task_status.started(listener.extra(SocketAttribute.local_port))  # noqa: S610 - not a database
            await listener.serve(self._handle)

    async def _handle(self, client: anyio.abc.SocketStream) -> None:
        async with client:
            server = await self._any()
            if server is None:
                return
            async with server, anyio.create_task_group() as pumps:
                pumps.start_soon(_pump, client, server, pumps.cancel_scope)
                await _pump(server, client, pumps.cancel_scope)

    async def _any(self) -> anyio.abc.SocketStream | None:
        for _ in self.servers:
            place = self._next % len(self.servers)
            self._next += 1
            try:
                server = await anyio.connect_tcp("127.0.0.1", self.servers[place])
            except OSError:
                self.refused += 1
            else:
                self.taken[place] += 1
                return server
        return None


async def _pump(
    source: anyio.abc.SocketStream, sink: anyio.abc.SocketStream, both: anyio.CancelScope
) -> None:
    with contextlib.suppress(*GONE):
        while True:
            await sink.send(await source.receive())
    both.cancel()
