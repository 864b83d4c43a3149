"""How far a node is let in, and what else only a person settles: quarantine, retire, readmit, acknowledge, rotate."""

from __future__ import annotations

from functools import partial

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.fleets import FleetPath
from cloudly.http.api.node_id import NodeId, node_number, node_row
from cloudly.http.api.paging import Asked, Shown
from cloudly.http.api.texts import Reason
from cloudly.service import rotation
from cloudly.store import node_standing as store
from cloudly.store import voices
from cloudly.store.node_standing import Word
from cloudly.views import node_view

standing = Resource("standing of nodes")


class WhyAsked(Asked):
    reason: Reason
    """Who looks at it later reads it."""


class StandingShown(Shown):
    node_id: str
    state: str
    state_detail: str
    """In quarantine, or retired: why, and who said so."""
    revoked_at_ms: int | None
    quarantined_at_ms: int | None
    retired_at_ms: int | None


class Acknowledged(Shown):
    node_id: str
    acknowledged: bool
    """False: there was nothing to acknowledge."""


class RotationAsked(Shown):
    nodes: int
    """That have a node token."""
    asked: int
    """That were not asked before."""


@standing.on("POST", "/nodes/{node}/quarantine", needs=Permission.NODES_ORDER)
async def quarantine_node(call: Called, node: NodeId, asked: WhyAsked) -> StandingShown:
    """It goes on reporting, but no rollout and no order reaches it."""
    number, word = await node_number(call, node), _word(call, asked)
    await call.write(lambda db: store.quarantine(db, number, word))
    return await _shown(call, node)


@standing.on("POST", "/nodes/{node}/lift-quarantine", needs=Permission.NODES_ORDER)
async def lift_quarantine(call: Called, node: NodeId) -> StandingShown:
    """Orders reach it again."""
    number = await node_number(call, node)
    await call.write(lambda db: store.lift_quarantine(db, number, by=call.by))
    return await _shown(call, node)


@standing.on("POST", "/nodes/{node}/retire", needs=Permission.NODES_REVOKE)
async def retire_node(call: Called, node: NodeId, asked: WhyAsked) -> StandingShown:
    """Out of service: refused, and in no list and no count; its story is kept."""
    number, word = await node_number(call, node), _word(call, asked)
    await call.write(lambda db: store.retire(db, number, word))
    return await _shown(call, node)


@standing.on("POST", "/nodes/{node}/readmit", needs=Permission.NODES_REVOKE)
async def readmit_node(call: Called, node: NodeId) -> StandingShown:
    """That it was revoked or retired is taken back: the credentials that it had are taken again."""
    number = await node_number(call, node)
    await call.write(lambda db: store.readmit(db, number, by=call.by))
    return await _shown(call, node)


@standing.on("POST", "/nodes/{node}/acknowledge", needs=Permission.NODES_ORDER)
async def acknowledge_fences(call: Called, node: NodeId) -> Acknowledged:
    """Two devices with one identity are settled; the alarm comes again if they are not."""
    number = await node_number(call, node)
    known = await call.write(lambda db: voices.acknowledge(db, number, by=call.by))
    return Acknowledged(node_id=node, acknowledged=known)


@standing.on("POST", "/nodes/{node}/rotate-token", needs=Permission.NODES_ORDER)
async def rotate_node_token(call: Called, node: NodeId) -> RotationAsked:
    """It is asked to draw another one, with its next heartbeat; the old one is good until the new one was used."""
    row = await node_row(call, node)
    done = await call.write(lambda db: rotation.ask_node(db, row, call.by))
    return RotationAsked.model_validate(done)


@standing.on("POST", "/fleets/{fleet}/rotate-tokens", needs=Permission.NODES_ORDER)
async def rotate_node_tokens(call: Called, fleet: FleetPath) -> RotationAsked:
    """The same of each of its nodes, some at a time. If the answer does not come, give it again."""
    return RotationAsked.model_validate(await rotation.ask_fleet(call.desk.store, fleet, call.by))


def _word(call: Call, asked: WhyAsked) -> Word:
    return Word(call.actor, asked.reason, call.now_ms)


async def _shown(call: Call, node: str) -> StandingShown:
    row = call.desk.store.fresh(await node_row(call, node))
    view = partial(node_view, now_ms=call.now_ms, every_s=call.desk.settings.heartbeat_every_s)
    seen = view(row, versions={})
    times = {name: row[name] for name in ("revoked_at_ms", "quarantined_at_ms", "retired_at_ms")}
    return StandingShown(node_id=node, state=seen.state, state_detail=seen.state_detail, **times)
