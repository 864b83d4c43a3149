"""The audit: what people did here, who, when and to what, as `cloudly audit` shows it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from cloudly.access import Permission
from cloudly.http.api.call import Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Limit, Page, Shown, page_of
from cloudly.store import audit as store

audit = Resource("audit")

About = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z-]{1,40}/[^\x00-\x1f\x7f]{1,200}$",
        description="Only what was done to this: `fleet/lobby`, `node/ID`, `join-token/7`.",
    ),
]


class ActShown(Shown):
    id: int
    at_ms: int
    actor: str
    """`api/` and the API token's name, or who it was on the command line."""
    act: str
    """What was done, as `fleet.created`."""
    object: str
    """To what, as `fleet/lobby`."""
    data: dict[str, Any]
    """What was said of it; which names it has depends on the act."""


@audit.on("GET", "/audit", needs=Permission.AUDIT_READ)
async def list_acts(
    call: Called, after: AfterNumber = None, limit: Limit = 100, about: About = None
) -> Page[ActShown]:
    """The newest first. An order that changed nothing is not in it."""
    rows = await call.read(lambda db: store.listed(db, about=about, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["id"])
    items = [ActShown.model_validate(store.document(row)) for row in shown]
    return Page(items=items, next=following)
