"""Where a Supervisor's target state comes from.

A source answers `fetch` with the body when it has changed and with None when it has not (304). It never interprets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from simulators.supervisor.state import HostFacts, Identity


class SourceUnavailableError(Exception):
    """The backend could not be reached, or did not answer with a target. /v1/update swallows it, the poll retries."""


@dataclass(frozen=True, slots=True)
class Reported:
    """How the backend took a state report."""

    status: int
    retry_after: str | None = None


class TargetSource(Protocol):
    @property
    def needs_no_registration(self) -> bool:
        """Whether reports are taken from a device that has no id yet."""

    async def fetch(self, identity: Identity, host: HostFacts) -> object | None:
        """The body of the target state; None when it is unchanged. Raises SourceUnavailableError."""

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        """Hand in a difference to the last accepted report. Raises SourceUnavailableError."""

    def forget(self) -> None:
        """The Supervisor restarts: it no longer knows the ETag of what it has."""


class MemoryTargets:
    """A target set by a test."""

    needs_no_registration: Final = True

    def __init__(self, body: object | None = None) -> None:
        self._body = body
        self._seen = body is None
        self.reports: list[Mapping[str, Any]] = []
        """Every report that was handed in, oldest first."""
        self.answer = Reported(200)
        """How reports are taken."""

    def set_target(self, body: object) -> None:
        """What the next fetch finds, as the body of `GET /device/v3/<uuid>/state`."""
        self._body, self._seen = body, False

    async def fetch(self, identity: Identity, host: HostFacts) -> object | None:
        del identity, host
        if self._seen:
            return None
        self._seen = True
        return self._body

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        del identity
        self.reports.append(report)
        return self.answer

    def forget(self) -> None:
        self._seen = self._body is None


def target_state(  # noqa: PLR0913 - a target has that many parts, and tests name the ones they mean
    uuid: str,
    commit: str | None,
    images: Mapping[str, str] | None = None,
    *,
    app_id: int = 1001,
    app_uuid: str = "a1b2c3d4e5f60718293a4b5c6d7e8f90",
    app_name: str = "lab-fleet",
    release_id: int = 7001,
    image_id: int = 9001,
    labels: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A target state with one app, in the recorded form. `commit` None: the app has no release.

    `images` maps each service to its image; the first service gets service id 501 and `image_id`, the next ones up.
    """
    services = {
        name: {
            "id": 501 + index,
            "image_id": image_id + 10 * index,
            "image": image,
            "environment": {},
            "labels": {"io.balena.features.supervisor-api": "1", **(labels or {})},
            "running": True,
            "composition": {"restart": "always"},
        }
        for index, (name, image) in enumerate((images or {}).items())
    }
    release = {"id": release_id, "services": services, "volumes": {}, "networks": {}}
    app = {
        "id": app_id,
        "name": app_name,
        "class": "fleet",
        "is_host": False,
        "releases": {} if commit is None else {commit: release},
    }
    return {uuid: {"name": "lab-device", "config": dict(config or {}), "apps": {app_uuid: app}}}
