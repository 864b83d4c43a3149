"""The backend conversation of a Supervisor with Cloudly: join, poll the target, report, tags, log stream.

Rules:
- `GET /device/v3/<uuid>/state` with `If-None-Match`; any answer but 2xx and 304 changes nothing. The first answer is
  fetched for its config alone; it is acted on when the next one says that it still holds.
- Oddity (README 5): an `http://` address with a log address that is not `https://` crashes it at boot.
- Oddity (README 7): what comes without an ETag can never be answered with 304, so it counts as new at every poll.

Source: `backend/*.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic import SecretStr

from interfaces.world import World
from simulators.supervisor.backend_client import BackendClient, json_of
from simulators.supervisor.joining import NAME_NOT_TAKEN, Joining
from simulators.supervisor.log_stream import Connection
from simulators.supervisor.sources import Reported, SourceUnavailableError
from simulators.supervisor.state import HostFacts, Identity, Kept

MAX_REFUSAL: Final = 200


class CrashedAtBootError(Exception):
    """The Supervisor does not come up with this configuration."""


@dataclass(frozen=True, slots=True)
class BackendSetup:
    url: str
    join_token: SecretStr
    fleet: int = 1001
    logs_url: str | None = None
    """Where the log stream goes; None: to the backend itself."""
    initial_name: str | None = None
    """`initialDeviceName` of config.json."""
    plain_logs: bool = False
    """Not the real one's: the log stream goes over http, for a Cloudly without TLS."""


class BackendTargets:
    """A `TargetSource` that is Cloudly, over httpx; the transport is the caller's to choose."""

    takes_logs: Final = True

    def __init__(
        self,
        setup: BackendSetup,
        world: World,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        logs_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        logs_url = setup.logs_url or setup.url
        if not logs_url.startswith("https://") and not setup.plain_logs:
            raise CrashedAtBootError("an http:// apiEndpoint needs an https:// logsEndpoint")
        self._setup = setup
        self._etag: str | None = None
        self._body: object = None
        self._acted_on = True
        self._client = BackendClient(setup.url, logs_url, transport, logs_transport)
        self._joining = Joining(self._client, world, setup.join_token, setup.fleet)

    async def aclose(self) -> None:
        await self._client.aclose()

    def forget(self) -> None:
        self._etag, self._body, self._acted_on = None, None, True

    async def join(self, kept: Kept, host: HostFacts) -> str | None:
        identity = kept.identity
        if identity.device_id is None:
            identity.device_id = await self._joining.register(identity, host)
        if identity.configured_at == self._setup.url:
            return None
        await self._get(identity)
        await self._joining.tell_config(identity, kept.config, self._body)
        name = self._setup.initial_name
        named = name is None or await self._joining.tell_name(identity, name)
        identity.configured_at = self._setup.url
        return None if named else NAME_NOT_TAKEN

    async def fetch(self, identity: Identity) -> object | None:
        if identity.device_id is None:
            raise SourceUnavailableError("the device has not registered yet")
        await self._get(identity)
        if self._acted_on:
            return None
        self._acted_on = True
        return self._body

    async def _get(self, identity: Identity) -> None:
        """Look at the target state. Raises SourceUnavailableError."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        path = f"/device/v3/{identity.uuid}/state"
        answer = await self._client.ask("GET", path, identity.device_key, headers=headers)
        if answer.status_code == 304 and self._etag is not None:
            return
        if not answer.is_success:
            raise SourceUnavailableError(f"the target state was answered with {answer.status_code}")
        self._body, self._acted_on = json_of(answer), False
        self._etag = answer.headers.get("etag")

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        return await self._patch("/device/v3/state", identity, report)

    async def report_tags(self, identity: Identity, tags: Mapping[str, str]) -> Reported:
        return await self._patch("/device/v3/tags", identity, {identity.uuid: dict(tags)})

    async def _patch(self, path: str, identity: Identity, body: Mapping[str, Any]) -> Reported:
        answer = await self._client.ask("PATCH", path, identity.device_key, json=body)
        refusal = "" if answer.is_success else answer.text[:MAX_REFUSAL]
        return Reported(answer.status_code, answer.headers.get("retry-after"), refusal)

    async def tags(self, identity: Identity) -> list[Mapping[str, Any]]:
        path = f"/v7/device_tag?$select=id,tag_key,value&$filter=device%20eq%20{identity.device_id}"
        answer = await self._client.ask("GET", path, identity.device_key)
        if not answer.is_success:
            raise SourceUnavailableError(f"tags were answered with {answer.status_code}")
        try:
            rows = json_of(answer)["d"]
            return [
                {"id": row["id"], "name": row["tag_key"], "value": row["value"]} for row in rows
            ]
        except (LookupError, TypeError):
            raise SourceUnavailableError("the answer has no rows of tags") from None

    async def stream_logs(self, identity: Identity, connection: Connection) -> int:
        return await self._client.stream_logs(identity, connection)
