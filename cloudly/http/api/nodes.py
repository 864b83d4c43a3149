"""Nodes: list and find, one in full, its transitions and diagnoses, a release for one, revoke."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Path, Query

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.node_id import NodeId, node_number, node_row
from cloudly.http.api.node_models import NodeDetail, NodeShown, detail_of
from cloudly.http.api.ordering import SetAsked, ask_of
from cloudly.http.api.paging import AfterNumber, AfterPlace, Limit, Page, Shown, page_of, place_of
from cloudly.http.api.texts import FleetName
from cloudly.problems import NoSuch
from cloudly.service import nodes as service
from cloudly.service import orders
from cloudly.store import diagnoses, lists, node_standing
from cloudly.store import fleets as fleets_store
from cloudly.views import NodeView, diagnosis_view, node_view

nodes = Resource("nodes")

State = Literal[
    "new", "online", "late", "offline", "degraded", "needs-operator", "quarantined", "retired", "revoked"
]  # fmt: skip
FleetWanted = Annotated[FleetName | None, Query(description="Only nodes of that fleet.")]
StateWanted = Annotated[State | None, Query(description="Only nodes in that state.")]
WordsWanted = Annotated[
    str | None,
    Query(
        pattern=r"^[^\x00-\x1f\x7f]{1,100}$",
        description="In the host name, or the beginning of the id.",
    ),
]
DiagnosisId = Annotated[str, Path(alias="diagnosis", pattern=r"^[0-9a-f]{32}$")]


class TransitionShown(Shown):
    epoch_n: int
    n: int
    """Its place among the facts of the epoch."""
    seq: int
    at_ms: int
    """By the device's own clock."""
    received_at_ms: int
    stream: str
    kind: str
    src: str
    dst: str
    reason: str


class OrderShown(Shown):
    node_id: str
    generation: int | None
    """Null: nothing was ordered, for `why`."""
    deployment: str | None
    why: str


class RevokedShown(Shown):
    node_id: str
    revoked_at_ms: int


class FindingShown(Shown):
    verdict: str
    what: str
    seen: str
    todo: str


class DiagnosisShown(Shown):
    id: str
    asked_at_ms: int
    answered_at_ms: int | None
    """Null: it has not answered yet; it is told with its next heartbeat."""
    well: bool
    findings: list[FindingShown]


@nodes.on("GET", "/nodes", needs=Permission.NODES_READ)
async def list_nodes(  # noqa: PLR0913, PLR0917 - one per filter
    call: Called,
    after: AfterNumber = None,
    limit: Limit = 100,
    fleet: FleetWanted = None,
    state: StateWanted = None,
    search: WordsWanted = None,
) -> Page[NodeShown]:
    """The newest first. With `state` or `search` a page may hold fewer than `limit`, or none, and yet have a `next`."""
    number = None
    if fleet is not None:
        number = (await call.read(lambda db: fleets_store.named(db, fleet)))["id"]
    meant = service.Search(number, search, state)
    found, following = await service.search(
        call.desk.store, meant, after=after, limit=limit, view=partial(_view, call)
    )
    items = [NodeShown.model_validate(one) for one in found]
    return Page(items=items, next=None if following is None else str(following))


@nodes.on("GET", "/nodes/{node}", needs=Permission.NODES_READ)
async def get_node(call: Called, node: NodeId) -> NodeDetail:
    """Both of its stories, where they disagree, and why it waits."""
    store = call.desk.store
    row = store.fresh(await node_row(call, node))
    shown = await call.read(
        lambda db: service.in_full(
            db,
            row,
            store.devices,
            now_ms=call.now_ms,
            every_s=call.desk.settings.heartbeat_every_s,
        )
    )
    return detail_of(shown)


@nodes.on("GET", "/nodes/{node}/transitions", needs=Permission.JOURNALS_READ)
async def list_transitions(
    call: Called, node: NodeId, after: AfterPlace = None, limit: Limit = 100
) -> Page[TransitionShown]:
    """The newest first, in the journal's order; Cloudly keeps the last 200 of a node here, the journal keeps all."""
    number, before = await node_number(call, node), place_of(after)
    rows = await call.read(lambda db: lists.transitions(db, number, before=before, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: f"{row['epoch_n']}.{row['n']}")
    return Page(items=[TransitionShown.model_validate(dict(row)) for row in shown], next=following)


@nodes.on("PUT", "/nodes/{node}/release", needs=Permission.RELEASES_SET)
async def set_release_of_node(call: Called, node: NodeId, asked: SetAsked) -> OrderShown:
    """That release is its desired state from now on."""
    await node_number(call, node)
    done = await call.write(lambda db: orders.order_node(db, ask_of(call, asked), node))
    return OrderShown.model_validate(done)


@nodes.on("POST", "/nodes/{node}/revoke", needs=Permission.NODES_REVOKE)
async def revoke_node(call: Called, node: NodeId) -> RevokedShown:
    """Its credentials are refused from now on; a fresh join token brings it back."""
    number = await node_number(call, node)
    await call.write(lambda db: node_standing.revoke(db, number, call.now_ms, by=call.by))
    row = await node_row(call, node)
    return RevokedShown(node_id=node, revoked_at_ms=row["revoked_at_ms"])


@nodes.on("POST", "/nodes/{node}/diagnoses", needs=Permission.NODES_ORDER, status=202)
async def ask_for_diagnosis(call: Called, node: NodeId) -> DiagnosisShown:
    """Ask it to look at itself; ask for the answer at the address of this one."""
    number, asked = await node_number(call, node), call.new_id()
    await call.write(lambda db: diagnoses.ask(db, number, asked, now_ms=call.now_ms, by=call.by))
    return await _diagnosis(call, number, asked)


@nodes.on("GET", "/nodes/{node}/diagnoses", needs=Permission.NODES_READ)
async def list_diagnoses(call: Called, node: NodeId) -> Page[DiagnosisShown]:
    """The newest first: the 20 that are kept."""
    number = await node_number(call, node)
    rows = await call.read(lambda db: diagnoses.newest(db, number, limit=diagnoses.KEPT))
    return Page(items=[_diagnosis_shown(dict(row)) for row in rows], next=None)


@nodes.on("GET", "/nodes/{node}/diagnoses/{diagnosis}", needs=Permission.NODES_READ)
async def get_diagnosis(call: Called, node: NodeId, diagnosis: DiagnosisId) -> DiagnosisShown:
    return await _diagnosis(call, await node_number(call, node), diagnosis)


async def _diagnosis(call: Call, node: int, diagnosis: str) -> DiagnosisShown:
    rows = await call.read(lambda db: diagnoses.newest(db, node, limit=diagnoses.KEPT))
    found = [dict(row) for row in rows if row["id"] == diagnosis]
    if not found:
        raise NoSuch("diagnosis of this node", "there is none, or it is older than the last 20")
    return _diagnosis_shown(found[0])


def _diagnosis_shown(row: Mapping[str, Any]) -> DiagnosisShown:
    view = diagnosis_view(row)
    return DiagnosisShown(
        id=row["id"],
        asked_at_ms=view.asked_at_ms,
        answered_at_ms=view.answered_at_ms,
        well=view.well,
        findings=[FindingShown.model_validate(one) for one in view.findings],
    )


def _view(call: Call, row: Mapping[str, Any], versions: Mapping[str, str]) -> NodeView:
    every_s = call.desk.settings.heartbeat_every_s
    return node_view(row, versions=versions, now_ms=call.now_ms, every_s=every_s)
