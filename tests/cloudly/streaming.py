"""Senders of log streams: one through ASGI under virtual time, one over a real socket as a Supervisor does it."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.types import Message

from cloudly.store import log_reading
from cloudly.store.log_chunks import Kept, Line
from cloudly.store.log_file import open_to_read
from tests.cloudly.given import UUID, Plane, bearer

KEY = "5016ddb664b64d5685d6560d4ec35bef"


def said(message: str, service: int | None = 501, **changes: Any) -> dict[str, Any]:
    """A line as a Supervisor writes it."""
    kind = {"isSystem": True} if service is None else {"isStdErr": False, "serviceId": service}
    return {"message": message, "timestamp": 1795401546213} | kind | changes


def ndjson(lines: Iterable[object]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


class Packer:
    """gzip as a Supervisor writes it: flushed after each message, one member."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=31)

    def pack(self, raw: bytes) -> bytes:
        return self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._deflate.flush()


async def register(plane: Plane, uuid: str = UUID, key: str = KEY) -> None:
    answer = await plane.client.post(
        "/device/register", json={"uuid": uuid, "api_key": key}, headers=bearer(plane.join_token())
    )
    assert answer.status_code == 201, answer.text


async def exchange(plane: Plane, key: str) -> None:
    """The first device that registered gets another key, as a Supervisor does it."""
    headers, asked = bearer(plane.join_token()), {"$filter": f"uuid eq '{UUID}'"}
    await plane.client.get("/v7/device", params=asked, headers=headers)
    answer = await plane.client.post(
        "/api-key/device/1/device-key", json={"apiKey": key}, headers=headers
    )
    assert answer.status_code == 200, answer.text


def kept(directory: Path, node_id: str = UUID) -> list[Line]:
    """What the file has of a node, oldest first."""
    return [one.line for one in places(directory, node_id)]


def places(directory: Path, node_id: str = UUID) -> list[Kept]:
    db = open_to_read(directory)
    if db is None:
        return []
    try:
        pieces = log_reading.pieces(db, node_id, log_reading.Wanted())
        return [one for piece in pieces for one in piece.lines][::-1]
    finally:
        db.close()


def texts(directory: Path, node_id: str = UUID) -> list[str]:
    return [line.text for line in kept(directory, node_id)]


@dataclass
class Stream:
    """A log stream through ASGI: like a server, it holds what the application has not read yet."""

    app: Starlette
    uuid: str = UUID
    key: str = KEY
    peer: str = "192.0.2.1"
    encoding: str = "gzip"
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reads: int = 0

    def __post_init__(self) -> None:
        self.packer = Packer()
        self._messages: deque[Message] = deque()
        self._news = anyio.Event()
        self.done = anyio.Event()

    def send(self, *lines: object) -> None:
        self.send_raw(ndjson(lines))

    def send_raw(self, raw: bytes) -> None:
        self.put(self.packer.pack(raw) if self.encoding == "gzip" else raw)

    def put(self, body: bytes, *, more: bool = True) -> None:
        self._messages.append({"type": "http.request", "body": body, "more_body": more})
        self._news.set()

    def end(self) -> None:
        self.put(self.packer.end() if self.encoding == "gzip" else b"", more=False)

    def vanish(self) -> None:
        self._messages.append({"type": "http.disconnect"})
        self._news.set()

    @property
    def unread(self) -> int:
        return len(self._messages)

    async def _receive(self) -> Message:
        while not self._messages:
            self._news = anyio.Event()
            await self._news.wait()
        self.reads += 1
        return self._messages.popleft()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def run(self) -> None:
        headers = [(b"authorization", b"Bearer " + self.key.encode())] if self.key else []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https",
            "path": f"/device/v2/{self.uuid}/log-stream", "raw_path": b"", "query_string": b"", "root_path": "",
            "headers": [*headers, (b"content-encoding", self.encoding.encode())],
            "client": (self.peer, 1), "server": ("cloudly", 443), "state": {},
        }  # fmt: skip
        try:
            await self.app(scope, self._receive, self._send)
        finally:
            self.done.set()


class Socket:
    """A log stream over a real socket, byte for byte what Node's https client sends, without the TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.packer = Packer()

    @classmethod
    async def open(cls, port: int, uuid: str = UUID, key: str = KEY) -> Socket:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /device/v2/{uuid}/log-stream HTTP/1.1\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n"
            f"Host: 127.0.0.1:{port}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        return cls(reader, writer)

    def send(self, *lines: object) -> None:
        self.chunk(self.packer.pack(ndjson(lines)))

    def chunk(self, body: bytes) -> None:
        self.writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")

    def end(self) -> None:
        self.chunk(self.packer.end())
        self.writer.write(b"0\r\n\r\n")

    async def answer(self) -> bytes:
        """All that the server says until it closes."""
        return await self._reader.read()

    async def is_silent(self, seconds: float) -> bool:
        """Whether not a byte came within that time."""
        with anyio.move_on_after(seconds):
            return not await self._reader.read(1) and False
        return True

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
