"""The page of a node's logs: filtered and paged by plain GET, live where there is JavaScript.

Rules:
- Every text of a device is escaped by the template engine, and made harmless before.
- A search goes through the files row by row and lets others have their turn between two; after so many lines it stops
  and offers to go on.
- A live page reads only what is new, and shows no more lines than at its beginning.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from anyio.lowlevel import checkpoint
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cloudly import servers
from cloudly.http.live import Live
from cloudly.http.page import only_here
from cloudly.http.templates import Pages
from cloudly.log_view import log_view
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store import reading
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_chunks import Kept
from cloudly.store.log_files import (
    Following,
    Search,
    newest_first,
    places_of,
    search,
    text_of,
)
from cloudly.store.log_reading import Wanted
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
    before: str | None = None
    """A place, as `log_files` has it."""

    @property
    def is_all(self) -> bool:
        return replace(self, before=None) == LogLook()

    def query(self, *, before: str | None = None) -> str:
        parts = {
            "service": self.service,
            "since": self.since,
            "text": self.text,
            "system": "1" if self.system else "",
            "before": before or "",
        }
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"?{query}" if query else ""


def look_of(query: QueryParams) -> LogLook:
    """Raises Refused (not-found)."""
    before, since = query.get("before", ""), query.get("since", "")
    if before and places_of(before) is None:
        raise Refused("not-found", "before: the place of a line, as the links on the page have it")
    if not re.fullmatch(r"([1-9][0-9]{0,6}[smhd])?", since, re.ASCII):
        raise Refused("not-found", "since: how long ago, for example 30m, 6h or 2d")
    text = query.get("text", "")[:LONGEST_TEXT].encode(errors="replace").decode()
    service = query.get("service", "")[:LONGEST_TEXT].encode(errors="replace").decode()
    return LogLook(service, query.get("system") == "1", text, since, before or None)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    lines: tuple[Kept, ...] = ()
    """The newest first."""
    older: str | None = None
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
        look = replace(look, before=None)
        wanted = await self._wanted(look)
        following = Following(self._logs.directory, node_id, self._mark(node_id)).begin()
        found = await self._search(node_id, look)
        lines = list(found.lines)
        for kept in lines:
            following.seen[kept.slot] = max(kept.n, following.seen.get(kept.slot, 0))
        first = [True]

        async def changes() -> str | None:
            news, anew = following.news()
            self._problem_of(following.problems)
            if not news and not anew and not first[0]:
                return None
            first[0] = False
            kept = [one for one in lines if one.slot not in anew]
            fresh = [one for one in news if wanted.wants(one.line)]
            lines[:] = islice(newest_first([*kept, *fresh]), LINES)
            older = _older(lines, following.seen) if len(lines) == LINES else found.older
            shown = replace(found, lines=tuple(lines), older=older)
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
        left = SEARCHED
        wanted = await self._wanted(look)
        before = None if look.before is None else places_of(look.before)
        with search(self._logs.directory, node_id, wanted, before) as found:
            while True:
                looked_at = found.look()
                if looked_at:
                    left -= looked_at
                    if left <= 0 and found.is_stoppable:
                        return self._found(found, lines, is_partial=True)
                    await checkpoint()
                elif not found.has_more:
                    return self._found(found, lines)
                elif len(lines) == LINES:
                    return self._found(found, lines, is_full=True)
                elif (kept := found.take()) is not None:
                    lines.append(kept)

    def _found(
        self, found: Search, lines: list[Kept], *, is_full: bool = False, is_partial: bool = False
    ) -> Found:
        older = text_of(found.places) if is_full or is_partial else None
        return Found(tuple(lines), older, is_partial, self._problem_of(found.problems))

    def _problem_of(self, problems: Mapping[int, sqlite3.Error]) -> str:
        return " ".join(self._logs.unreadable(one, slot) for slot, one in problems.items())

    def _mark(self, node_id: str) -> Callable[[int], Hashable]:
        """Of our own file we know without a look what is new."""
        own = self._logs.slot
        return lambda slot: ("written", self._logs.newest(node_id)) if slot == own else None

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
                "older": found.older,
                "elsewhere": await self._elsewhere(),
                "is_partial": found.is_partial,
                "problem": found.problem,
            },
        }

    async def _elsewhere(self) -> list[str]:
        """Where other servers keep logs that are not here."""
        if not self._store.is_shared:
            return []
        known = await self._store.read(servers.listed)
        return servers.elsewhere(known, servers.directory_id(self._logs.directory, self._world))


def _older(lines: Sequence[Kept], seen: Mapping[int, int]) -> str:
    """The place before the lines that are shown; of a file that none is of, all that it has is before it."""
    places = {slot: n + 1 for slot, n in seen.items()}
    for kept in lines:
        places[kept.slot] = min(kept.n, places.get(kept.slot, kept.n))
    return text_of(places)
