"""A backend made of a recording: it answers what was recorded, and complains of what the real Supervisor had not asked.

Rules:
- What the Supervisor writes (registers, tells, reports) must be the next thing that the recording has, in its shape.
- It may look at its target at any time, with the ETag that it was given last. The target changes when the test says so
  (`go_on`), as the recorded operator did.
- The log stream and the engine's questions for tokens run beside that, in their own time; they are checked alone.
- Metrics alone may be reported at any time: when, depends on what else the recorded machine did.
- What differs from run to run (keys, ids, metrics, progress) is taken out by one function: `steady`.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from tests.simulators.lab import RECORDINGS

METRICS: Final = ("cpu_usage", "memory_usage", "memory_total", "cpu_temp", "storage_block_device")
SECRETS: Final = ("api_key", "apiKey", "api_secret")
JOIN_TOKEN: Final = "bjt_canary"
HEX_ID: Final = re.compile(r"\b[0-9a-f]{32}\b")
IN_PATH: Final = re.compile(r"(?<=%27|../)[0-9a-f]{32}(?=%27|/)")

Row = dict[str, Any]


def recorded_rows(name: str, first: int = 1, last: int = 10_000) -> list[Row]:
    rows = json.loads((RECORDINGS / "backend" / f"{name}.json").read_text())
    return [row for row in rows if first <= row["seq"] <= last]


def kind_of(method: str, path: str) -> str:
    """What a request is, whoever asks: `GET state`, `PATCH report`, ..."""
    bare = path.partition("?")[0]
    for sign, kind in (
        ("/log-stream", "logs"),
        ("/auth/v1/token", "token"),
        ("/device/register", "register"),
        ("/v7/device_config_variable", "variable"),
        ("/v7/device_tag", "tags"),
        ("/device-key", "exchange"),
        ("/v7/device(", "name"),
        ("/v7/device", "look up"),
        ("/device/v3/state", "report"),
        ("/device/v3/tags", "told tags"),
    ):
        if sign in bare:
            return f"{method} {kind}"
    return f"{method} state" if bare.endswith("/state") else f"{method} {bare}"


def steady(body: Any) -> Any:
    """A body without what differs from run to run. Metrics go, except from the report that has everything."""
    if isinstance(body, list):
        return [steady(inner) for inner in body]
    if not isinstance(body, dict):
        return HEX_ID.sub("<id>", body) if isinstance(body, str) and len(body) == 32 else body
    whole = "ip_address" in body
    told: dict[str, Any] = {}
    for key, value in body.items():
        name = (
            "<uuid>" if HEX_ID.fullmatch(key) and "apps" not in key and _is_device(value) else key
        )
        if key in METRICS:
            if whole:
                told[name] = f"<{type(value).__name__}>"
        elif key in SECRETS:
            told[name] = "<secret>"
        elif key == "download_progress":
            told[name] = "<progress>"
        else:
            told[name] = steady(value)
    return told


def _is_device(value: object) -> bool:
    return isinstance(value, dict) and "releases" not in value and "update_status" not in value


def _is_metrics(body: dict[str, Any]) -> bool:
    reported = next(iter(body.values()))
    return bool(reported) and all(name in METRICS for name in reported)


def written(rows: Iterable[Row]) -> list[Row]:
    """What the Supervisor wrote in a recording, one row for each time."""
    kinds = ("GET state", "POST logs", "GET token", "GET tags")
    rows = [row for row in rows if kind_of(*_asked(row)) not in kinds]
    return [row for row in rows for _ in range(row.get("repeated") or 1)]


def order(asked: Iterable[str]) -> list[str]:
    """Requests in order; looking at the target several times in a row is the same as once."""
    told: list[str] = []
    for kind in asked:
        if kind in ("POST logs", "GET token", "GET tags"):
            continue
        if kind != "GET state" or told[-1:] != [kind]:
            told.append(kind)
    return told


def recorded_order(rows: Iterable[Row]) -> list[str]:
    kinds = [(kind_of(*_asked(row)), row.get("repeated") or 1) for row in rows]
    return order(kind for kind, times in kinds for _ in range(times))


def _asked(row: Row) -> tuple[str, str]:
    return row["request"]["method"], row["request"]["path"]


def in_order_of_time(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: int(line["timestamp"]))


@dataclass
class Stream:
    """One connection of the log stream."""

    at_s: float
    key: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    ended_s: float | None = None


class RecordedBackend:
    """An ASGI app. `complaints` is empty as long as the Supervisor does what the real one did."""

    def __init__(self, rows: list[Row], clock: Any) -> None:
        self._clock = clock
        self._writes = written(rows)
        self._targets = [
            row["response"]
            for row in rows
            if kind_of(*_asked(row)) == "GET state" and row["response"]["status"] == 200
        ]
        self._tokens = {
            scope_of(row["request"]["path"]): row["response"]
            for row in rows
            if kind_of(*_asked(row)) == "GET token"
        }
        self._target = 0
        self._given: str | None = None
        self.asked: list[str] = []
        """What was asked, in order (`kind_of`)."""
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        """Method, raw path, headers, body."""
        self.at_s: list[float] = []
        self.streams: list[Stream] = []
        self.complaints: list[str] = []
        self.device_key: str | None = None
        self.tokens: list[str] = []
        """The scopes that were asked for."""
        self.tag_rows: list[dict[str, Any]] = []
        self.refuse_state: tuple[int, dict[str, str]] | None = None
        """Answer every look at the target with this status and these headers."""
        self.refuse_tokens = 0
        """Answer every question for a token with this status."""
        self.refuse_logs = 0
        """Answer every log stream at once with this status."""
        self.cut_logs = False

    @property
    def left(self) -> list[str]:
        """What was recorded and has not been asked yet."""
        return [kind_of(*_asked(row)) for row in self._writes]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for stream in self.streams for line in stream.lines]

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.ASGITransport(self)

    def go_on(self) -> None:
        """From now on the next recorded target is served."""
        self._target += 1

    def skip_to(self, rows: list[Row]) -> None:
        """Whatever was left is not asked for; these rows are what is expected now. The target stays."""
        other = RecordedBackend(rows, self._clock)
        self._writes = other._writes
        self._targets = [self._targets[self._target], *other._targets]
        self._tokens |= other._tokens
        self._target = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = scope["query_string"].decode()
        path = scope["raw_path"].decode() + (f"?{query}" if query else "")
        kind = kind_of(request.method, path)
        self.asked.append(kind)
        self.at_s.append(self._clock())
        if kind == "POST logs":
            await (await self._logs(request))(scope, receive, send)
            return
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, path, dict(request.headers), body))
        match kind:
            case "GET state":
                answer = self._state(request)
            case "GET token":
                answer = self._token(request, path)
            case "GET tags":
                answer = JSONResponse({"d": self.tag_rows})
            case "PATCH told tags":
                answer = PlainTextResponse("OK")
            case _:
                answer = self._write(kind, path, request, body)
        await answer(scope, receive, send)

    def _state(self, request: Request) -> Response:
        if self.refuse_state is not None:
            status, headers = self.refuse_state
            return JSONResponse({"error": "forced"}, status, headers=headers)
        seen = request.headers.get("if-none-match")
        if seen != self._given:
            self.complaints.append(f"the target was asked for with ETag {seen}, not {self._given}")
        target = self._targets[self._target]
        tag = self._given = target["headers"]["ETag"]
        if seen == tag:
            return Response(status_code=304, headers={"etag": tag})
        return JSONResponse(target["body"], headers={"etag": tag})

    def restarted(self) -> None:
        """The Supervisor has started again: it knows no ETag."""
        self._given = None

    def _write(self, kind: str, path: str, request: Request, body: Any) -> Response:
        if kind == "POST register":
            self.device_key = body["api_key"]
        if kind == "PATCH report" and _is_metrics(body) and not self._is_next(kind, body):
            return PlainTextResponse("OK")
        if not self._writes:
            self.complaints.append(f"{kind} {steady(body)}: nothing of the kind was recorded here")
            return PlainTextResponse("OK")
        row = self._writes[0]
        recorded = row["request"]
        if not self._is_next(kind, body):
            expected = kind_of(*_asked(row)), steady(recorded["body"] or None)
            self.complaints.append(f"asked {kind} {steady(body)}, recorded was {expected}")
        else:
            self._writes.pop(0)
            self._check_way(path, request, recorded)
            if row.get("repeated") is None:
                self._check_key(path, request, recorded)
        return _answer(row["response"])

    def _is_next(self, kind: str, body: Any) -> bool:
        """Whether this is what the recording has next."""
        if not self._writes:
            return False
        row = self._writes[0]
        return (kind, steady(body)) == (
            kind_of(*_asked(row)),
            steady(row["request"]["body"] or None),
        )

    def _check_way(self, path: str, request: Request, recorded: dict[str, Any]) -> None:
        """Path and headers."""
        if IN_PATH.sub("<id>", path) != IN_PATH.sub("<id>", recorded["path"]):
            self.complaints.append(f"asked at {path}, recorded was {recorded['path']}")
        wanted = {name.lower(): value for name, value in recorded["headers"]}
        for name in ("user-agent", "content-type"):
            if name in wanted and request.headers.get(name) != wanted[name]:
                self.complaints.append(f"{name} of {path} is {request.headers.get(name)}")

    def _check_key(self, path: str, request: Request, recorded: dict[str, Any]) -> None:
        """With whose key. Of repeated rows only the first one's was recorded."""
        wanted = {name.lower(): value for name, value in recorded["headers"]}
        key = request.headers["authorization"].removeprefix("Bearer ")
        theirs_is_token = wanted["authorization"] == "Bearer provkey0123456789abcdef"
        if theirs_is_token is not (key == JOIN_TOKEN):
            self.complaints.append(f"{path} was asked with the wrong key")

    def _token(self, request: Request, path: str) -> Response:
        scope = scope_of(path)
        self.tokens.append(scope)
        account, _, key = (
            base64.b64decode(request.headers["authorization"].removeprefix("Basic "))
            .decode()
            .partition(":")
        )
        if parse_qs(path.partition("?")[2])["account"] != [account] or len(key) != 32:
            self.complaints.append(f"{path} was asked as {account}")
        if self.refuse_tokens:
            return JSONResponse({"details": "no"}, self.refuse_tokens)
        if scope not in self._tokens:
            self.complaints.append(f"a token was asked for {scope}")
            return JSONResponse({"details": "no"}, 403)
        return _answer(self._tokens[scope])

    async def _logs(self, request: Request) -> Response:
        headers = request.headers
        wanted = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
        if any(headers.get(name) != value for name, value in wanted.items()):
            self.complaints.append(f"a log stream with headers {dict(headers)}")
        stream = Stream(self._clock(), headers["authorization"].removeprefix("Bearer "))
        self.streams.append(stream)
        if self.refuse_logs:
            return JSONResponse({"error": "forced"}, self.refuse_logs)
        gzip, rest = zlib.decompressobj(wbits=31), b""
        try:
            async for chunk in request.stream():
                if self.cut_logs:
                    raise httpx.WriteError("cut")
                *lines, rest = (rest + gzip.decompress(chunk)).split(b"\n")
                stream.lines += [json.loads(line) for line in lines]
                stream.arrived_s += [self._clock()] * len(lines)
        except ClientDisconnect:
            return Response()
        if rest or not gzip.eof:
            self.complaints.append("a log stream ended in the middle of a line")
        stream.ended_s = self._clock()
        return Response(status_code=204)


def scope_of(path: str) -> str:
    return parse_qs(path.partition("?")[2])["scope"][0]


def _answer(recorded: dict[str, Any]) -> Response:
    headers = {name: value for name, value in recorded["headers"].items() if name != "Content-Type"}
    body, kind = recorded["body"], recorded["headers"].get("Content-Type", "text/plain")
    content = body if isinstance(body, str) and "json" not in kind else json.dumps(body)
    return Response(content, recorded["status"], headers=headers, media_type=kind)
