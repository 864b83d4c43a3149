"""Around every request: its id, for the log and for who asked; its end, for the metrics; the headers of all answers.

Rules:
- An id comes from who asks (`X-Request-Id`) if it could be one, and is ours otherwise; the answer carries it.
- It is in the path of every heartbeat: 5 us at most (`benchmarks/watched.py`). No log line per request.
"""

from __future__ import annotations

import re
from itertools import count

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudly.http.headers import HEADERS
from cloudly.logs import ASKED, Asked
from cloudly.metrics.requests import NOWHERE, Requests
from interfaces.world import World

NAME = b"x-request-id"
USABLE = re.compile(rb"[A-Za-z0-9._-]{8,64}")
FAILED = 500
GONE = 499
"""Nothing was answered: who asked had gone (nginx's number for it)."""


class Watched:
    """Plain ASGI (Starlette's BaseHTTPMiddleware would cost a task and a stream per request); the outermost of ours."""

    def __init__(self, app: ASGIApp, world: World, requests: Requests) -> None:
        self._app = app
        self._now_s = world.monotonic
        self._ended = requests.ended
        self._prefix = world.random_bytes(6).hex() + "-"
        self._numbers = count(1)
        self._paths: dict[object, str] = {}
        """Template by endpoint: as many as there are routes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = self._now_s(), GONE
        request = self._id_of(scope)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS, (NAME, request.encode())]
            await send(message)

        before = ASKED.set(Asked(request))
        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = FAILED
            raise
        finally:
            ASKED.reset(before)
            path = self._paths.get(scope.get("endpoint")) or self._path_of(scope)
            self._ended(path, status, self._now_s() - began_s)

    def _path_of(self, scope: Scope) -> str:
        """The template of the route that took a request; Starlette leaves its endpoint, FastAPI the route itself."""
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return NOWHERE
        route = scope.get("route")
        if route is None:
            routes = (one for one in scope["router"].routes if isinstance(one, Route))
            route = next((one for one in routes if one.endpoint == endpoint), None)
        if route is not None:
            self._paths[endpoint] = route.path
        return self._paths.get(endpoint, NOWHERE)

    def _id_of(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == NAME and USABLE.fullmatch(value):
                return str(value, "ascii")
        return f"{self._prefix}{next(self._numbers):x}"
