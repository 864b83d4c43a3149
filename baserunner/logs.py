"""The log: the commentary to the journal's story. One event a line, lower-case, named values, never a secret.

A message stays one line: what came from a neighbour cannot end it and forge the next.

Redaction happens in the formatter, so that it covers messages, arguments and tracebacks alike. It knows the live
secrets by value and the tokens by their form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

TOKENS = re.compile(
    r"\b(b[jn]t_)[A-Za-z0-9_-]{6,}|((?:Bearer|ApiKey|Basic)\s+)\S+|(apikey=)[^&\s\"']+"
)
NOISY = ("httpx", "httpcore", "anyio", "asyncio")


class Changes:
    """A state of affairs that is looked at again and again, and told only when it has changed."""

    def __init__(self) -> None:
        self._told = ""

    def tell(self, level: int, logger: logging.Logger, what: str) -> None:
        """Log it, unless that is what was said last. Empty: nothing is the matter any more."""
        if what and what != self._told:
            logger.log(level, "%s", what)
        self._told = what


class RedactingFormatter(logging.Formatter):
    """Formats as `time level logger message`, with every secret replaced."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets: set[str] = set()
        for secret in secrets:
            self.hide(secret)

    def hide(self, secret: str) -> None:
        """From now on this value is replaced wherever it appears."""
        if len(secret) >= 6:
            self._secrets.add(secret)

    def format(self, record: logging.LogRecord) -> str:
        return self.line(record, at=datetime.fromtimestamp(record.created, UTC))

    def line(self, record: logging.LogRecord, *, at: datetime) -> str:
        """The record as one line told at that moment, without its traceback; not redacted yet."""
        time = at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        text = f"{time}Z {record.levelname.lower():7} {record.name} {one_line(record.getMessage())}"
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return self.redact(text)

    def redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return TOKENS.sub(lambda m: f"{m[1] or m[2] or m[3]}[secret]", text)


def one_line(text: str) -> str:
    """With every control character spelled out, so that it can neither end the line nor paint it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def set_up(level: str, secrets: Iterable[str]) -> RedactingFormatter:
    """One handler on stderr. httpx and its like stay at WARNING: at INFO they print URLs, at DEBUG headers."""
    formatter = RedactingFormatter(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.setLevel(level)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    return formatter
