"""Enrollment: a join token becomes a node and a node token. `POST /baseos/v1/nodes/register`.

The join token travels in `Authorization: Bearer`, never in a body or URL. The device draws its node id and its
enrollment secret and makes both durable before it asks. The token is used up for that pair: asking again with the
same secret gets the same node token, until the node's first authenticated heartbeat; anyone else is refused.
"""

from __future__ import annotations

from pydantic import Field, SecretStr, field_serializer

from interfaces.desired import MAX_WAIT_S
from interfaces.wire import Id, Name, Wire


class RegisterRequest(Wire):
    """What a device says when it enrolls."""

    node_id: Id
    """Drawn by the device: the host's device UUID where there is one, so that its Supervisor is the same node."""
    enrollment_secret: SecretStr = Field(min_length=43, max_length=128)
    """At least 256 bits, urlsafe base64, drawn by the device; proves a later ask is the same device's."""
    epoch: Id
    """The epoch of the journal that the device begins."""
    agent_version: Name
    hostname: str = Field(default="", max_length=253)
    device_type: str = Field(default="", max_length=100)

    @field_serializer("enrollment_secret", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class RegisterAnswer(Wire):
    """201: the node exists and this is its credential."""

    node_id: Id
    node_token: SecretStr = Field(min_length=32, max_length=256)
    token_generation: int = Field(ge=1, le=2**53)
    incarnation: Id
    """Which life of Cloudly's database answered; it changes when Cloudly is restored from a backup."""
    heartbeat_every_s: float = Field(default=60.0, gt=0, le=MAX_WAIT_S)

    @field_serializer("node_token", when_used="json")
    def _reveal(self, token: SecretStr) -> str:
        return token.get_secret_value()
