"""Releases and desired state: what should run on a node, since when, and what must never run on it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from sqlite3 import Connection

from cloudly.balena import TargetRelease, TargetService
from cloudly.deployments import ORDERED
from cloudly.problems import BadOrder
from interfaces.desired import AppTarget, DesiredState, ServiceImage, UpdatePolicy

DEFAULT = "default-release"
"""Key in `meta`: the release of `cloudly release set --all`, for nodes that enroll later."""


@dataclass(frozen=True, slots=True)
class NewRelease:
    """A release as the operator defines it. The commit is its identity; it never changes."""

    commit: str
    version: str
    images: dict[str, str]
    labels: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Order:
    """A release as one node's target."""

    node: int
    release: int
    policy: str
    deployment: str
    now_ms: int
    rollback_of: str | None = None


def define_release(db: Connection, new: NewRelease, now_ms: int) -> int:
    """The release's id. Raises BadOrder when the commit is known with other contents."""
    row = db.execute("SELECT id, version FROM release WHERE commit_id=?", (new.commit,)).fetchone()
    if row is None:
        return _insert_release(db, new, now_ms)
    if row[1] != new.version or (new.images and _contents(db, row[0]) != (new.images, new.labels)):
        raise BadOrder(
            f"release {new.commit} is already defined as {row[1]} with other contents; a release never changes:"
            " give the new contents a new --release"
        )
    return int(row[0])


def _insert_release(db: Connection, new: NewRelease, now_ms: int) -> int:
    if not new.images:
        raise BadOrder(
            f"release {new.commit} is not known yet: say what it runs with --image service=ref@sha256:..."
        )
    release = db.execute(
        "INSERT INTO release(commit_id, version, created_at_ms) VALUES(?,?,?) RETURNING id",
        (new.commit, new.version, now_ms),
    ).fetchone()[0]
    for service, image in sorted(new.images.items()):
        db.execute("INSERT INTO service(name) VALUES(?) ON CONFLICT DO NOTHING", (service,))
        db.execute(
            "INSERT INTO release_service(release, service, image, labels)"
            " SELECT ?, id, ?, ? FROM service WHERE name=?",
            (release, image, json.dumps(new.labels.get(service, {}), sort_keys=True), service),
        )
    return int(release)


def _contents(db: Connection, release: int) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    services = target_release(db, release).services
    return (
        {service.name: service.image for service in services},
        {service.name: service.labels for service in services if service.labels},
    )


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


def order(db: Connection, new: Order) -> int:
    """Make a release the node's desired state; returns the new generation."""
    row = db.execute("SELECT generation FROM desired WHERE node=?", (new.node,)).fetchone()
    generation = 1 if row is None else row[0] + 1
    db.execute(
        "INSERT INTO deployment(deployment, node, release, generation, policy, rollback_of, ordered_at_ms, state,"
        " reason, needs_rollback, closed) VALUES(?,?,?,?,?,?,?,?,'',0,0)",
        (
            new.deployment,
            new.node,
            new.release,
            generation,
            new.policy,
            new.rollback_of,
            new.now_ms,
            ORDERED,
        ),
    )
    db.execute(
        "INSERT INTO desired(node, generation, deployment) VALUES(?,?,?) ON CONFLICT(node) DO UPDATE"
        " SET generation=excluded.generation, deployment=excluded.deployment",
        (new.node, generation, new.deployment),
    )
    db.execute("UPDATE node SET needs_operator=NULL WHERE id=?", (new.node,))
    return int(generation)


def set_release(db: Connection, new: Order, *, again: bool) -> int | None:
    """The operator's order; None when the node has it already. Raises BadOrder for a release it may never run again."""
    refused = db.execute(
        "SELECT reason FROM never_again WHERE node=? AND release=?", (new.node, new.release)
    ).fetchone()
    if refused is not None:
        if not again:
            raise BadOrder(
                f"this release needed a rollback there before ({refused[0] or 'no reason was given'});"
                " to try it nevertheless, say --again"
            )
        db.execute("DELETE FROM never_again WHERE node=? AND release=?", (new.node, new.release))
    if not again and _has_it(db, new):
        return None
    return order(db, new)


def _has_it(db: Connection, new: Order) -> bool:
    row = db.execute(
        "SELECT p.release, p.policy, p.state, p.closed FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " WHERE d.node=?",
        (new.node,),
    ).fetchone()
    if row is None or (row[0], row[1]) != (new.release, new.policy):
        return False
    return row[2] == "succeeded" or not row[3]


def set_default(db: Connection, release: int, policy: str) -> None:
    """What nodes that enroll later shall run."""
    value = json.dumps({"release": release, "policy": policy})
    db.execute(
        "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (DEFAULT, value),
    )


def order_default(db: Connection, node: int, *, deployment: str, now_ms: int) -> None:
    row = db.execute("SELECT value FROM meta WHERE key=?", (DEFAULT,)).fetchone()
    if row is not None:
        default = json.loads(row[0])
        order(db, Order(node, default["release"], default["policy"], deployment, now_ms))


def order_again(db: Connection, node: int, *, deployment: str, now_ms: int) -> None:
    """A reflashed node starts from nothing: what it had begun or finished is ordered anew, unless it must not run."""
    row = db.execute(
        "SELECT p.release, p.policy, p.state FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " WHERE d.node=? AND NOT EXISTS"
        " (SELECT 1 FROM never_again a WHERE a.node=p.node AND a.release=p.release)",
        (node,),
    ).fetchone()
    if row is not None and row[2] != ORDERED:
        order(db, Order(node, row[0], row[1], deployment, now_ms))


def desired_state(db: Connection, deployment: str) -> DesiredState:
    """The desired state that this deployment is. A deployment never changes, so neither does this."""
    row = db.execute(
        "SELECT p.generation, p.release, p.policy, p.rollback_of, r.commit_id, r.version FROM deployment p"
        " JOIN release r ON r.id=p.release WHERE p.deployment=?",
        (deployment,),
    ).fetchone()
    generation, release, policy, rollback_of, commit, version = row
    services = target_release(db, release).services
    app = AppTarget(
        deployment=deployment,
        release=commit,
        version=version,
        images=tuple(
            ServiceImage(service=service.name, image=service.image) for service in services
        ),
        rollback_of=rollback_of,
        policy=UpdatePolicy.model_validate_json(policy),
    )
    return DesiredState(generation=generation, app=app)


def target_of(db: Connection, node: int) -> tuple[str, TargetRelease | None]:
    """A node's name and the release it should run, for its Supervisor."""
    row = db.execute(
        "SELECT n.hostname, p.release FROM node n LEFT JOIN desired d ON d.node=n.id"
        " LEFT JOIN deployment p ON p.deployment=d.deployment WHERE n.id=?",
        (node,),
    ).fetchone()
    return row[0], None if row[1] is None else target_release(db, row[1])
