"""Where a Supervisor's target state comes from.

A source answers `fetch` with the body when it has changed and with None when it has not (304). It never interprets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from simulators.supervisor.log_stream import Connection
from simulators.supervisor.state import HostFacts, Identity, Kept


class SourceUnavailableError(Exception):
    """The backend could not be reached, or did not answer with a target. /v1/update swallows it, the poll retries."""


@dataclass(frozen=True, slots=True)
class Reported:
    """How the backend took a report."""

    status: int
    retry_after: str | None = None
    refusal: str = ""
    """What it said when it did not take it."""

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300


class TargetSource(Protocol):
    @property
    def takes_logs(self) -> bool:
        """Whether there is a log stream."""

    async def join(self, kept: Kept, host: HostFacts) -> str | None:
        """Do what comes before the first poll; done already, it does nothing. Raises SourceUnavailableError.

        Returns what the log stream is told of it.
        """

    async def fetch(self, identity: Identity) -> object | None:
        """The body of the target state; None when it is unchanged. Raises SourceUnavailableError."""

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        """Hand in a difference to the last accepted report. Raises SourceUnavailableError."""

    async def report_tags(self, identity: Identity, tags: Mapping[str, str]) -> Reported:
        """Hand in tags. Raises SourceUnavailableError."""

    async def tags(self, identity: Identity) -> list[Mapping[str, Any]]:
        """All tags, each `{id, name, value}`. Raises SourceUnavailableError."""

    async def stream_logs(self, identity: Identity, connection: Connection) -> int:
        """Send one connection's body; returns the status of the answer. Raises OSError."""

    def forget(self) -> None:
        """The Supervisor restarts: it no longer knows the ETag of what it has."""


class MemoryTargets:
    """A target set by a test."""

    takes_logs: Final = False

    def __init__(self, body: object | None = None) -> None:
        self._body = body
        self._seen = body is None
        self.reports: list[Mapping[str, Any]] = []
        """Every report that was handed in, oldest first."""
        self.answer = Reported(200)
        """How reports are taken."""
        self.told_tags: dict[str, str] = {}
        self.tag_reports = 0
        """How often tags were handed in."""

    def set_target(self, body: object) -> None:
        """What the next fetch finds, as the body of `GET /device/v3/<uuid>/state`."""
        self._body, self._seen = body, False

    async def join(self, kept: Kept, host: HostFacts) -> str | None:
        del kept, host
        return None

    async def fetch(self, identity: Identity) -> object | None:
        del identity
        if self._seen:
            return None
        self._seen = True
        return self._body

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        del identity
        self.reports.append(report)
        return self.answer

    async def report_tags(self, identity: Identity, tags: Mapping[str, str]) -> Reported:
        del identity
        self.tag_reports += 1
        if self.answer.taken:
            self.told_tags |= tags
        return self.answer

    async def tags(self, identity: Identity) -> list[Mapping[str, Any]]:
        del identity
        return [
            {"id": index, "name": name, "value": value}
            for index, (name, value) in enumerate(self.told_tags.items(), 1)
        ]

    async def stream_logs(self, identity: Identity, connection: Connection) -> int:
        del identity, connection
        raise ConnectionError("a memory takes no log stream")

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
