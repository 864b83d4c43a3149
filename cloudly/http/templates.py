"""Templates and static files, read once: no file is opened while serving, so no thread is needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from cloudly.problems import Refused
from cloudly.story import branch_words, gap_words
from cloudly.views import NodeView, ago
from interfaces import why

TYPES = {".css": "text/css", ".js": "text/javascript"}
LAST_MS = 253_402_300_799_000  # the year 9999, where datetime ends


class Static:
    """CSS and JavaScript from memory, under addresses that change with their contents."""

    def __init__(self, directory: Path) -> None:
        self._files = {
            str(file.relative_to(directory)): (file.read_bytes(), TYPES[file.suffix])
            for file in sorted(directory.rglob("*"))
            if file.suffix in TYPES
        }
        self._versions = {
            name: hashlib.sha256(body).hexdigest()[:12] for name, (body, _) in self._files.items()
        }

    def address(self, name: str) -> str:
        return f"/static/{name}?v={self._versions[name]}"

    def answer(self, request: Request) -> Response:
        """Raises Refused (not-found)."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise Refused("not-found")
        body, media_type = found
        return Response(
            body,
            media_type=media_type,
            headers={"cache-control": "public, max-age=31536000, immutable"},
        )


class Pages:
    def __init__(self, static: Static) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
        )
        self._templates.globals["static"] = static.address
        self._templates.filters["word"] = word
        self._templates.globals["why_title"] = why.title
        self._templates.globals["why_told"] = why.told
        self._templates.globals["gap_words"] = gap_words
        self._templates.globals["branch_words"] = branch_words
        self._templates.globals["exactly"] = exactly

    def render(self, template: str, now_ms: int, **values: Any) -> str:
        return self._templates.get_template(template).render(
            now_ms=now_ms, moment=lambda at_ms: moment(at_ms, now_ms), **values
        )

    def rows(self, nodes: Sequence[NodeView], summary: dict[str, Any], now_ms: int) -> str:
        """The summary for the connected element's target, and rows that find their place by id."""
        rows = "".join(self.render("_row.html", now_ms, node=node) for node in nodes)
        upsert = f'<hx-upsert hx-target="#nodes" key="data-key" sort="desc">{rows}</hx-upsert>'
        return self.render("_summary.html", now_ms, **summary) + upsert


def word(text: str) -> str:
    """A node's text as a CSS class: nothing but letters and dashes."""
    return re.sub(r"[^a-z-]", "", text)[:40]


def moment(at_ms: int | None, now_ms: int) -> Markup:
    """A time element: relative for people, exact for machines and in the tooltip."""
    if at_ms is None:
        return Markup("never")
    if not 0 <= at_ms <= LAST_MS:
        return Markup("at an impossible time")
    exact = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{0}" title="{0}" data-ms="{1}">{2}</time>').format(
        exact, at_ms, ago(at_ms, now_ms)
    )


def exactly(at_ms: int) -> Markup:
    """A time element as it is in a journal: to the second."""
    if not 0 <= at_ms <= LAST_MS:
        return Markup("at an impossible time")
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(
        at.isoformat(timespec="milliseconds"), at.strftime("%Y-%m-%d %H:%M:%S")
    )
