"""The page: a list of nodes and one page per node, by plain GET, live where there is JavaScript.

Rules:
- Every text of a node is escaped by the template engine; nothing of it goes into a script, a style or a URL but its id.
- There is no login yet: only this machine may look, by address and by name, unless the operator said otherwise.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cloudly.balena.both import both_sides
from cloudly.http.live import Live
from cloudly.http.templates import Pages, Static
from cloudly.problems import Refused
from cloudly.reports import facts, load, waiting_of
from cloudly.settings import Settings, is_loopback
from cloudly.store import diagnoses, reading, story
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from cloudly.views import NodeView, asks_operator, diagnosis_view, fence_notice, node_view
from interfaces.world import World, now_ms

SHOWN = 500
FACTS = 50
"""Facts of a node's story on one page."""


@dataclass(frozen=True, slots=True)
class Look:
    """Which part of a node's story is asked for."""

    before: story.Place | None = None
    heartbeats: bool = False

    def query(self, *, before: story.Place | None = None, heartbeats: bool | None = None) -> str:
        """The query of an address that shows another part; nothing of what a stranger sent is in it."""
        parts = [f"before={before.epoch_n}.{before.n}"] if before is not None else []
        if self.heartbeats if heartbeats is None else heartbeats:
            parts.append("heartbeats=1")
        return "?" + "&".join(parts) if parts else ""

    @property
    def here(self) -> str:
        return self.query(before=self.before)


def look_of(query: QueryParams) -> Look:
    """Raises Refused (not-found)."""
    asked = query.get("before")
    if asked is None:
        return Look(None, query.get("heartbeats") == "1")
    found = re.fullmatch(r"([0-9]{1,15})\.([0-9]{1,19})", asked)
    if found is None or int(found[2]) > story.END:
        raise Refused("not-found", "before: the place of a fact, as the links on the page have it")
    return Look(story.Place(int(found[1]), int(found[2])), query.get("heartbeats") == "1")


def host_of(header: str) -> str:
    """The host in a Host header, without its port."""
    if header.startswith("["):
        host, closed, _ = header[1:].partition("]")
        return host if closed else ""
    return header.partition(":")[0]


def only_here(request: Request, settings: Settings) -> None:
    """A name that others made to point at this machine (DNS rebinding) is refused as well. Raises Refused."""
    if not settings.insecure_page and not is_loopback(host_of(request.headers.get("host", ""))):
        raise Refused(
            "not-found",
            "The page is for this machine only, until it has a login (--insecure-page).",
            status=421,
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the list shows at one moment."""

    nodes: tuple[NodeView, ...]
    total: int

    def summary(self) -> dict[str, Any]:
        counts = Counter(node.state for node in self.nodes)
        return {"total": self.total, "shown": len(self.nodes), "counts": counts.most_common()}


class Page:
    def __init__(self, store: Store, world: World, settings: Settings, live: Live) -> None:
        self._store = store
        self._world = world
        self._settings = settings
        self._live = live
        self._static = Static(Path(__file__).parent.parent / "static")
        self.pages = Pages(self._static)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.nodes, methods=["GET"]),
            Route("/live", self.nodes_live, methods=["GET"]),
            Route("/nodes/{node_id}", self.node, methods=["GET"]),
            Route("/nodes/{node_id}/live", self.node_live, methods=["GET"]),
            Route("/static/{name:path}", self.static, methods=["GET"]),
        ]

    async def nodes(self, request: Request) -> Response:
        self._only_here(request)
        fleet = await self._store.read(self._fleet)
        return self._html(
            "nodes.html", nodes=fleet.nodes, host=request.headers.get("host", ""), **fleet.summary()
        )

    async def nodes_live(self, request: Request) -> Response:
        self._only_here(request)
        shown = {node.number: node for node in (await self._store.read(self._fleet)).nodes}
        seen: list[object] = [None]

        async def changes() -> str | None:
            if not await self._moved(seen):
                return None
            fleet = await self._store.read(self._fleet)
            changed = [node for node in fleet.nodes if shown.get(node.number) != node]
            shown.update({node.number: node for node in changed})
            return (
                self.pages.rows(changed, fleet.summary(), now_ms(self._world)) if changed else None
            )

        return self._live.stream(request, changes)

    async def node(self, request: Request) -> Response:
        self._only_here(request)
        node_id, look = request.path_params["node_id"], look_of(request.query_params)
        return self._html("node.html", look=look, **await self._shown(node_id, look))

    async def node_live(self, request: Request) -> Response:
        self._only_here(request)
        node_id, look = request.path_params["node_id"], look_of(request.query_params)
        before: list[object] = [await self._shown(node_id, look)]
        seen: list[object] = [None]

        async def changes() -> str | None:
            if not await self._moved(seen):
                return None
            shown = await self._shown(node_id, look)
            if shown == before[0]:
                return None
            before[0] = shown
            return self.pages.render("_node.html", now_ms(self._world), look=look, **shown)

        return self._live.stream(request, changes)

    async def static(self, request: Request) -> Response:
        return self._static.answer(request)

    def _html(self, template: str, **values: Any) -> Response:
        now = now_ms(self._world)
        body = self.pages.render(template, now, incarnation=self._store.incarnation, **values)
        return HTMLResponse(body, headers={"cache-control": "no-store"})

    async def _moved(self, seen: list[object]) -> bool:
        """Whether something may look different now: the store moved, or time did enough to turn a node late."""
        tick = int(self._world.monotonic() / max(1.0, self._settings.heartbeat_every_s / 4))
        current = (await self._store.version(), tick)
        moved, seen[0] = current != seen[0], current
        return moved

    def _only_here(self, request: Request) -> None:
        only_here(request, self._settings)

    def _fleet(self, db: Connection) -> Fleet:
        rows, versions = reading.nodes(db, limit=SHOWN), reading.versions(db)
        views = tuple(self._view(row, versions) for row in rows)
        return Fleet(views, reading.count_nodes(db))

    def _view(self, row: Any, versions: dict[str, str]) -> NodeView:
        return node_view(
            self._fresh(row),
            versions=versions,
            now_ms=now_ms(self._world),
            every_s=self._settings.heartbeat_every_s,
        )

    def _fresh(self, row: Any) -> dict[str, Any]:
        """The row, with what is newer in memory."""
        return self._store.fresh(row)

    async def _shown(self, node_id: str, look: Look) -> dict[str, Any]:
        return await self._store.read(lambda db: self._node(db, node_id, look))

    def _node(self, db: Connection, node_id: str, look: Look) -> dict[str, Any]:
        """All that the node's page shows. Raises Refused (not-found)."""
        row = reading.node(db, node_id)
        if row is None:
            raise Refused("not-found")
        number, reported = row["id"], load(self._fresh(row)["reported"])
        versions = reading.versions(db)
        return {
            "node": self._view(row, versions),
            "versions": versions,
            "asks": asks_operator(dict(row)),
            "notice": fence_notice(dict(row), now_ms(self._world)),
            "waiting": waiting_of(reported),
            "facts": facts(dict(row), reported),
            "both": both_sides(db, self._store.devices, self._fresh(row), now_ms(self._world)),
            "last_good": row["last_good"],
            "diagnoses": [
                diagnosis_view(dict(one)) for one in diagnoses.newest(db, number, limit=1)
            ],
            "story": story.page(
                db, number, before=look.before, limit=FACTS, heartbeats=look.heartbeats
            ),
            "deployments": [dict(one) for one in reading.deployments(db, number)],
            "never_again": [dict(one) for one in reading.never_again(db, number)],
            "enrollments": [dict(one) for one in reading.enrollments(db, number)],
            "lanes": [dict(one) for one in reading.lanes(db, number)],
            "reported": json.dumps(reported, indent=2, ensure_ascii=False),
        }
