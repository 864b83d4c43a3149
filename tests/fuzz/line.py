"""The line between a device and Cloudly, which loses requests and answers, and who was told what over it."""

from __future__ import annotations

import json
import random  # noqa: TID251 - a trace is made from a seed
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

OK, CREATED = 200, 201


@dataclass
class Told:
    """What Cloudly has been told and has answered, as an observer on the line sees it."""

    newest_writer: str = ""
    writers: set[str] = field(default_factory=set)
    superseded_answered: int = 0
    """How often a superseded writer was not refused: must stay 0."""
    answers: Counter[str] = field(default_factory=Counter)
    heads: dict[tuple[str, str], int] = field(default_factory=dict)
    """By epoch and lane: the furthest head in a request that Cloudly took."""
    ends: set[tuple[str, str, str]] = field(default_factory=set)
    """Epoch, lane and hash of each of those heads."""

    def enrolled(self, status: int) -> None:
        """With a fresh token whoever has it is the node; the token of the other one is of no use any more."""
        self.answers[f"register {status}"] += 1
        if status == CREATED:
            self.writers.clear()

    def took(self, asked: dict[str, Any], status: int, code: str) -> None:
        self.answers[code or str(status)] += 1
        writer = asked.get("writer")
        if status != OK or not isinstance(writer, str):
            return
        heads = {(epoch, lane): seq for epoch, lane, seq, _ in _ends(asked)}
        behind = any(seq < self.heads.get(key, 0) for key, seq in heads.items())
        if writer in self.writers:
            self.superseded_answered += writer != self.newest_writer
        elif not behind:  # one that is behind succeeds nobody: it is late, or has lost its tail
            self.writers.add(writer)
            self.newest_writer = writer
        self.ends |= {(epoch, lane, end) for epoch, lane, _, end in _ends(asked)}
        for key, seq in heads.items():
            self.heads[key] = max(self.heads.get(key, 0), seq)


def _ends(asked: dict[str, Any]) -> Iterator[tuple[str, str, int, str]]:
    """How far a request says that its journal goes: epoch, lane, seq, hash."""
    if "lane" in asked:
        yield asked["epoch"], asked["lane"], asked["head"]["seq"], asked["head"]["hash"]
    for end in asked.get("reported", {}).get("journal", []):
        yield end["epoch"], end["lane"], end["seq"], end["hash"]


class Line(httpx.AsyncBaseTransport):
    """`inner` is replaced when Cloudly is restored. `badness` is the share of requests that something happens to."""

    def __init__(self, inner: httpx.AsyncBaseTransport, told: Told, rng: random.Random) -> None:
        self.inner = inner
        self.told = told
        self.rng = rng
        self.badness = 0.0
        self.cut = False
        self.fired: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut:
            self.fired["cut"] += 1
            raise httpx.ConnectError("cut")
        if self.rng.random() >= self.badness:
            return await self._pass(request)
        how = self.rng.choice(("request-lost", "answer-lost", "twice", "busy", "answer-torn"))
        self.fired[how] += 1
        match how:
            case "request-lost":
                raise httpx.ConnectTimeout("lost")
            case "busy":
                return httpx.Response(503, headers={"retry-after": "7"}, stream=_bytes(b""))
            case "twice":
                await self._pass(request)
                return await self._pass(request)
        answer = await self._pass(request)
        if how == "answer-torn":
            torn = (await answer.aread())[: self.rng.randrange(1, 40)]
            headers = {"content-type": answer.headers.get("content-type", "")}
            return httpx.Response(answer.status_code, headers=headers, stream=_bytes(torn))
        raise httpx.ReadError("lost")

    async def _pass(self, request: httpx.Request) -> httpx.Response:
        inner = self.inner
        try:
            answer = await inner.handle_async_request(request)
        except Exception:
            if self.inner is inner:
                raise
            raise httpx.ReadError("that server is gone") from None  # it was restored meanwhile
        body = await answer.aread()
        asked = json.loads(request.content)
        code = json.loads(body).get("code", "") if answer.status_code != OK else ""
        if request.url.path.endswith("/register"):
            self.told.enrolled(answer.status_code)
        else:
            self.told.took(asked, answer.status_code, code)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=_bytes(body))


def _bytes(content: bytes) -> httpx.ByteStream:
    return httpx.ByteStream(content)
