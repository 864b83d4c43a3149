"""What the Supervisor knows: `Kept` survives its restart (its database and the container engine), `Fleeting` does not.

Rules:
- Statuses of work in progress (Downloading, Stopping, Installing, ...) are fleeting: they overlay what is kept.
- Counters of failed applies and the three update flags are fleeting too: a restart forgets them.
- Secrets never show in a repr.

Source: the order and wording of statuses are those of the recorded timelines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from simulators.supervisor.target import AppTarget, ServiceTarget, Target

VERSION: Final = "19.0.5"


class Life(StrEnum):
    """What the engine says of a container; the values are the Supervisor's words for it."""

    CREATED = "Installed"
    RUNNING = "Running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the device is. The defaults are the recorded device's."""

    os_version: str = "balenaOS 6.5.1"
    os_variant: str = "dev"
    device_type: str = "generic-amd64"
    arch: str = "amd64"
    ip_address: str = "192.0.2.2 fd00::2"
    mac_address: str = "02:FC:00:00:00:01 2A:BB:35:25:96:4A 1E:79:2C:CA:29:10"
    hostname: str = "labdevice"
    api_port: int = 48484


@dataclass(slots=True)
class Identity:
    """Who the device is to its backend."""

    uuid: str
    device_key: str = field(repr=False)
    device_id: int | None = None
    """None until it has registered."""
    configured_at: str = ""
    """The backend that has been told the initial config."""


@dataclass(slots=True)
class Image:
    """One row of the Supervisor's image table; `docker_id` is the engine's name for its content."""

    name: str
    app_id: int
    service: str
    image_id: int
    release_id: int
    commit: str
    docker_id: str = ""

    @property
    def key(self) -> tuple[int, str, str, int]:
        """What makes two rows the same image of the same service."""
        return (self.app_id, self.service, self.name, self.image_id)


@dataclass(slots=True)
class Container:
    id: str
    app_id: int
    service: str
    service_id: int
    image: Image
    created_at: str
    labels: dict[str, str]
    environment: dict[str, str]
    api_key: str = field(default="", repr=False)
    life: Life = Life.CREATED


@dataclass(slots=True)
class Kept:
    identity: Identity
    global_key: str = field(repr=False)
    service_keys: dict[tuple[int, str], str] = field(default_factory=dict, repr=False)
    target: Target = field(default_factory=Target)
    commits: dict[int, str] = field(default_factory=dict)
    """The release of each app that was applied to its end."""
    app_uuids: dict[int, str] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    config: dict[str, str] = field(default_factory=dict)
    """What the settings are now; the apply brings them to the target's. Empty without a backend."""
    volumes: list[str] = field(default_factory=list)
    """Volumes and networks that exist, by app: `1001 volume 'data'`."""
    reported: dict[str, Any] = field(default_factory=dict, repr=False)
    """The last state report that was accepted. It lives in a tmpfs: a reboot of the host forgets it."""
    tags_wanted: dict[str, str] = field(default_factory=dict)
    """Tags that the backend has not been told yet."""
    tags_reported: dict[str, str] = field(default_factory=dict)
    hostname: str = ""

    def image(self, like: Image) -> Image | None:
        return next((row for row in self.images if row.key == like.key), None)

    def containers_of(self, app_id: int) -> list[Container]:
        return [container for container in self.containers if container.app_id == app_id]

    def container(self, app_id: int, service: str) -> Container | None:
        return next((held for held in self.containers_of(app_id) if held.service == service), None)


@dataclass(slots=True)
class Work:
    """A fleeting status of an image."""

    image: Image
    status: str
    progress: int | None = None


@dataclass(slots=True)
class Fleeting:
    applying: bool = False
    update_pending: bool = False
    update_failed: bool = False
    update_downloaded: bool = False
    images: list[Work] = field(default_factory=list)
    services: dict[str, str] = field(default_factory=dict)
    """Status by container id."""
    installing: list[Image] = field(default_factory=list)
    """Images of services whose container is about to exist."""

    def reset(self) -> None:
        """The Supervisor restarts."""
        self.applying = self.update_pending = self.update_failed = self.update_downloaded = False
        self.rest()

    def rest(self) -> None:
        """No work is in progress."""
        self.images = []
        self.services.clear()
        self.installing.clear()


def image_of(app: AppTarget, service: ServiceTarget) -> Image:
    """The row that the image table will have for this service of a target."""
    return Image(
        name=service.image,
        app_id=app.app_id,
        service=service.name,
        image_id=service.image_id,
        release_id=app.release_id or 0,
        commit=app.commit or "",
    )
