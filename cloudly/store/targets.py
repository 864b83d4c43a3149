"""What a node and its Supervisor are told: the rows of a release and a deployment as the documents that go out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from sqlite3 import Connection

from cloudly.balena.target import TargetRelease, TargetService
from interfaces.desired import AppTarget, DesiredState


@dataclass(frozen=True, slots=True)
class Target:
    """What a node's Supervisor is told."""

    name: str
    release: TargetRelease | None
    withdrawn: bool
    """There was a release, and it is not wanted any more."""


def target_release(db: Connection, release: int) -> TargetRelease:
    """A release in full, its services by name."""
    commit = db.execute("SELECT commit_id FROM release WHERE id=?", (release,)).fetchone()[0]
    rows = db.execute(
        "SELECT s.id, s.name, r.id, r.image, r.labels FROM release_service r JOIN service s ON s.id=r.service"
        " WHERE r.release=? ORDER BY s.name",
        (release,),
    ).fetchall()
    services = tuple(
        TargetService(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows
    )
    return TargetRelease(release, commit, services)


def desired_state(db: Connection, deployment: str) -> DesiredState:
    """The desired state that this deployment is. A deployment never changes, so neither does this."""
    row = db.execute(
        "SELECT generation, release, policy, rollback_of FROM deployment WHERE deployment=?",
        (deployment,),
    ).fetchone()
    generation, release, policy, rollback_of = row
    app = app_target(db, release, policy, deployment, rollback_of)
    return DesiredState(generation=generation, app=app)


def app_target(
    db: Connection, release: int, policy: str, deployment: str, rollback_of: str | None
) -> AppTarget:
    """A release as a node is told it. Raises ValidationError."""
    version = db.execute("SELECT version FROM release WHERE id=?", (release,)).fetchone()[0]
    target = target_release(db, release)
    return AppTarget.model_validate(
        {
            "deployment": deployment,
            "release": target.commit,
            "version": version,
            "images": [{"service": one.name, "image": one.image} for one in target.services],
            "rollback_of": rollback_of,
            "policy": json.loads(policy),
        }
    )


def target_of(db: Connection, node: int) -> Target:
    """What a node should run, for its Supervisor."""
    row = db.execute(
        "SELECT n.hostname, p.release, d.node FROM node n LEFT JOIN desired d ON d.node=n.id"
        " LEFT JOIN deployment p ON p.deployment=d.deployment WHERE n.id=?",
        (node,),
    ).fetchone()
    name, release, had_one = row
    if release is None:
        return Target(name, None, withdrawn=had_one is not None)
    return Target(name, target_release(db, release), withdrawn=False)
