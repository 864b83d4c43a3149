"""A node token is replaced: `POST /baseos/v1/nodes/token`, `Authorization: Bearer <node token>`.

Cloudly asks for it in the answer to a heartbeat (`rotate_token`). The device draws the new one and makes it durable
before it says anything, and says no more than its SHA-256. From the answer on both are good, until the first request
with the new one, which makes it the node token; the old one is refused from then on.
"""

from __future__ import annotations

from pydantic import Field

from interfaces.wire import Hex32, Id, Wire


class NodeTokenRequest(Wire):
    """The node token that the device drew to follow the one that it asks with."""

    node_id: Id
    token_hash: Hex32
    """SHA-256 of it; the token itself is never sent before it is used."""
    generation: int = Field(ge=1, le=2**53)
    """Which one it is to be, as Cloudly asked for."""


class NodeTokenAnswer(Wire):
    """200: it is durable at Cloudly, and may be used from now on."""

    node_id: Id
    generation: int = Field(ge=1, le=2**53)
    """Which one it will be, with its first use."""
    incarnation: Id
