"""A node's journal: its story in pages, what is missing of it, and all of it as a stream of JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio.lowlevel import checkpoint
from fastapi import Query
from starlette.responses import Response, StreamingResponse

from cloudly.access import Permission
from cloudly.export import Export
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.journal_models import ChapterShown, chapter_of
from cloudly.http.api.node_id import NodeId, node_number
from cloudly.http.api.paging import AfterPlace, Limit, Page, Shown, page_of, place_of
from cloudly.problems import Refused
from cloudly.service import missing
from cloudly.store import story

journals = Resource("journals")

NDJSON = "application/x-ndjson"
GAP = re.compile(r"([0-9]{1,15})\.([a-z]{1,20})\.([0-9]{1,19})")
AfterGap = Annotated[
    str | None,
    Query(alias="after", max_length=60, description="The `next` of the page before."),
]
Heartbeats = Annotated[bool, Query(description="Do not leave heartbeats out.")]


class GapShown(Shown):
    """Facts that Cloudly will never get, and why."""

    epoch_n: int
    epoch: str
    lane: str
    first_seq: int
    last_seq: int
    at_ms: int
    why: str
    words: str
    kinds: dict[str, int]
    since_ms: int | None
    until_ms: int | None


class HoleShown(Shown):
    epoch_n: int
    epoch: str
    words: str


class Gaps(Page[GapShown]):
    beside: list[GapShown]
    """The device's own facts that are lost where Cloudly has another writer's; on the first page."""
    holes: list[HoleShown]
    """Epochs of which Cloudly has nothing; on the first page."""


@journals.on("GET", "/nodes/{node}/journal", needs=Permission.JOURNALS_READ)
async def read_journal(
    call: Called,
    node: NodeId,
    after: AfterPlace = None,
    limit: Limit = 100,
    heartbeats: Heartbeats = False,  # noqa: FBT002 - a parameter of the address
) -> Page[ChapterShown]:
    """At most `limit` facts in their chapters: the newest chapter first, the lines of each the oldest first."""
    number, place = await node_number(call, node), place_of(after)
    before = None if place is None else story.Place(*place)
    page = await call.read(
        lambda db: story.page(db, number, before=before, limit=limit, heartbeats=heartbeats)
    )
    older = page.older
    return Page(
        items=[chapter_of(one) for one in page.chapters],
        next=None if older is None else f"{older.epoch_n}.{older.n}",
    )


@journals.on("GET", "/nodes/{node}/gaps", needs=Permission.JOURNALS_READ)
async def list_gaps(call: Called, node: NodeId, after: AfterGap = None, limit: Limit = 100) -> Gaps:
    """The oldest first."""
    number, place = await node_number(call, node), _gap_of(after)
    rows = await call.read(lambda db: missing.gaps(db, number, after=place, limit=limit + 1))
    shown, following = page_of(
        rows, limit, lambda row: f"{row['epoch_n']}.{row['lane']}.{row['first_seq']}"
    )
    beside: list[dict[str, Any]] = []
    holes: list[dict[str, Any]] = []
    if place is None:
        beside = await call.read(lambda db: missing.beside(db, number))
        holes = await call.read(lambda db: missing.holes(db, number))
    return Gaps(
        items=[GapShown.model_validate(row) for row in shown],
        next=following,
        beside=[GapShown.model_validate(row) for row in beside],
        holes=[HoleShown.model_validate(row) for row in holes],
    )


@journals.on(
    "GET",
    "/nodes/{node}/journal/export",
    needs=Permission.JOURNALS_READ,
    response_class=StreamingResponse,
    described={
        200: {
            "description": "A line of JSON each: a header, then per epoch itself, its facts in order, its gaps.",
            "content": {NDJSON: {"schema": {"type": "string"}}},
        }
    },
)
async def export_journal(call: Called, node: NodeId) -> Response:
    """All that Cloudly has of it, up to where it ends now. An answer that breaks off is not whole: ask again."""
    export = Export(await node_number(call, node), node)
    return StreamingResponse(_lines(call, export), media_type=NDJSON)


async def _lines(call: Call, export: Export) -> AsyncIterator[bytes]:
    while (part := await call.read(export.step)) is not None:
        yield b"".join(
            json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
            for line in part
        )
        await checkpoint()  # a fast reader must not keep everybody else waiting


def _gap_of(after: str | None) -> tuple[int, str, int] | None:
    """Raises Refused."""
    if after is None:
        return None
    found = GAP.fullmatch(after)
    if found is None or int(found[3]) > story.END:
        raise Refused("malformed", "query.after: give the `next` of the page before.")
    return int(found[1]), found[2], int(found[3])
