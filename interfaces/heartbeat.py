"""Heartbeat: report in, desired state out. `POST /baseos/v1/nodes/heartbeat`, `Authorization: Bearer <node token>`."""

from __future__ import annotations

from pydantic import Field

from interfaces.desired import MAX_WAIT_S, DesiredState
from interfaces.journal import Ack
from interfaces.reported import ReportedState
from interfaces.wire import Id, Name, Wire


class HeartbeatRequest(Wire):
    node_id: Id
    epoch: Id | None
    """The journal's epoch; None while the journal cannot be opened (degraded)."""
    writer: Id | None = None
    """Which opening of the journal speaks; None while it cannot be opened. A superseded one gets 409 `fenced`."""
    agent_version: Name
    sent_at_ms: int = Field(ge=-(2**53), le=2**53)
    """By the device's wall clock, which may be before 1970."""
    reported: ReportedState


class HeartbeatAnswer(Wire):
    """200. The node's first one closes its enrollment."""

    incarnation: Id
    server_time_ms: int = Field(ge=0, le=2**53)
    desired: DesiredState
    heartbeat_every_s: float = Field(default=60.0, gt=0, le=MAX_WAIT_S)
    """The server's to set; the device adds jitter."""
    diagnosis: Id | None = None
    """A diagnosis that an operator asked for; named until the journal that answers it has arrived."""
    rotate_token: int | None = Field(default=None, ge=1, le=2**53)
    """The generation of the node token that the device is to draw (`interfaces.node_token`); None: it keeps its own."""
    acks: tuple[Ack, ...] = Field(default=(), max_length=2)
    """What Cloudly has of each lane of the epoch in the request."""
    heard: tuple[Ack, ...] = Field(default=(), max_length=2)
    """The furthest head of each lane that Cloudly ever heard of in that epoch: a device behind it has lost its tail."""
