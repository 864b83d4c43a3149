"""One bounded HTTP exchange: a deadline on all of it, a limit on the answer, no redirect followed.

Rules:
- A captive portal, a dripping or never-ending answer and a reset are one problem each, never a hang.
- No encoding is asked for and none is taken: 64 KiB of gzip unpack to 64 MiB, more than the agent may use.
- NaN and Infinity (and 1e999) are no numbers to wait for: an answer that holds one has another shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import anyio
import httpx
from pydantic import BaseModel, ValidationError

from baserunner.problems import Malformed, Unreachable

M = TypeVar("M", bound=BaseModel)
MAX_ANSWER_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer read to its end."""

    who: str
    status: int
    media_type: str
    retry_after: str | None
    body: bytes

    def read(self, model: type[M]) -> M:
        """The body as a model. Raises Malformed, without the body."""
        if self.media_type not in {"application/json", "application/problem+json"}:
            raise Malformed(
                f"{self.who} answered {self.status} with {self.media_type or 'no media type'} where JSON was agreed: "
                "a captive portal or proxy in between?"
            )
        try:
            read = model.model_validate_json(self.body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))[:200] or "the body"
            raise self._of_another_shape(f"{where}: {first['type']}") from None
        if not _all_finite(read.model_dump()):
            raise self._of_another_shape("a number that is none")
        return read

    def _of_another_shape(self, how: str) -> Malformed:
        return Malformed(f"{self.who} answered {self.status} with JSON of another shape: {how}")


async def exchange(
    client: httpx.AsyncClient, request: httpx.Request, *, who: str, within_s: float
) -> Answer:
    """Send and read, all within `within_s` seconds. Raises Unreachable or Malformed."""
    request.headers["Accept-Encoding"] = "identity"
    try:
        with anyio.fail_after(within_s):
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                body = await _bounded_body(response, who)
            finally:
                await response.aclose()
    except TimeoutError:
        raise Unreachable(f"{who} gave no whole answer within {within_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise Unreachable(f"{who} cannot be reached: {_plain(error)}") from None
    return Answer(
        who=who,
        status=response.status_code,
        media_type=response.headers.get("content-type", "").split(";")[0].strip().lower(),
        retry_after=response.headers.get("retry-after"),
        body=body,
    )


async def _bounded_body(response: httpx.Response, who: str) -> bytes:
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Malformed(f"{who} answered in an encoding that nobody asked for")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise Malformed(f"{who} answered with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _all_finite(value: object) -> bool:
    """Whether every number in it, however deep, is one."""
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_all_finite, value.values()))
        case list() | tuple():
            return all(map(_all_finite, value))
        case _:
            return True


def _plain(error: Exception) -> str:
    """The kind of error and its text; httpx's texts of these kinds hold no URL and no header."""
    text = str(error) if isinstance(error, httpx.TransportError) else ""
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
