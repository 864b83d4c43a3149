"""What a node says: a heartbeat whose report has changed, and a batch of five facts; the client that says it.

The batch is the same for all nodes, because their epochs are: only the token differs, and it is in a header.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.heartbeats.fleet import EPOCH, WRITER, node_id, token
from journal.chain import genesis, link

EVENTS = 5
BOOT = "5f0c1e9e-6b57-4b0e-9a53-0c5a9d0f0001"


def batch(events: int = EVENTS, *, lane: str = "core") -> bytes:
    """Facts 1 to `events` of a lane, about 200 bytes each."""
    prev = start = genesis(EPOCH, lane)
    told = []
    for seq in range(1, events + 1):
        fact = {
            "seq": seq, "n": seq, "stream": "heartbeat/1" if lane == "log" else "enrollment/1",
            "kind": f"step-{seq}", "src": f"s{seq - 1}", "dst": f"s{seq}", "at_ms": 1_790_000_000_000 + seq,
            "boot_id": BOOT, "mono_ms": 1000 + seq, "skew_ms": 0,
            "data": json.dumps({"reason": "scheduled check, the window is open", "attempt": seq}),
        }  # fmt: skip
        prev = link(prev, lane=lane, **dict(fact))  # type: ignore[arg-type]
        told.append({**fact, "hash": prev.hex()})
    return json.dumps(
        {
            "epoch": EPOCH, "lane": lane, "prev_hash": start.hex(), "events": told,
            "head": {"seq": events, "hash": prev.hex()}, "oldest": 1, "writer": WRITER,
        }
    ).encode()  # fmt: skip


def heartbeat(number: int, *, said: str = "news") -> bytes:
    return json.dumps(
        {
            "node_id": node_id(number), "epoch": EPOCH, "writer": WRITER, "agent_version": "0.1.0",
            "sent_at_ms": 1_790_000_000_000,
            "reported": {
                "observed_generation": 0, "uptime_s": 1234.5, "boot_id": BOOT, "clock": "trusted",
                "host_os_version": f"balenaOS 6.5.1 {said}", "addresses": ["10.1.2.3"],
                "supervisor": {"available": True, "version": "19.0.5"},
                "memory": {"total_bytes": 4_000_000_000, "free_bytes": 1_000_000_000},
                "disk": {"total_bytes": 32_000_000_000, "free_bytes": 10_000_000_000},
                "temperature_c": 51.5,
            },
        }
    ).encode()  # fmt: skip


class Client:
    """One connection that is kept; HTTP by hand."""

    async def connect(self, port: int) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def post(self, what: str, number: int, body: bytes) -> int:
        head = (
            f"POST /baseos/v1/nodes/{what} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {token(number)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        raw = await self._reader.readuntil(b"\r\n\r\n")
        at = raw.lower().index(b"content-length: ") + 16
        await self._reader.readexactly(int(raw[at : raw.index(b"\r", at)]))
        return int(raw[9:12])

    def close(self) -> None:
        self._writer.close()


@dataclass
class Took:
    """Seconds of each request, from when it was to be sent."""

    heartbeats: list[float] = field(default_factory=list)
    journals: list[float] = field(default_factory=list)

    @property
    def both(self) -> list[float]:
        return sorted(self.heartbeats + self.journals)


def percentile(sorted_s: list[float], share: float) -> float:
    return sorted_s[min(len(sorted_s) - 1, int(len(sorted_s) * share))] * 1000


class Say(Protocol):
    async def __call__(
        self, client: Client, number: int, took: Took, planned: float | None = None
    ) -> None: ...


def saying(journal: bytes | None, *, beats: bool = True) -> Say:
    """A node's turn: its heartbeat, then its batch."""

    async def say(client: Client, number: int, took: Took, planned: float | None = None) -> None:
        if beats:
            began = time.perf_counter() if planned is None else planned
            status = await client.post("heartbeat", number, heartbeat(number))
            took.heartbeats.append(time.perf_counter() - began)
            assert status == 200, status
        if journal is not None:
            began = time.perf_counter()
            status = await client.post("journal", number, journal)
            took.journals.append(time.perf_counter() - began)
            assert status == 200, status

    return say


async def closed_loop(port: int, nodes: Iterator[int], connections: int, say: Say) -> Took:
    """As fast as it goes."""
    took = Took()
    clients = [await Client().connect(port) for _ in range(connections)]

    async def work(client: Client) -> None:
        for number in nodes:
            await say(client, number, took)

    await asyncio.gather(*(work(client) for client in clients))
    for client in clients:
        client.close()
    return took
