"""A target state: what the backend wants the device to run, as the Supervisor understands it once it has accepted it.

Rules:
- A target is accepted or rejected as a whole (`interfaces/target_verdict.py`); what stands here has been accepted.
- The config's names lose their `RESIN_`/`BALENA_` prefix; values are strings, as they came.

Source: `backend/target-state.example.json` and the recorded target states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from interfaces.target_verdict import TargetRejectedError, faults_of

CONFIG_PREFIXES: Final = ("RESIN_", "BALENA_")


class NotOursError(TargetRejectedError):
    """The target state does not speak of this device; the backend never hears of it."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    name: str
    service_id: int
    image_id: int
    image: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    running: bool = True
    volumes: tuple[str | dict[str, Any], ...] = ()
    """As the composition has them: short, or in the long form."""

    @property
    def repository(self) -> str | None:
        """The image without its digest; None for an image named by tag."""
        repository, at, _ = self.image.partition("@sha256:")
        return repository if at else None


@dataclass(frozen=True, slots=True)
class AppTarget:
    uuid: str
    app_id: int
    name: str
    commit: str | None = None
    release_id: int | None = None
    services: tuple[ServiceTarget, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    name: str = "local"
    config: Mapping[str, str] = field(default_factory=dict)
    apps: tuple[AppTarget, ...] = ()

    def app(self, app_id: int) -> AppTarget | None:
        return next((app for app in self.apps if app.app_id == app_id), None)


def read_target(uuid: str, body: object) -> Target:
    """What the body of `GET /device/v3/<uuid>/state` wants of this device.

    Raises:
        TargetRejectedError: the whole of it is refused, for the reasons it holds.

    """
    mine = body.get(uuid) if isinstance(body, dict) else None
    if mine is None:
        raise NotOursError(
            (f"Expected target state for local device with uuid '{uuid}'.",),
        )
    return _read(uuid, mine)


def read_local_target(uuid: str, local: Mapping[str, Any]) -> Target:
    """The same of `POST /v2/local/target-state`, where names, config and ids may be left out."""
    apps = {
        key: {"id": key, **app} if isinstance(app, dict) else app
        for key, app in local.get("apps", {}).items()
    }
    return _read(uuid, {"name": "local", "config": {}, **local, "apps": apps})


def _read(uuid: str, mine: Mapping[str, Any]) -> Target:
    faults = faults_of(mine, uuid)
    if faults:
        raise TargetRejectedError(faults)
    return Target(
        name=mine["name"],
        config=bare_config(mine["config"]),
        apps=tuple(_read_app(app_uuid, app) for app_uuid, app in mine["apps"].items()),
    )


def _read_app(uuid: str, app: Mapping[str, Any]) -> AppTarget:
    releases = app.get("releases") or {}
    nothing: tuple[None, dict[str, Any]] = (None, {})
    commit, release = next(iter(releases.items()), nothing)
    services = (release.get("services") or {}).items()
    return AppTarget(
        uuid=uuid,
        app_id=int(app["id"]),
        name=app["name"],
        commit=commit,
        release_id=int(release["id"]) if release else None,
        services=tuple(_read_service(name, service) for name, service in services),
        volumes=tuple(release.get("volumes") or ()),
    )


def _read_service(name: str, service: Mapping[str, Any]) -> ServiceTarget:
    return ServiceTarget(
        name=name,
        service_id=int(service["id"]),
        image_id=int(service["image_id"]),
        image=service["image"],
        environment=dict(service["environment"]),
        labels=dict(service["labels"]),
        running=service.get("running", True),
        volumes=tuple((service.get("composition") or {}).get("volumes") or ()),
    )


def bare_config(config: Mapping[str, str]) -> dict[str, str]:
    """The config with its names bare; `BALENA_X` wins over `RESIN_X`, and that over `X` (code)."""
    bare: dict[str, str] = {}
    for prefix in ("BALENA_", "RESIN_", ""):
        for name, value in config.items():
            if name.startswith(prefix) and (prefix or not name.startswith(CONFIG_PREFIXES)):
                bare.setdefault(name.removeprefix(prefix), value)
    return bare
