"""The target state as a balena Supervisor wants it. Pure; the same release gives the same bytes.

Rules (recorded in supervisor/backend): the document is taken or refused as a whole; a device needs name, config and
apps, an app id and name, a release id, a service id, image_id, image, environment and labels; values are strings.
Without a stable ETag every poll would cancel and restart the running apply.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

APP_ID = 1
APP_NAME = "baseos"


@dataclass(frozen=True, slots=True)
class TargetService:
    id: int
    name: str
    image_id: int
    image: str
    labels: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    composition: dict[str, Any] = field(default_factory=lambda: {"restart": "always"})


@dataclass(frozen=True, slots=True)
class TargetRelease:
    id: int
    commit: str
    services: tuple[TargetService, ...]
    volumes: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What a node's Supervisor is told."""

    name: str
    release: TargetRelease | None
    withdrawn: bool = False
    """There was a release, and it is not wanted any more: the app stays, with its volumes, and has no release."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What its Supervisor found to be set on the host: given back, or it is dropped there."""


def target_state(*, uuid: str, app_uuid: str, target: Target) -> bytes:
    """The body of `GET /device/v3/<uuid>/state`."""
    release = target.release
    apps = {} if release is None and not target.withdrawn else {app_uuid: _app(release)}
    name = device_name(target.name, uuid)
    document = {uuid: {"name": name, "config": dict(target.config), "apps": apps}}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def etag(body: bytes) -> str:
    """A strong one: equal tags mean equal bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:40]}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """RFC 9110 §13.1.2: any of the listed tags, weak ones included, or `*`."""
    if if_none_match is None:
        return False
    listed = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return tag in listed or "*" in listed


def device_name(name: str, uuid: str) -> str:
    """A device name must not hold a newline, nor be empty."""
    return re.sub(r"[^\w.\- ]", "-", name, flags=re.ASCII)[:60] or f"node-{uuid[:7]}"


def _app(release: TargetRelease | None) -> dict[str, object]:
    return {
        "id": APP_ID,
        "name": APP_NAME,
        "class": "fleet",
        "is_host": False,
        "releases": {} if release is None else {release.commit: _release(release)},
    }


def _release(release: TargetRelease) -> dict[str, object]:
    services = {service.name: _service(service) for service in release.services}
    return {
        "id": release.id,
        "services": services,
        "volumes": release.volumes,
        "networks": release.networks,
    }


def _service(service: TargetService) -> dict[str, object]:
    return {
        "id": service.id,
        "image_id": service.image_id,
        "image": service.image,
        "environment": service.environment,
        "labels": service.labels,
        "running": True,
        "composition": service.composition,
    }
