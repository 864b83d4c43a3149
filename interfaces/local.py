"""What a neighbour app may ask of baserunner: the local API, `/v1/`, over a unix socket of this device.

Rules:
- Every request carries the capability token (`Authorization: Bearer ...`), from the file beside the socket. It is made
  anew at each boot of the host.
- An answer holds no secret. Errors are problems (`interfaces.problem`).
- A lock is a lease: it has an owner, a reason and an end. Its id, which only who acquired it was told together with
  its key, is not enough to renew or release it.

| route                     | asks                | answers                   |
|---------------------------|---------------------|---------------------------|
| `GET /v1/handshake`       |                     | 200 `Handshake`           |
| `GET /v1/status`          |                     | 200 `RuntimeStatus`       |
| `GET /v1/locks`           |                     | 200 `Locks`               |
| `POST /v1/locks`          | `Acquire`           | 201 `Held`; 409 `locked-out`: an update is being applied now |
| `POST /v1/locks/ID/renew` | `Renew`             | 200 `Lock`; 404 it ended; 403 the key is another one's |
| `POST /v1/locks/ID/release` | `Release`         | 200 `Lock`; the same again is the same answer |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_serializer

from interfaces.reported import UpdateReport, Waiting
from interfaces.wire import Id, Line, Wire

PROTOCOL = 1
"""Grows when an older client would misunderstand a newer agent; what is only added leaves it."""
LEAST_TTL_S, MOST_TTL_S = 5.0, 3600.0
"""A holder that needs longer renews: a dead one must not hold an update up for more than an hour."""
MOST_LOCKS = 16
"""Held at once on a device."""
SOCKET_FILE, TOKEN_FILE = "agent.sock", "token"
"""In the directory that the agent shares with a neighbour."""
HOST = "baseos"
"""What a request over the socket names as its host."""

OwnerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
LockId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Capability(StrEnum):
    STATUS = "status"
    LOCKS = "locks"


class Handshake(Wire):
    """Who answers. A client that does not know `protocol` does not go on."""

    runtime: Literal["baseos"] = "baseos"
    protocol: int
    agent_version: str = Field(max_length=100)
    node_id: Id | None
    """None: not enrolled yet."""
    boot_id: str = Field(max_length=100)
    """Of the host: the capability token is another one after it changed."""
    capabilities: tuple[str, ...]
    """What this agent can do, as in `Capability`; more may come."""


class LockState(StrEnum):
    HELD = "held"
    RELEASED = "released"
    EXPIRED = "expired"
    BROKEN = "broken"
    """By an operator."""


class Lock(Wire):
    """One lease, as everybody may see it."""

    lock: LockId
    owner: OwnerName
    reason: Line
    state: LockState
    since_ms: int
    """Wall clock of this device, which may be wrong; `left_s` is not."""
    until_ms: int | None
    """None: it has ended."""
    left_s: float = Field(ge=0)
    ended_why: Line = ""


class Locks(Wire):
    locks: tuple[Lock, ...]
    """Those that are held, the oldest first."""


class Acquire(Wire):
    owner: OwnerName
    reason: Line = Field(min_length=1)
    ttl_s: float = Field(ge=LEAST_TTL_S, le=MOST_TTL_S)
    request_id: LockId
    """Drawn by who asks: the same request again is answered with the same lease, not with a second one."""


class Held(Wire):
    lock: Lock
    key: SecretStr
    """Renews and releases it; told this once (and again for the same `request_id`)."""

    @field_serializer("key", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Renew(Wire):
    key: SecretStr
    ttl_s: float = Field(ge=LEAST_TTL_S, le=MOST_TTL_S)
    """From now on, not in addition."""

    @field_serializer("key", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Release(Wire):
    key: SecretStr

    @field_serializer("key", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Running(Wire):
    commit: Id
    version: str = Field(default="", max_length=200)


class RuntimeStatus(Wire):
    """What a neighbour shows of BaseOS in its own system status."""

    node_id: Id | None
    enrolled: bool
    enrollment: Line
    """In words."""
    release: Running | None
    """What the Supervisor reports; None: nothing, or it does not answer."""
    update: UpdateReport | None
    waiting: tuple[Waiting, ...]
    """Why whatever is not finished is not: as `baserunner why`."""
    locks: tuple[Lock, ...]
    may_reboot: bool
    why_not_reboot: tuple[Line, ...]
