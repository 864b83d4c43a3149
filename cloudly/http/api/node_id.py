"""The node that a path names, by its whole id: a program that means one node must not get another."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from cloudly.http.api.call import Call
from cloudly.problems import NoSuch
from cloudly.store import reading
from cloudly.store.sql import Row

NodeId = Annotated[
    str,
    Path(
        alias="node",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The node's whole id.",
    ),
]


async def node_row(call: Call, node: str) -> Row:
    """As `reading.NODES` has it. Raises NoSuch."""
    row = await call.read(lambda db: reading.node(db, node))
    if row is None:
        raise NoSuch("node", f"there is no node {node!r}")
    return row


async def node_number(call: Call, node: str) -> int:
    """Raises NoSuch."""
    return int((await node_row(call, node))["id"])
