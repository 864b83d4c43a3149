"""Fleets: list, make, remove, order a release for one; put a node into another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from cloudly.access import Permission
from cloudly.http.api.call import Called
from cloudly.http.api.door import Resource
from cloudly.http.api.node_id import NodeId, node_row
from cloudly.http.api.ordering import SetAsked, ask_of
from cloudly.http.api.paging import AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import FleetName
from cloudly.service import orders
from cloudly.service.orders import Done
from cloudly.store import fleets as store
from cloudly.store import lists

fleets = Resource("fleets")

MOST_REFUSED = 100
FleetPath = Annotated[FleetName, Path(alias="fleet")]


class FleetShown(Shown):
    id: int
    name: str
    created_at_ms: int
    nodes: int
    wanted_version: str | None
    """What its new nodes get: by its pin, the channel that it follows, or its own order."""
    wanted_release: str | None
    channel: str | None
    """That it follows."""


class NewFleet(Asked):
    name: FleetName


class MoveAsked(Asked):
    fleet: FleetName


class MovedShown(Shown):
    generation: int | None
    """Null: nothing was ordered, for `why`."""
    why: str


class NodeRefused(Shown):
    node_id: str
    why: str


class FleetOrdered(Shown):
    ordered: int
    unchanged: int
    """Nodes that have it already."""
    refused: int
    first_refused: list[NodeRefused]
    """At most 100 of them."""


@fleets.on("GET", "/fleets", needs=Permission.FLEETS_READ)
async def list_fleets(
    call: Called, after: AfterNumber = None, limit: Limit = 100
) -> Page[FleetShown]:
    """The oldest first."""
    rows = await call.read(
        lambda db: lists.fleets(db, after=after, limit=limit + 1, now_ms=call.now_ms)
    )
    shown, following = page_of(rows, limit, lambda row: row["id"])
    return Page(items=[_shown(row) for row in shown], next=following)


@fleets.on("POST", "/fleets", needs=Permission.FLEETS_WRITE, status=201)
async def create_fleet(call: Called, new: NewFleet) -> FleetShown:
    number = await call.write(lambda db: store.create(db, new.name, call.now_ms, by=call.by))
    row = {"id": number, "name": new.name, "created_at_ms": call.now_ms, "nodes": 0}
    return _shown(row | {"version": None, "commit_id": None, "channel": None})


@fleets.on("GET", "/fleets/{fleet}", needs=Permission.FLEETS_READ)
async def get_fleet(call: Called, fleet: FleetPath) -> FleetShown:
    return _shown(await call.read(lambda db: lists.fleet(db, fleet, now_ms=call.now_ms)))


@fleets.on("DELETE", "/fleets/{fleet}", needs=Permission.FLEETS_WRITE, status=204)
async def remove_fleet(call: Called, fleet: FleetPath) -> Response:
    """An empty one, into which no join token leads."""
    await call.write(lambda db: store.remove(db, store.find(db, fleet), by=call.by))
    return Response(status_code=204)


@fleets.on("PUT", "/fleets/{fleet}/release", needs=Permission.RELEASES_SET)
async def set_release_of_fleet(call: Called, fleet: FleetPath, asked: SetAsked) -> FleetOrdered:
    """Each of its nodes shall run that release, and each that comes later."""
    return _ordered(await orders.order_fleet(call.desk.store, ask_of(call, asked), fleet))


@fleets.on("PUT", "/nodes/{node}/fleet", needs=Permission.NODES_ORDER)
async def move_node(call: Called, node: NodeId, asked: MoveAsked) -> MovedShown:
    """Into that fleet, and to what it shall run; volumes stay."""
    number = (await node_row(call, node))["id"]
    moved = await call.write(
        lambda db: store.move(
            db,
            number,
            store.named(db, asked.fleet),
            new_id=call.new_id,
            now_ms=call.now_ms,
            by=call.by,
        )
    )
    return MovedShown(generation=moved.generation, why=moved.why)


def _shown(row: dict[str, object]) -> FleetShown:
    return FleetShown.model_validate(
        row | {"wanted_version": row["version"], "wanted_release": row["commit_id"]}
    )


def _ordered(done: Sequence[Done]) -> FleetOrdered:
    refused = [one for one in done if one.refused]
    ordered = sum(one.generation is not None for one in done)
    return FleetOrdered(
        ordered=ordered,
        unchanged=len(done) - ordered - len(refused),
        refused=len(refused),
        first_refused=[
            NodeRefused(node_id=one.node_id, why=one.why) for one in refused[:MOST_REFUSED]
        ],
    )
