"""The manners of the Supervisor's web server (Express): content types, weak ETags, 304, its 404 page, its body parser.

Rules:
- Every body gets `ETag: W/"<length in hex>-<sha1 in base64, 27 characters>"`; so does the empty 204, whose ETag is
  that of the words `No Content`. The 404 page gets none.
- A GET whose `If-None-Match` names the ETag is answered by 304 without content type.
- JSON keeps its keys in the order they were written.

Source: checked against all 408 recorded answers that have an ETag.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

JSON: Final = "application/json; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"

NOT_FOUND_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Error</title>
</head>
<body>
<pre>Cannot {method} {path}</pre>
</body>
</html>
"""


class BadBodyError(Exception):
    """The body is not the JSON it claims to be. The message is the JavaScript engine's."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    content_type: str | None = None
    etag: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def to(self, request: Request) -> Response:
        """As a response to this request: 304 when it has this body already, no body to a HEAD."""
        if self.etag and request.method in {"GET", "HEAD"} and self._known_to(request):
            return Response(status_code=304, headers={"etag": self.etag})
        headers = dict(self.headers)
        if self.content_type:
            headers |= {"content-type": self.content_type, "content-length": str(len(self.body))}
        if self.etag:
            headers["etag"] = self.etag
        body = b"" if request.method == "HEAD" else self.body
        return Response(body or None, status_code=self.status, headers=headers)

    def _known_to(self, request: Request) -> bool:
        held = request.headers.get("if-none-match", "")
        return self.status == 200 and self.etag in [tag.strip() for tag in held.split(",")]


def etag_of(body: bytes) -> str:
    digest = base64.b64encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()
    return f'W/"{len(body):x}-{digest[:27]}"'


def send_json(value: object, status: int = 200) -> Answer:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status, body, JSON, etag_of(body))


def send_html(value: str, status: int = 200) -> Answer:
    """What Express makes of a string."""
    return Answer(status, value.encode(), HTML, etag_of(value.encode()))


def send_text(value: str, status: int = 200) -> Answer:
    """What Express makes of a bare status."""
    return Answer(status, value.encode(), TEXT, etag_of(value.encode()))


def no_content() -> Answer:
    return Answer(204, etag=etag_of(b"No Content"))


def failed(message: str, status: int) -> Answer:
    return send_json({"status": "failed", "message": message}, status)


def cannot(method: str, path: str) -> Answer:
    page = NOT_FOUND_PAGE.format(method=method, path=html.escape(path)).encode()
    headers = {
        "content-security-policy": "default-src 'none'",
        "x-content-type-options": "nosniff",
    }
    return Answer(404, page, HTML, headers=headers)


async def body_of(request: Request) -> dict[str, Any]:
    """The parsed body; empty for a type that nobody parses.

    Raises:
        BadBodyError: it says it is JSON, and is not.

    """
    raw = (await request.body()).decode("utf-8", "replace")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" and raw:
        parsed = _parsed(raw)
        return parsed if isinstance(parsed, dict) else {}
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(raw))
    return {}


def _parsed(raw: str) -> object:
    if not raw.lstrip().startswith(("{", "[")):
        raise BadBodyError(
            f"Unexpected token '{raw.lstrip()[:1]}', \"{raw[:10]}\" is not valid JSON"
        )
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        where = f"at position {error.pos} (line {error.lineno} column {error.colno})"
        if error.msg.startswith("Expecting property name"):
            raise BadBodyError(f"Expected property name or '}}' in JSON {where}") from None
        raise BadBodyError(f"Unexpected token in JSON {where}") from None


def truthy(value: object) -> bool:
    """What the Supervisor takes for yes in a body: true, "true", 1, "1", "on"."""
    return value is True or value in ("true", "1", "on") or (value == 1 and value is not True)
