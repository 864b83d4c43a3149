"""Reading a request's body within bounds: of size, of time, and of what gzip may grow to.

A body is refused before it is parsed, and before the whole of it is here. The limit holds for what comes over the wire
and for what it grows to; a gzip body is one member and nothing after it.
"""

from __future__ import annotations

import zlib

import anyio
from starlette.requests import Request

from cloudly.problems import Refused

GZIP = 16 + zlib.MAX_WBITS  # zlib's own notation for "a gzip header"
DIGITS = 12  # of a Content-Length that is worth reading as a number


async def read_body(request: Request, *, limit: int, deadline_s: float) -> bytes:
    """The body, decompressed. Raises Refused (too-large, malformed, busy)."""
    declared = request.headers.get("content-length", "0")
    if len(declared) > DIGITS or (declared.isdecimal() and int(declared) > limit):
        raise _too_large(limit)
    unpack = _unpacker(request, limit)
    body, taken = bytearray(), 0
    try:
        with anyio.fail_after(deadline_s):
            async for chunk in request.stream():
                taken += len(chunk)
                if taken > limit:
                    raise _too_large(limit)
                body += unpack(chunk, limit + 1 - len(body))
                if len(body) > limit:
                    raise _too_large(limit)
        unpack.finish()
    except TimeoutError:
        raise Refused(
            "busy", f"The body was not whole after {deadline_s:g} s.", status=408
        ) from None
    except zlib.error:
        raise Refused(
            "malformed", "The body is not gzip, as its header says.", status=400
        ) from None
    return bytes(body)


def is_gzip(request: Request) -> bool:
    """How the body is written. Raises Refused (malformed) where it is a way that we do not read."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip"}:
        raise Refused("malformed", "Content-Encoding must be gzip or absent.", status=415)
    return encoding == "gzip"


class Gunzip:
    """One gzip member, a step at a time: no step gives more than there is room for. Raises zlib.error."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(GZIP)

    @property
    def has_ended(self) -> bool:
        return self._inflate.eof

    def step(self, chunk: bytes, room: int) -> tuple[bytes, bytes]:
        """What it grows to, and what of the chunk is left for the next step. `room`: at least 1."""
        if chunk and self._inflate.eof:
            raise zlib.error("more comes after its end")
        unpacked = self._inflate.decompress(chunk, room)
        if self._inflate.unused_data:
            raise zlib.error("more comes after its end")
        return unpacked, self._inflate.unconsumed_tail


def _unpacker(request: Request, limit: int) -> _Plain | _Whole:
    return _Whole(limit) if is_gzip(request) else _Plain()


class _Plain:
    def __call__(self, chunk: bytes, _room: int) -> bytes:
        return chunk

    def finish(self) -> None:
        """Whatever came is whole."""


class _Whole:
    """A gzip body that must fit."""

    def __init__(self, limit: int) -> None:
        self._gunzip = Gunzip()
        self._limit = limit

    def __call__(self, chunk: bytes, room: int) -> bytes:
        unpacked, rest = self._gunzip.step(chunk, room)
        if rest:
            raise _too_large(self._limit)
        return unpacked

    def finish(self) -> None:
        if not self._gunzip.has_ended:
            raise zlib.error("it ends early")


def _too_large(limit: int) -> Refused:
    return Refused("too-large", f"At most {limit} bytes are taken.")
