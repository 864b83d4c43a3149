"""Bans: what is given to no node ever again, by the digest of an image or the commit of a release."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Path, Query
from starlette.responses import Response

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Banned, DigestOrRelease, Note, Reason
from cloudly.service import bans as service
from cloudly.store.governance import bans as store
from cloudly.store.sql import Row

bans = Resource("bans")

BanPath = Annotated[
    Banned,
    Path(
        alias="digest", description="Of an image (`sha256:...`), or the whole commit of a release."
    ),
]
AfterBan = Annotated[
    str | None,
    Query(
        alias="after",
        pattern=r"^[0-9]{1,15}\.(sha256:[0-9a-f]{64}|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$",
        description="The `next` of the page before.",
    ),
]


class BanShown(Shown):
    digest: str
    version: str | None
    """Of the release, where it is one."""
    by: str
    reason: str
    at_ms: int


class BanReach(BanShown):
    """And where it is now."""

    running: int
    """Nodes that run it, and keep it until something else is ordered."""
    coming: int
    """Nodes that were ordered it, and have not finished: they may still apply it."""
    nodes: list[str]
    """The ids of at most 20 of both."""
    fleets: list[str]
    """Whose new nodes get nothing until the fleet wants another release."""
    channels: list[str]
    """Where it is published, and not offered any more."""


class NewBan(Asked):
    what: DigestOrRelease
    """A release by its version or its commit, or an image by its digest, `sha256:...`."""
    reason: Reason


class Lifted(Asked):
    reason: Note = ""
    """Kept in the audit."""


NO_REASON = Lifted()


@bans.on("GET", "/bans", needs=Permission.BANS_READ)
async def list_bans(call: Called, after: AfterBan = None, limit: Limit = 100) -> Page[BanShown]:
    """The newest first."""
    at_ms, _, digest = (after or f"{store.LAST}.").partition(".")
    place = int(at_ms), digest
    rows = await call.read(lambda db: store.page(db, after=place, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: f"{row['at_ms']}.{row['digest']}")
    return Page(items=[BanShown.model_validate(_named(row)) for row in shown], next=following)


@bans.on("POST", "/bans", needs=Permission.BANS_WRITE, status=201)
async def ban(call: Called, new: NewBan) -> BanReach:
    """Never again, on no node: no order, rollout, channel or fleet gives it. Nodes that run it keep it."""
    digest = await call.write(lambda db: store.put(db, new.what, call.by, new.reason))
    return await _found(call, digest)


@bans.on("GET", "/bans/{digest}", needs=Permission.BANS_READ)
async def get_ban(call: Called, digest: BanPath) -> BanReach:
    """With how many nodes run it still."""
    return await _found(call, digest)


@bans.on("POST", "/bans/{digest}/lift", needs=Permission.BANS_WRITE, status=204)
async def lift_ban(call: Called, digest: BanPath, said: Lifted = NO_REASON) -> Response:
    """It may be ordered again; that orders nothing."""
    await call.write(lambda db: store.unban(db, digest, call.by, said.reason))
    return Response(status_code=204)


async def _found(call: Call, digest: str) -> BanReach:
    row = await call.read(lambda db: store.found(db, digest))
    reach = await service.reach(call.desk.store, digest)
    return BanReach.model_validate(_named(row) | asdict(reach))


def _named(row: Row) -> dict[str, Any]:
    return {**dict(row), "by": row["actor"]}
