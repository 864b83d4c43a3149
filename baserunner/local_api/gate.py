"""Who is let in: every request is judged by its headers before a route, or a byte of its body, is looked at.

Rules:
- The capability token always, in constant time. Who does not have it learns nothing else.
- A browser is no neighbour: `Origin` and `Referer` are refused, and so is a `Host` that is not ours (DNS rebinding).
- A body is bounded before it is read, and again while it is.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from pydantic import SecretStr
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from baserunner.local_api.answers import Refusal, refused
from baserunner.local_api.table import MOST_BODY_BYTES
from interfaces.local import HOST

FROM_A_BROWSER = ("origin", "referer")
DIGITS = 12  # of a Content-Length that is worth reading as a number


class Gate:
    """Before `app`. `token`: this boot's. `tell`: told why somebody was refused."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: SecretStr,
        port: int | None,
        tell: Callable[[str, Scope], None],
    ) -> None:
        self._app = app
        self._expected = f"Bearer {token.get_secret_value()}".encode()
        self._port = port
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self._judge(scope)
        except Refusal as refusal:
            self._tell(refusal.problem.code, scope)
            await refused(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _judge(self, scope: Scope) -> None:
        if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
            raise Refusal(400, "malformed", "There are two Authorization headers.")
        headers = Request(scope).headers
        for name in FROM_A_BROWSER:
            if name in headers:
                raise Refusal(403, "not-allowed", f"A request with {name.title()} is refused.")
        if headers.get("host", "") not in self._hosts(scope):
            raise Refusal(403, "not-allowed", f"This is not {HOST}: see the Host header.")
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._expected):
            raise Refusal(
                401,
                "token-unknown",
                "Send the capability token of this boot: Authorization: Bearer, from the file beside the socket.",
            )
        declared = headers.get("content-length", "0")
        if len(declared) > DIGITS or (declared.isdecimal() and int(declared) > MOST_BODY_BYTES):
            raise too_large()

    def _hosts(self, scope: Scope) -> tuple[str, ...]:
        if scope["state"]["uid"] is not None:
            return (HOST, "localhost")
        return (f"127.0.0.1:{self._port}", f"localhost:{self._port}")


async def read_body(request: Request) -> bytes:
    """All of it. Raises Refusal when it is too large, or not JSON by its own word."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "malformed", "The body must be application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise too_large()
    return bytes(body)


def too_large() -> Refusal:
    return Refusal(413, "too-large", f"At most {MOST_BODY_BYTES} bytes are taken.")
