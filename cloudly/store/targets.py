"""What a node and its Supervisor are told: the rows of a release and a deployment as the documents that go out."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cloudly.balena.target import Target, TargetRelease, TargetService
from cloudly.store.sql import Connection
from interfaces.desired import AppTarget, DesiredState


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a target state is made of: equal ones make the same bytes."""

    device: int
    name: str
    release: int | None
    withdrawn: bool
    config: str
    key_hash: bytes | None
    """Of its Supervisor's key, which its agent's enrollment ticket is made of."""


def target_release(db: Connection, release: int) -> TargetRelease:
    """A release in full, its services by name."""
    commit, volumes, networks = db.execute(
        "SELECT commit_id, volumes, networks FROM release WHERE id=?", (release,)
    ).fetchone()
    rows = db.execute(
        "SELECT s.id, s.name, r.id, r.image, r.labels, r.environment, r.composition"
        " FROM release_service r JOIN service s ON s.id=r.service WHERE r.release=? ORDER BY s.name",
        (release,),
    ).fetchall()
    services = tuple(
        TargetService(*row[:4], *(json.loads(text) for text in row[4:])) for row in rows
    )
    return TargetRelease(release, commit, services, json.loads(volumes), json.loads(networks))


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


def ingredients(db: Connection, node: int) -> Ingredients:
    """A release never changes, so its number is enough."""
    row = db.execute(
        "SELECT CASE coalesce(b.name, '') WHEN '' THEN n.hostname ELSE b.name END, p.release, d.node IS NOT NULL,"
        " (SELECT coalesce(json_group_object(c.name, c.value), '{}') FROM"
        "  (SELECT name, value FROM device_config WHERE node=n.id ORDER BY name) c), b.key_hash"
        " FROM node n LEFT JOIN device b ON b.node=n.id LEFT JOIN desired d ON d.node=n.id"
        " LEFT JOIN deployment p ON p.deployment=d.deployment WHERE n.id=?",
        (node,),
    ).fetchone()
    return Ingredients(node, row[0], row[1], bool(row[2]) and row[1] is None, row[3], row[4])


def target_of(db: Connection, node: int) -> Target:
    """What a node should run, for its Supervisor."""
    return made(db, ingredients(db, node))


def made(db: Connection, of: Ingredients) -> Target:
    """The target that is made of these."""
    release = None if of.release is None else target_release(db, of.release)
    return Target(of.name, release, of.withdrawn, json.loads(of.config))
