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
from baserunner.trust import why_distrusted

M = TypeVar("M", bound=BaseModel)
MAX_ANSWER_BYTES = 1_048_576
TAIL_BYTES = 65_536
"""Of lines that come and come, so many bytes are held: twice that at most, and then the older half goes."""


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


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of an answer that may never end."""

    answer: Answer
    """Without a body."""
    lines: tuple[str, ...]
    dropped: int
    """So many lines came before these."""
    cut: str
    """Why it was not read to its end; empty: it was."""


async def read_tail(
    client: httpx.AsyncClient, request: httpx.Request, *, who: str, within_s: float
) -> Tail:
    """Send, and take the last lines of what comes within `within_s` seconds and MAX_ANSWER_BYTES.

    Raises Unreachable when nothing came, Malformed when it is no text. Only whole lines are given: a secret that is
    cut in two is not recognised any more.
    """
    request.headers["Accept-Encoding"] = "identity"
    answer, lines, cut = None, _LastLines(), f"it went on for more than {within_s:g} s"
    try:
        with anyio.move_on_after(within_s):
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                answer = _head_of(response, who)
                cut = await _drain(response, lines) if response.status_code < 300 else ""
            finally:
                await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        cut = f"it broke off: {_plain(error)}"
        if answer is None:
            raise Unreachable(f"{who} cannot be reached: {_plain(error)}") from None
    if answer is None:
        raise Unreachable(f"{who} gave no answer within {within_s:g} s")
    return Tail(answer, lines.whole(who, cut=bool(cut)), lines.dropped, cut)


def _head_of(response: httpx.Response, who: str) -> Answer:
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Malformed(f"{who} answered in an encoding that nobody asked for")
    media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    return Answer(who, response.status_code, media_type, response.headers.get("retry-after"), b"")


async def _drain(response: httpx.Response, lines: _LastLines) -> str:
    """Why the answer was left before its end; empty: it was not."""
    async for chunk in response.aiter_bytes():
        lines.add(chunk)
        if lines.taken > MAX_ANSWER_BYTES:
            return f"it went on for more than {MAX_ANSWER_BYTES} bytes"
    return ""


class _LastLines:
    """Bytes come, and only the last whole lines are kept."""

    def __init__(self) -> None:
        self.taken = 0
        self.dropped = 0
        self._kept = bytearray()
        self._inside_a_dropped_line = False

    def add(self, chunk: bytes) -> None:
        self.taken += len(chunk)
        if self._inside_a_dropped_line:
            _, newline, chunk = chunk.partition(b"\n")
            self._inside_a_dropped_line = not newline
        self._kept += chunk
        if len(self._kept) <= 2 * TAIL_BYTES:
            return
        end = self._kept.find(b"\n", len(self._kept) - TAIL_BYTES)
        self._inside_a_dropped_line = end < 0
        end = len(self._kept) if end < 0 else end + 1
        self.dropped += self._kept.count(b"\n", 0, end) + self._inside_a_dropped_line
        del self._kept[:end]

    def whole(self, who: str, *, cut: bool) -> tuple[str, ...]:
        """The lines. Raises Malformed when they are no text."""
        kept = bytes(self._kept)
        if cut:
            kept = kept[: kept.rfind(b"\n") + 1]
        if b"\0" in self._kept:
            raise Malformed(f"{who} answered with something that is no text")
        return tuple(kept.decode("utf-8", "replace").split("\n")) if kept else ()


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
    distrust = why_distrusted(error)
    if distrust is not None:
        return f"{distrust.seen}: {distrust.todo}"
    text = str(error) if isinstance(error, httpx.TransportError) else ""
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
