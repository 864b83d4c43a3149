"""Log lines, one event each, as JSON or as text, with one place that takes secrets out.

Rules:
- The formatter redacts, not a filter: tracebacks and third parties' messages pass through it too.
- A line that is written while a request is answered carries its id, and the node's once it is known.
- No bodies, no line per heartbeat: 14 us of formatting would be 5 % of one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any


class Asked:
    """Which request is being answered."""

    __slots__ = ("node", "request")

    def __init__(self, request: str) -> None:
        self.request = request
        self.node = ""
        """Who asks, once the credential was looked up."""


ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)


def note_node(node_id: str) -> None:
    """Lines about this request name the node from now on."""
    asked = ASKED.get()
    if asked is not None:
        asked.node = node_id


SECRET = re.compile(
    r"(?P<ours>\b(?:b[a-z]{1,2}t|whsec)_)[A-Za-z0-9_+/=-]{8,}"
    r"|(?P<scheme>\b(?:Bearer|Basic|ApiKey)\s+)[^\s\"',;]+"
    # The password of any URL: postgresql://cloudly:PASSWORD@db.example/cloudly, up to the last @ before its path.
    r"|(?P<url>\b[a-z][a-z0-9+.-]{0,20}://[^\s:/?#@\"']{0,200}:)[^\s/?#\"']{1,500}(?=@)"
    # A name is looked at once, from its beginning: strangers write lines of 10,000 letters, and time is all they need.
    r"|(?P<named>(?<![\w-])(?=[\w-]*?(?i:token|secret|password|passwd|apikey|authorization|cookie|key\b))"
    r"[\w-]++[\"']?\s*+[=:]\s*+)"
    r"(?:b?\"[^\"]*\"|b?'[^']*'|(?!(?:Bearer|Basic|ApiKey)\b)[^\s,;&)}\]]+)"
)
HINTS = ("token", "secret", "passw", "key", "authorization", "cookie", "t_", "whsec_", "://",
         "bearer", "basic")  # fmt: skip
"""A line that holds none of them, in any case, holds nothing that `SECRET` finds; most lines do not."""
HIDDEN = "[redacted]"
SECRET_NAME = re.compile(r"token|secret|passw|authorization|cookie|api_?key|key$", re.IGNORECASE)


def redact(line: str) -> str:
    """The line with everything that looks like a credential taken out."""
    lower = line.lower()
    if not any(hint in lower for hint in HINTS):
        return line
    return SECRET.sub(
        lambda found: (found["ours"] or found["scheme"] or found["url"] or found["named"]) + HIDDEN,
        line,
    )


def values_of(record: logging.LogRecord) -> dict[str, Any]:
    """Where the line belongs, and what it names; nothing that is secret."""
    asked = ASKED.get()
    found: dict[str, Any] = {}
    if asked is not None:
        found["request"] = asked.request
        if asked.node:
            found["node"] = redact(asked.node)
    named = getattr(record, "values", None)
    if isinstance(named, dict):
        found |= {
            name: HIDDEN if SECRET_NAME.search(name) else _plain(value)
            for name, value in named.items()
        }
    return found


class JsonLines(logging.Formatter):
    """For machines: `at`, `level`, `logger`, `event`, the values, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            **values_of(record),
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redact(record.stack_info)
        return json.dumps(line, ensure_ascii=True)


class TextLines(logging.Formatter):
    """For people: the same, a line each, and a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_at(record), record.levelname.lower(), redact(record.getMessage())]
        words += [f"{name}={_shown(value)}" for name, value in values_of(record).items()]
        line = " ".join(words).replace("\n", " ")
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info))
        return "".join(one if one.isprintable() or one == "\n" else "?" for one in line)


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | bool) or value is None else redact(str(value))


def configure(level: str, style: str = "json") -> None:
    """All loggers of this process through one redacting handler on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines() if style == "text" else JsonLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Libraries that write URLs, headers and statements at DEBUG, where ours write what they decided.
    for noisy in ("httpx", "httpcore", "asyncio", "alembic", "asyncpg", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
