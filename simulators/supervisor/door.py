"""The door of the local API: who may come in, and what a path means.

Rules, each recorded:
- Only `GET /ping` and `GET /v1/healthy` are open; anything else, unknown paths included, is 401 text/plain.
- A non-empty `?apikey=` (exact lower case) wins over `Authorization: Bearer K` or `ApiKey K`; nothing else counts.
- Without a backend, and in local mode, nobody is asked.
- Paths do not mind case or a trailing slash.
- While the host is down nobody answers: no connection.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from simulators.supervisor.express import Answer, send_text

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

OPEN: Final = (("GET", "/ping"), ("HEAD", "/ping"), ("GET", "/v1/healthy"), ("HEAD", "/v1/healthy"))
AUTHORIZATION: Final = re.compile(r"^(?:ApiKey|Bearer) (\w+)$", re.IGNORECASE)
ASKED_PATH: Final = "supervisor.path"
ACCESS: Final = "supervisor.access"


@dataclass(frozen=True, slots=True)
class Access:
    """What a key opens: everything, or what is of one app."""

    service: tuple[int, str] | None = None
    """(app id, service name) whose key it is; None opens everything."""

    def may(self, app_id: int) -> bool:
        return self.service is None or self.service[0] == app_id


class Door:
    def __init__(self, supervisor: Supervisor, inside: ASGIApp) -> None:
        self._supervisor = supervisor
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inside(scope, receive, send)
            return
        if not self._supervisor.alive:
            raise httpx.ConnectError("All connection attempts failed")
        asked: str = scope["path"]
        path = asked.lower().rstrip("/") or "/"
        request = Request(scope, receive)
        access = self._access(request)
        if access is None and (request.method, path) not in OPEN:
            await _unauthorized().to(request)(scope, receive, send)
            return
        inner = {**scope, "path": path, ASKED_PATH: asked, ACCESS: access or Access()}
        await self._inside(inner, receive, send)

    def _access(self, request: Request) -> Access | None:
        """What the key of this request opens; None without a key that fits."""
        if self._supervisor.local_mode:
            return Access()
        key = _key(request)
        kept = self._supervisor.kept
        if _equal(key, kept.global_key):
            return Access()
        for service, held in kept.service_keys.items():
            if _equal(key, held):
                return Access(service)
        return None


def access_of(request: Request) -> Access:
    """What the caller of a request that came through the door may do."""
    access: Access = request.scope[ACCESS]
    return access


def _key(request: Request) -> str:
    in_query = request.query_params.get("apikey", "")
    if in_query:
        return in_query
    match = AUTHORIZATION.match(request.headers.get("authorization", ""))
    return match.group(1) if match else ""


def _equal(key: str, held: str) -> bool:
    return hmac.compare_digest(key.encode(), held.encode())


def _unauthorized() -> Answer:
    return send_text("Unauthorized", 401)
