"""Receivers of webhooks for stories: an application under virtual time, and a real server on loopback that misbehaves.

`verified` is written from the public specification (Standard Webhooks 1.0.0), and knows nothing of our signing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from interfaces.world import World


def verified(secret: str, headers: dict[str, str], body: bytes, *, now_s: float) -> dict[str, Any]:
    """The event, if it is from who has the secret and is not old."""
    at = headers["webhook-timestamp"]
    assert abs(now_s - int(at)) < 300, "too old, or of the future"
    key = base64.b64decode(secret.split("_", 1)[1])
    message = b".".join([headers["webhook-id"].encode(), at.encode(), body])
    expected = base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()
    versions = [one.split(",", 1) for one in headers["webhook-signature"].split(" ")]
    assert any(
        version == "v1" and hmac.compare_digest(told, expected) for version, told in versions
    )
    event: dict[str, Any] = json.loads(body)
    return event


@dataclass
class Got:
    """One request that a receiver was sent."""

    id: str
    event: dict[str, Any]
    at_s: float
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return str(self.event["type"])


@dataclass
class Receiver:
    """An application that takes events, or answers what a story wants."""

    world: World
    secret: str = ""
    answer: Callable[[Got], int] = lambda _got: 204
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    hangs_s: float = 0.0
    got: list[Got] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in self.got]

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.got]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message: Message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        now_s = self.world.now().timestamp()
        got = Got(
            headers["webhook-id"], verified(self.secret, headers, body, now_s=now_s), now_s, headers, body
        )  # fmt: skip
        self.got.append(got)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.hangs_s:
                await self.world.sleep(self.hangs_s)
        finally:
            self.open -= 1
        status = self.answer(got)
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"thanks"})


class Loopback:
    """A real server on a free port: each connection is answered by `behave`, in a thread of its own."""

    def __init__(self, behave: Callable[[socket.socket, dict[str, str], bytes], None]) -> None:
        self._behave = behave
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self.sent = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook"

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines:
            while True:
                request = lines.readline()
                if not request:
                    return
                headers: dict[str, str] = {}
                while (line := lines.readline().decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = lines.read(int(headers.get("content-length", "0")))
                self.got.append((headers, body))
                try:
                    self._behave(peer, headers, body)
                except OSError:
                    return


def answers(status: int, *more: str) -> Callable[[socket.socket, dict[str, str], bytes], None]:
    lines = [f"HTTP/1.1 {status} X", *more, "content-length: 2", "", "ok"]

    def behave(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
        peer.sendall("\r\n".join(lines).encode())

    return behave
