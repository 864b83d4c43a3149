"""Releases: what each one is, for ever, and that a Supervisor and a node can be told it.

Rules:
- A release never changes: its commit is its identity, and the same commit with other contents is refused.
- One repository per image, over all releases: a Supervisor that has an image of a repository pulls no second one of it.
- What a Supervisor would reject, and what a node could not be told, is refused here, and not on every device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cloudly.balena.compose.read import Composed, commit_of
from cloudly.balena.image import HOW_TO, digest_of, repository_of
from cloudly.balena.target import Target, TargetRelease, TargetService, target_state
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.sql import Connection
from cloudly.store.targets import app_target, target_release
from interfaces.desired import UpdatePolicy
from interfaces.target_verdict import faults_of

SAMPLE = "0123456789abcdef0123456789abcdef"
"""A device that there is not; its target is any device's."""
SHORTEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class NewRelease:
    """A release as the operator defines it: by compose file, or by images and labels alone. By service, each."""

    commit: str
    version: str
    images: dict[str, str]
    labels: dict[str, dict[str, str]]
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    composition: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    compose: str | None = None
    """The file that it was made from, as it came."""


def composed_release(composed: Composed, version: str, commit: str | None = None) -> NewRelease:
    """The release that a compose file makes; without a commit, one made of what the file says."""
    services = composed.services
    return NewRelease(
        commit or commit_of(composed, version),
        version,
        images={one.name: one.image for one in services},
        labels={one.name: one.labels for one in services},
        environment={one.name: one.environment for one in services},
        composition={one.name: one.composition for one in services},
        volumes=composed.volumes,
        networks=composed.networks,
        compose=composed.text,
    )


def define_release(db: Connection, new: NewRelease, now_ms: int, *, by: By | None = None) -> int:
    """The release's id, also when it is known already. Raises BadOrder; then nothing may be committed."""
    strange = sorted(set(new.labels) - set(new.images)) if new.images else []
    if strange:
        raise BadOrder(f"there is a label for {strange[0]}, and no image: name it with --image")
    row = db.execute("SELECT id, version FROM release WHERE commit_id=?", (new.commit,)).fetchone()
    if row is None:
        made = _insert_release(db, new, now_ms)
        audit.note(db, by, "release.created", f"release/{new.version}", commit=new.commit)
        return made
    if row[1] != new.version or (new.images and _contents(db, row[0]) != _asked(new)):
        raise BadOrder(
            f"release {new.commit} is already defined as {row[1]} with other contents; a release never changes:"
            " give the new contents a new --release"
        )
    return int(row[0])


def find_release(db: Connection, wanted: str) -> int:
    """A release by its commit, its version, or the first digits of its commit. Raises BadOrder."""
    row = db.execute("SELECT id FROM release WHERE commit_id=?", (wanted,)).fetchone()
    if row is not None:
        return int(row[0])
    prefix = wanted if len(wanted) >= SHORTEST_PREFIX else ""
    for question, word in (
        ("version=?", wanted),
        ("?1<>'' AND substr(commit_id, 1, length(?1))=?1", prefix),
    ):
        found = db.execute(
            f"SELECT id, commit_id FROM release WHERE {question} ORDER BY id",  # noqa: S608 - one of two
            (word,),
        ).fetchall()
        if len(found) > 1:
            commits = " or ".join(one[1] for one in found[:5])
            raise BadOrder(f"{wanted!r} means {len(found)} releases: name the commit, {commits}")
        if found:
            return int(found[0][0])
    raise NoSuch(
        "release",
        f"there is no release {wanted!r}: `cloudly release list` shows them, and one is made with"
        " `cloudly release create COMPOSE_FILE`, or here with --release and --image service=ref@sha256:...",
    )


def named(db: Connection, release: int) -> dict[str, str]:
    """Its version and its commit."""
    row = db.execute("SELECT version, commit_id FROM release WHERE id=?", (release,)).fetchone()
    return dict(row)


def used_again(db: Connection, new: NewRelease) -> list[str]:
    """A warning for each image that another release has under the very same name.

    A Supervisor keeps an image per release (compose/application-manager.ts, `saveAndRemoveImages`). Where a container
    goes on running with an image that stayed the same, it tries to remove the older release's by name; an engine
    refuses that as long as the container runs, and the apply never ends (the second half of trap 4, by the same call).
    """
    earlier = {
        row[0]: row[1]
        for row in db.execute(
            "SELECT i.image, r.version FROM release_service i JOIN release r ON r.id=i.release"
            " WHERE r.commit_id<>? ORDER BY i.id",
            (new.commit,),
        )
    }
    return [
        f"service {service}: release {earlier[image]} has this very image; a device that goes from one to the other"
        f" never finishes, because its Supervisor cannot remove the older name under a running container: {HOW_TO},"
        " also an image that stays the same"
        for service, image in sorted(new.images.items())
        if image in earlier
    ]


def sample_target(db: Connection, release: int, app_uuid: str) -> Any:
    """The very target state that a Supervisor gets with this release, for a device that there is not."""
    target = target_release(db, release)
    return json.loads(target_state(uuid=SAMPLE, app_uuid=app_uuid, target=Target("sample", target)))


def wanted_by(db: Connection, release: int) -> dict[str, list[str]]:
    """The nodes whose desired state it is, by id, and the fleets whose new nodes get it, by name."""
    nodes = db.execute(
        "SELECT n.node_id FROM desired d JOIN deployment p ON p.deployment=d.deployment"
        " JOIN node n ON n.id=d.node WHERE p.release=? ORDER BY n.id",
        (release,),
    ).fetchall()
    fleets = db.execute("SELECT name FROM fleet WHERE release=? ORDER BY id", (release,)).fetchall()
    return {"nodes": [row[0] for row in nodes], "fleets": [row[0] for row in fleets]}


def untellable(problem: ValidationError) -> BadOrder:
    first = problem.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return BadOrder(f"this release cannot be told to a node: {where}: {first['msg']}")


def _insert_release(db: Connection, new: NewRelease, now_ms: int) -> int:
    if not new.images:
        raise BadOrder(
            f"release {new.commit} is not known yet: say what it runs with --image service=ref@sha256:..."
        )
    _check_repositories(db, new)
    release = db.execute(
        "INSERT INTO release(commit_id, version, created_at_ms, volumes, networks, compose)"
        " VALUES(?,?,?,?,?,?) RETURNING id",
        (new.commit, new.version, now_ms, _json(new.volumes), _json(new.networks), new.compose),
    ).fetchone()[0]
    for service in _services(new):
        db.execute("INSERT INTO service(name) VALUES(?) ON CONFLICT DO NOTHING", (service.name,))
        db.execute(
            "INSERT INTO release_service(release, service, image, labels, environment, composition)"
            " SELECT CAST(? AS BIGINT), id, ?, ?, ?, ? FROM service WHERE name=?",
            (
                release,
                service.image,
                _json(service.labels),
                _json(service.environment),
                _json(service.composition),
                service.name,
            ),
        )
    _check_told(db, release)
    return int(release)


def _services(new: NewRelease) -> Iterator[TargetService]:
    """Without ids, by name."""
    for name, image in sorted(new.images.items()):
        labels, environment = new.labels.get(name, {}), new.environment.get(name, {})
        if name in new.composition:
            yield TargetService(0, name, 0, image, labels, environment, new.composition[name])
        else:
            yield TargetService(0, name, 0, image, labels, environment)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _check_repositories(db: Connection, new: NewRelease) -> None:
    """Raises BadOrder for a digest that a device with another image of its repository would never pull."""
    used = {
        repository_of(row[0]): (digest_of(row[0]), f"release {row[1]} ({row[2][:12]}) uses it")
        for row in db.execute(
            "SELECT i.image, r.version, r.commit_id FROM release_service i JOIN release r ON r.id=i.release"
            " ORDER BY i.id DESC"
        )
    }
    for service, image in sorted(new.images.items()):
        mine = (digest_of(image), f"its service {service} uses it")
        digest, who = used.setdefault(repository_of(image), mine)
        if digest != mine[0]:
            raise BadOrder(
                f"service {service}: the repository {repository_of(image)} holds another image already: {who} with"
                f" {digest[:19]}…; a Supervisor that has one image of a repository never pulls a second by digest,"
                f" and calls the old one new: {HOW_TO}"
            )


def _check_told(db: Connection, release: int) -> None:
    """Build what a node and its Supervisor will be told, and ask for the Supervisor's verdict. Raises BadOrder."""
    try:
        app_target(db, release, UpdatePolicy().model_dump_json(), "any", None)
    except ValidationError as problem:
        raise untellable(problem) from None
    target = sample_target(db, release, SAMPLE)
    faults = faults_of(target[SAMPLE], SAMPLE)
    if faults:
        (commit,) = target[SAMPLE]["apps"][SAMPLE]["releases"]
        place = f"{SAMPLE}.apps.{SAMPLE}.0.releases.{commit}."
        told = "\n".join(f"  {fault.replace(place, '')}" for fault in faults)
        raise BadOrder(f"a Supervisor would reject the whole target of this release:\n{told}")


def _asked(new: NewRelease) -> tuple[object, ...]:
    return _comparable(TargetRelease(0, "", tuple(_services(new)), new.volumes, new.networks))


def _contents(db: Connection, release: int) -> tuple[object, ...]:
    return _comparable(target_release(db, release))


def _comparable(release: TargetRelease) -> tuple[object, ...]:
    services = {
        one.name: (one.image, one.labels, one.environment, one.composition)
        for one in release.services
    }
    return services, release.volumes, release.networks
