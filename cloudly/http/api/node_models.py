"""A node as the API shows it: in a list, and in full with both of its stories and why it waits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cloudly.http.api.paging import Shown
from cloudly.reports import waiting_of
from cloudly.service.nodes import NodeInFull


class NodeShown(Shown):
    node_id: str
    name: str
    hostname: str
    device_type: str
    agent_version: str
    fleet: str
    labels: dict[str, str]
    state: str
    """new, online, late, offline, degraded, needs-operator, quarantined, retired or revoked."""
    state_detail: str
    last_seen_at_ms: int | None
    release: str | None
    """The commit that its Supervisor says is running."""
    release_version: str | None
    wanted_version: str | None
    wanted_release: str | None
    generation: int
    observed_generation: int
    deployment: str | None
    deployment_state: str | None
    deployment_open: bool
    rollback_of: str | None
    update_state: str | None
    update_version: str | None
    progress_percent: int | None


class Why(Shown):
    """Why one thing on the node is not finished, as the node says it."""

    stream: str
    state: str
    waits_for: str
    owner: str
    since_ms: int
    until_ms: int | None
    then: str
    resume: str
    reason: str
    tried: list[str]


class SupervisorService(Shown):
    name: str
    release: str
    image: str
    status: str
    progress_percent: int | None


class SupervisorStory(Shown):
    """What its Supervisor has said."""

    registered_at_ms: int
    seen_at_ms: int | None
    at_ms: int | None
    release: str | None
    update_status: dict[str, str]
    services: list[SupervisorService]
    version: str | None
    status: str | None


class JournalStory(Shown):
    """What its agent has said, as far as it concerns the Supervisor."""

    heard_at_ms: int | None
    sees_supervisor: bool | None
    release: str | None
    wanted: str | None
    wanted_version: str | None
    outcome: str | None
    outcome_at_ms: int | None
    open: bool


class DeploymentShown(Shown):
    deployment: str
    release: str
    version: str
    generation: int
    rollback_of: str | None
    ordered_at_ms: int
    actor: str
    """Whose order it was: `api/` and the API token's name, `cli`, or empty for nobody's."""
    state: str
    state_at_ms: int | None
    reason: str
    closed: bool


class NeverAgain(Shown):
    release: str
    version: str
    reason: str
    at_ms: int
    deployment: str


class EnrollmentShown(Shown):
    join_token: int
    name: str
    at_ms: int
    agent: bool
    supervisor: bool
    took_over: bool


class LaneShown(Shown):
    epoch: str
    epoch_n: int
    closed_at_ms: int | None
    lane: str
    ack_seq: int
    head_seq: int
    gaps: int
    missing: int
    opaque: int


class NodeDetail(NodeShown):
    created_at_ms: int
    revoked_at_ms: int | None
    last_good: str | None
    why: list[Why]
    journal: JournalStory
    supervisor: SupervisorStory | None
    """Null: no Supervisor has registered as this device."""
    disagreements: list[str]
    """Where the two stories cannot both be true."""
    asks_operator: list[str]
    notice: str
    reported: dict[str, Any]
    """What its agent said of itself in its last heartbeat."""
    deployments: list[DeploymentShown]
    never_again: list[NeverAgain]
    enrollments: list[EnrollmentShown]
    lanes: list[LaneShown]


def detail_of(node: NodeInFull) -> NodeDetail:
    row, both, parts = node.row, node.both, node.parts
    return NodeDetail(
        **NodeShown.model_validate(node.view).model_dump(),
        created_at_ms=row["created_at_ms"],
        revoked_at_ms=row["revoked_at_ms"],
        last_good=row["last_good"],
        why=[Why.model_validate(asdict(one)) for one in waiting_of(node.reported)],
        journal=JournalStory.model_validate(both.journaled),
        supervisor=both.reported and SupervisorStory.model_validate(asdict(both.reported)),
        disagreements=list(both.disagreements),
        asks_operator=list(node.asks),
        notice=node.notice,
        reported=node.reported,
        deployments=[
            DeploymentShown.model_validate(one | {"release": one["commit_id"]})
            for one in parts["deployments"]
        ],
        never_again=[
            NeverAgain.model_validate(one | {"release": one["commit_id"]})
            for one in parts["never_again"]
        ],
        enrollments=[
            EnrollmentShown.model_validate(one | {"join_token": one["token"]})
            for one in parts["enrollments"]
        ],
        lanes=[LaneShown.model_validate(one) for one in parts["lanes"]],
    )
