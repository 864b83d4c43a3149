"""Pins: hold a node or a fleet on one release, or on what it runs; lift that, and see what is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from starlette.responses import Response

from cloudly.access import Permission
from cloudly.durations import seconds_of
from cloudly.governance.pins import Scope
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.fleets import FleetPath
from cloudly.http.api.node_id import NodeId, node_number
from cloudly.http.api.paging import AfterPlace, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Duration, Note, Reason, ReleaseName
from cloudly.problems import Refused
from cloudly.store import fleets
from cloudly.store.governance import pins as store
from cloudly.store.governance.pins import Target
from cloudly.store.releases import find_release
from cloudly.store.sql import Connection, Row

pins = Resource("pins")

MOST_NUMBER = 2**53


class PinShown(Shown):
    scope: Literal["node", "fleet"]
    name: str
    """The node's whole id, or the fleet's name."""
    hostname: str | None
    """Of a node."""
    version: str | None
    """Null: what it runs."""
    release: str | None
    by: str
    reason: str
    at_ms: int
    until_ms: int | None
    holds: bool
    """False: it has ended by itself."""


class NewPin(Asked):
    release: ReleaseName | None = None
    """A version or a commit; null: what it runs."""
    reason: Reason
    until: Duration = "never"
    """After how long it ends by itself."""


class Unpinned(Asked):
    reason: Note = ""
    """Kept in the audit."""


NO_REASON = Unpinned()


@pins.on("GET", "/pins", needs=Permission.PINS_READ)
async def list_pins(call: Called, after: AfterPlace = None, limit: Limit = 100) -> Page[PinShown]:
    """Those of fleets, then those of nodes; also those that have ended."""
    place = _place(after)
    rows = await call.read(lambda db: store.page(db, after=place, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: f"{row['scope']}.{row['scope_id']}")
    return Page(items=[_shown(dict(row), call) for row in shown], next=following)


@pins.on("GET", "/nodes/{node}/pin", needs=Permission.PINS_READ)
async def get_pin_of_node(call: Called, node: NodeId) -> PinShown:
    """Its own, which wins over that of its fleet."""
    return await _found(call, await _node(call, node))


@pins.on("PUT", "/nodes/{node}/pin", needs=Permission.PINS_WRITE)
async def pin_node(call: Called, node: NodeId, new: NewPin) -> PinShown:
    """Orders of anything else are refused. In the place of the pin that it had."""
    return await _pin(call, await _node(call, node), new)


@pins.on("POST", "/nodes/{node}/unpin", needs=Permission.PINS_WRITE, status=204)
async def unpin_node(call: Called, node: NodeId, said: Unpinned = NO_REASON) -> Response:
    """The pin of its fleet counts again."""
    return await _unpin(call, await _node(call, node), said)


@pins.on("GET", "/fleets/{fleet}/pin", needs=Permission.PINS_READ)
async def get_pin_of_fleet(call: Called, fleet: FleetPath) -> PinShown:
    return await _found(call, await _fleet(call, fleet))


@pins.on("PUT", "/fleets/{fleet}/pin", needs=Permission.PINS_WRITE)
async def pin_fleet(call: Called, fleet: FleetPath, new: NewPin) -> PinShown:
    """Every node of it is held; new ones get the release that it is pinned to."""
    return await _pin(call, await _fleet(call, fleet), new)


@pins.on("POST", "/fleets/{fleet}/unpin", needs=Permission.PINS_WRITE, status=204)
async def unpin_fleet(call: Called, fleet: FleetPath, said: Unpinned = NO_REASON) -> Response:
    """Those of its nodes stay."""
    return await _unpin(call, await _fleet(call, fleet), said)


async def _node(call: Call, node: str) -> Target:
    return Target(Scope.NODE, await node_number(call, node), node)


async def _fleet(call: Call, fleet: str) -> Target:
    row = await call.read(lambda db: fleets.named(db, fleet))
    return Target(Scope.FLEET, row["id"], row["name"])


async def _pin(call: Call, target: Target, new: NewPin) -> PinShown:
    lasts_s, name = seconds_of(new.until), new.release
    until_ms = call.now_ms + lasts_s * 1000 if lasts_s else None

    def work(db: Connection) -> Row:
        release = None if name is None else find_release(db, name)
        store.pin(db, target, release, call.by, reason=new.reason, until_ms=until_ms)
        return store.found(db, target)

    return _shown(dict(await call.write(work)), call)


async def _unpin(call: Call, target: Target, said: Unpinned) -> Response:
    await call.write(lambda db: store.unpin(db, target, call.by, reason=said.reason))
    return Response(status_code=204)


async def _found(call: Call, target: Target) -> PinShown:
    return _shown(dict(await call.read(lambda db: store.found(db, target))), call)


def _shown(row: Mapping[str, Any], call: Call) -> PinShown:
    until = row["until_ms"]
    holds = until is None or call.now_ms < until
    return PinShown.model_validate(
        {**row, "release": row["commit_id"], "by": row["actor"], "holds": holds}
    )


def _place(after: str | None) -> tuple[str, int]:
    """Raises Refused."""
    if after is None:
        return "", 0
    scope, _, number = after.partition(".")
    if scope not in set(Scope) or not (number.isascii() and number.isdecimal()):
        raise Refused("malformed", "query.after: give the `next` of the page before.")
    return scope, min(int(number), MOST_NUMBER)
