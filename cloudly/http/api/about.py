"""How Cloudly is, and what this API is."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cloudly.access import Permission
from cloudly.http.api.call import Called
from cloudly.http.api.described import described
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import Shown
from cloudly.service.summary import presence

about = Resource("about")


class Presence(Shown):
    """How many nodes are what; one may need an operator and be online."""

    nodes: int
    revoked: int
    needs_operator: int
    never_seen: int
    online: int
    late: int
    offline: int


class Summary(Shown):
    version: str
    incarnation: str
    """Another one after the database was restored from a backup."""
    server_time_ms: int
    database: Literal["sqlite", "postgresql"]
    waiting: int
    """Decisions of this process that wait for the disk."""
    presence: Presence


@about.on("GET", "/summary", needs=Permission.SUMMARY_READ)
async def get_summary(call: Called) -> Summary:
    """Whether it is well, and how its nodes are. The database was asked."""
    store = call.desk.store
    every_s = call.desk.settings.heartbeat_every_s
    counted = await presence(store, now_ms=call.now_ms, every_s=every_s)
    return Summary(
        version=version("baseos"),
        incarnation=store.incarnation,
        server_time_ms=call.now_ms,
        database="postgresql" if store.is_shared else "sqlite",
        waiting=store.waiting,
        presence=Presence.model_validate(counted),
    )


@about.on("GET", "/openapi.json", needs=Permission.API_READ, response_class=JSONResponse)
async def get_openapi(request: Request) -> Response:
    """This document, OpenAPI 3.1."""
    return JSONResponse(described(request.app))
