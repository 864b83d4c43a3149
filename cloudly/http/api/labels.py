"""Labels of a node: an operator's words, by which rollouts select it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field

from cloudly.access import Permission
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.node_id import NodeId, node_number
from cloudly.http.api.paging import Asked, Shown
from cloudly.http.api.texts import LabelKey, Labels, LabelValue
from cloudly.problems import NoSuch
from cloudly.store import node_labels as store

labels = Resource("labels")

KeyPath = Annotated[LabelKey, Path(alias="label")]


class LabelsShown(Shown):
    node_id: str
    labels: dict[str, str]


class LabelsAsked(Asked):
    labels: Labels = Field(...)
    """All that it is to have: those that are left out are removed."""


class LabelAsked(Asked):
    value: LabelValue


@labels.on("GET", "/nodes/{node}/labels", needs=Permission.NODES_READ)
async def get_labels(call: Called, node: NodeId) -> LabelsShown:
    return await _shown(call, node, await node_number(call, node))


@labels.on("PUT", "/nodes/{node}/labels", needs=Permission.NODES_ORDER)
async def put_labels(call: Called, node: NodeId, asked: LabelsAsked) -> LabelsShown:
    """These, and no others."""
    number = await node_number(call, node)
    await call.write(lambda db: store.replace(db, number, asked.labels, by=call.by))
    return await _shown(call, node, number)


@labels.on("PUT", "/nodes/{node}/labels/{label}", needs=Permission.NODES_ORDER)
async def put_label(call: Called, node: NodeId, label: KeyPath, asked: LabelAsked) -> LabelsShown:
    """The others stay as they are."""
    number, change = await node_number(call, node), f"{label}={asked.value}"
    await call.write(lambda db: store.change(db, number, [change], by=call.by))
    return await _shown(call, node, number)


@labels.on("DELETE", "/nodes/{node}/labels/{label}", needs=Permission.NODES_ORDER)
async def remove_label(call: Called, node: NodeId, label: KeyPath) -> LabelsShown:
    number = await node_number(call, node)
    before = await call.read(lambda db: store.of(db, number))
    if label not in before:
        raise NoSuch("label of this node", f"it has no label {label!r}")
    await call.write(lambda db: store.change(db, number, [f"{label}-"], by=call.by))
    return await _shown(call, node, number)


async def _shown(call: Call, node: str, number: int) -> LabelsShown:
    return LabelsShown(node_id=node, labels=await call.read(lambda db: store.of(db, number)))
