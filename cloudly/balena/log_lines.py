"""What a Supervisor writes into its log stream, read line by line. Pure.

Rules (recorded in supervisor/backend, `log_lines`):
- A line of the Supervisor: `{"message", "isSystem": true, "timestamp": ms}`, and `isStdErr` where something failed.
  A line of a container: `{"message", "isStdErr", "timestamp", "serviceId"}`.
- Whatever comes instead is kept as text and marked so; no line raises.
- A credential of ours is taken out, wherever it was printed; so is the key that the stream itself came with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cloudly.logs import HIDDEN, redact
from cloudly.store.log_chunks import Line, Mark

LINE_BYTES = 64 * 1024
"""Of JSON. A Supervisor cuts messages at 10,000 characters, which are at most 60,000 bytes of JSON."""
TEXT_CHARS = 16_384
EARLIEST_MS, LATEST_MS = 0, 253_402_300_799_000
"""1970, where devices without a battery are, and the year 9999, where datetime ends."""
MOST_ID = 2**53


class Splitter:
    """Bytes into lines; of one that is too long only the beginning is held."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._over = 0

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, int]]:
        """Each line that ended, without its end, and how many bytes of it were left out."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._hold(part)
            yield self._take()
        self._hold(rest)

    def finish(self) -> tuple[bytes, int] | None:
        """What came after the last end of a line."""
        return self._take() if self._rest else None

    def _hold(self, part: bytes) -> None:
        room = self._limit - len(self._rest)
        self._rest += part[:room]
        self._over += max(0, len(part) - room)

    def _take(self) -> tuple[bytes, int]:
        line = bytes(self._rest), self._over
        self._rest.clear()
        self._over = 0
        return line


def parse(line: bytes, now_ms: int, *, over: int = 0, secret: str = "") -> Line | None:
    """The line as it is kept; None where it is blank. `over`: so many bytes of it are missing."""
    if not line or line.isspace():
        return None
    said = None if over else _object(line)
    if said is None:
        text, cut = _text(line.decode(errors="replace"), secret, over=over)
        return Line(now_ms, None, None, Mark.ODD | cut, text)
    message = said.get("message")
    odd = Mark.NONE if isinstance(message, str) else Mark.ODD
    text, cut = _text(message if isinstance(message, str) else _as_text(said), secret)
    marks = odd | cut
    if said.get("isSystem") is True:
        marks |= Mark.SYSTEM
    if said.get("isStdErr") is True:
        marks |= Mark.STDERR
    at_ms = _whole(said.get("timestamp"), EARLIEST_MS, LATEST_MS)
    return Line(now_ms, at_ms, _whole(said.get("serviceId"), 0, MOST_ID), int(marks), text)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError too
        return None
    return said if isinstance(said, dict) else None


def _as_text(said: dict[str, Any]) -> str:
    try:
        return json.dumps(said, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "{…}"


def _whole(value: object, least: int, most: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        return None
    return int(value) if least <= value <= most else None


def _text(text: str, secret: str, *, over: int = 0) -> tuple[str, Mark]:
    """Without what must not be kept: half characters, credentials, and more than a page can show."""
    if not text.isascii():
        text = text.encode(errors="replace").decode()  # half a surrogate pair has no UTF-8
    text = redact(text)
    if secret and secret in text:
        text = text.replace(secret, HIDDEN)
    missing = max(0, len(text) - TEXT_CHARS) + over
    if not missing:
        return text.rstrip("\r\n"), Mark.NONE
    return f"{text[:TEXT_CHARS]}[… {missing} more]", Mark.CUT
