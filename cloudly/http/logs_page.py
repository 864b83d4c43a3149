"""The page of a node's logs: filtered and paged by plain GET, live where there is JavaScript.

Rules:
- Every text of a device is escaped by the template engine, and made harmless before.
- A search goes through the file row by row and lets others have their turn between two; after so many lines it stops
  and offers to go on.
- A live page reads only what is new, and shows no more lines than at its beginning.
"""

from __future__ import annotations

import re
import sqlite3
from collections import deque
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from anyio.lowlevel import checkpoint
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cloudly.http.live import Live
from cloudly.http.page import only_here
from cloudly.http.templates import Pages
from cloudly.log_view import log_view
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store import log_reading, reading
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Kept
from cloudly.store.log_file import open_to_read
from cloudly.store.log_reading import END, Wanted
from cloudly.store.store import Store
from interfaces.world import World, now_ms

LINES = 200
"""On one page."""
SEARCHED = 50_000
"""Lines that one request looks at: some 0.2 s."""
SPANS = (
    ("5m", "5 minutes"),
    ("1h", "an hour"),
    ("6h", "6 hours"),
    ("1d", "a day"),
    ("3d", "3 days"),
)
UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class LogLook:
    """Which lines are asked for, as the address has it."""

    service: str = ""
    system: bool = False
    text: str = ""
    since: str = ""
    before_n: int | None = None

    @property
    def is_all(self) -> bool:
        return replace(self, before_n=None) == LogLook()

    def query(self, *, before_n: int | None = None) -> str:
        parts = {
            "service": self.service,
            "since": self.since,
            "text": self.text,
            "system": "1" if self.system else "",
            "before": str(before_n or ""),
        }
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"?{query}" if query else ""


def look_of(query: QueryParams) -> LogLook:
    """Raises Refused (not-found)."""
    before, since = query.get("before", ""), query.get("since", "")
    if not re.fullmatch(r"[0-9]{0,18}", before, re.ASCII):
        raise Refused("not-found", "before: the place of a line, as the links on the page have it")
    if not re.fullmatch(r"([1-9][0-9]{0,6}[smhd])?", since, re.ASCII):
        raise Refused("not-found", "since: how long ago, for example 30m, 6h or 2d")
    text = query.get("text", "")[:LONGEST_TEXT].encode(errors="replace").decode()
    service = query.get("service", "")[:LONGEST_TEXT].encode(errors="replace").decode()
    return LogLook(
        service, query.get("system") == "1", text, since, int(before) if before else None
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    lines: tuple[Kept, ...] = ()
    """The newest first."""
    older_n: int | None = None
    """Before this place there may be more."""
    is_partial: bool = False
    """It stopped because it had looked at many, not because it had found many."""
    problem: str = ""


class LogsPage:
    def __init__(  # noqa: PLR0913, PLR0917 - what pages are made of
        self,
        store: Store,
        logs: DeviceLogs,
        world: World,
        settings: Settings,
        live: Live,
        pages: Pages,
    ) -> None:
        self._store = store
        self._logs = logs
        self._world = world
        self._settings = settings
        self._live = live
        self._pages = pages

    def routes(self) -> list[Route]:
        return [
            Route("/nodes/{node_id}/logs", self.logs, methods=["GET"]),
            Route("/nodes/{node_id}/logs/live", self.logs_live, methods=["GET"]),
        ]

    async def logs(self, request: Request) -> Response:
        node_id, look = await self._asked(request)
        found = await self._search(node_id, look)
        now = now_ms(self._world)
        names = sorted((await self._store.read(reading.services)).values())
        body = self._pages.render(
            "logs.html",
            now,
            incarnation=self._store.incarnation,
            names=names,
            spans=SPANS,
            **await self._shown(node_id, look, found),
        )
        return HTMLResponse(body, headers={"cache-control": "no-store"})

    async def logs_live(self, request: Request) -> Response:
        node_id, look = await self._asked(request)
        look = replace(look, before_n=None)
        wanted, newest = await self._wanted(look), self._logs.newest(node_id)
        found = await self._search(node_id, look)
        lines = deque(found.lines, LINES)
        seen_n = max([newest, *(kept.n for kept in found.lines[:1])])
        first = [True]

        async def changes() -> str | None:
            nonlocal seen_n, newest
            now_newest = self._logs.newest(node_id)
            if now_newest == newest and not first[0]:
                return None
            first[0], newest = False, now_newest
            if now_newest < seen_n and now_newest:  # another file
                seen_n = 0
                lines.clear()
            news = self._after(node_id, seen_n)
            seen_n = news[-1].n if news else seen_n
            lines.extendleft(kept for kept in news if wanted.wants(kept.line))
            older_n = lines[-1].n if len(lines) == LINES else found.older_n
            shown = replace(found, lines=tuple(lines), older_n=older_n)
            return self._pages.render(
                "_logs.html", now_ms(self._world), **await self._shown(node_id, look, shown)
            )

        return self._live.stream(request, changes)

    async def _asked(self, request: Request) -> tuple[str, LogLook]:
        """Raises Refused (not-found)."""
        only_here(request, self._settings)
        node_id = request.path_params["node_id"]
        if await self._store.read(lambda db: reading.node(db, node_id)) is None:
            raise Refused("not-found")
        return node_id, look_of(request.query_params)

    async def _wanted(self, look: LogLook) -> Wanted:
        now = now_ms(self._world)
        since_ms = now - self._logs.bounds.keep_ms
        if look.since:
            since_ms = max(since_ms, now - int(look.since[:-1]) * UNIT_MS[look.since[-1]])
        services = await self._store.read(reading.services)
        numbers = [number for number, name in services.items() if name == look.service]
        service = (numbers or [-1])[0] if look.service else None
        return Wanted(service, look.system, look.text, since_ms)

    async def _search(self, node_id: str, look: LogLook) -> Found:
        lines: list[Kept] = []
        looked_at = 0
        db = None
        try:
            db = open_to_read(self._logs.directory)
            if db is None:
                return Found()
            before_n = END if look.before_n is None else look.before_n
            wanted = await self._wanted(look)
            for piece in log_reading.pieces(db, node_id, wanted, before_n=before_n):
                lines += piece.lines
                looked_at += piece.looked_at
                if len(lines) > LINES:
                    return Found(tuple(lines[:LINES]), lines[LINES - 1].n)
                if looked_at >= SEARCHED:
                    return Found(tuple(lines), piece.before_n, is_partial=True)
                await checkpoint()
        except sqlite3.Error as problem:
            return Found(tuple(lines), problem=self._logs.unreadable(problem))
        finally:
            if db is not None:
                db.close()
        return Found(tuple(lines))

    def _after(self, node_id: str, n: int) -> list[Kept]:
        try:
            db = open_to_read(self._logs.directory)
            if db is None:
                return []
            try:
                return log_reading.after(db, node_id, n)
            finally:
                db.close()
        except sqlite3.Error as problem:
            self._logs.unreadable(problem)
            return []

    async def _shown(self, node_id: str, look: LogLook, found: Found) -> dict[str, Any]:
        services = await self._store.read(reading.services)
        row = await self._store.read(lambda db: reading.node(db, node_id))
        name = "" if row is None else row["hostname"]
        return {
            "node": {"node_id": node_id, "name": name or node_id[:12]},
            "look": look,
            "kept_days": f"{self._settings.logs_days:g}",
            "shown": {
                "lines": [log_view(kept, services) for kept in found.lines],
                "older_n": found.older_n,
                "is_partial": found.is_partial,
                "problem": found.problem,
            },
        }
