"""The backend conversation of a Supervisor with Cloudly: register, poll the target, report.

Rules:
- `POST /device/register` with the join token as Bearer provisioning key; the device chose uuid and key itself. Only
  201 with `{"id": <number>}` counts.
- On 409 it asks `GET /v7/device` with the device key, then with the provisioning key and exchanges the key; when both
  fail, it takes a NEW uuid at each retry (README 8: ghost devices).
- `GET /device/v3/<uuid>/state` with `If-None-Match`; any answer but 200 and 304 changes nothing.
- Oddity (README 5): an `http://` address with a log address that is not `https://` crashes it at boot.
- Secrets go in the Authorization header only.

Left for a later issue: the log stream, config variables, registry tokens, initial names. Source: `backend/*.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic import SecretStr

from interfaces.world import World, new_id
from simulators.supervisor.sources import Reported, SourceUnavailableError
from simulators.supervisor.state import VERSION, HostFacts, Identity

WITHIN_S: Final = 59.0
"""SUPERVISOR_API_REQUEST_TIMEOUT."""


class CrashedAtBootError(Exception):
    """The Supervisor does not come up with this configuration."""


@dataclass(frozen=True, slots=True)
class BackendSetup:
    url: str
    join_token: SecretStr
    fleet: int = 1001
    logs_url: str = "https://logs.invalid"
    """Never connected to; the recorded device has one of https."""


class BackendTargets:
    """A `TargetSource` that is Cloudly, over httpx; the transport is the caller's to choose."""

    needs_no_registration: Final = False

    def __init__(
        self,
        setup: BackendSetup,
        world: World,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if setup.url.startswith("http://") and not setup.logs_url.startswith("https://"):
            raise CrashedAtBootError("an http:// apiEndpoint needs an https:// logsEndpoint")
        self._setup = setup
        self._world = world
        self._etag: str | None = None
        self._client = httpx.AsyncClient(
            base_url=setup.url, transport=transport, timeout=WITHIN_S, trust_env=False
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    def forget(self) -> None:
        self._etag = None

    async def fetch(self, identity: Identity, host: HostFacts) -> object | None:
        if identity.device_id is None:
            identity.device_id = await self._register(identity, host)
        headers = {"If-None-Match": self._etag} if self._etag else {}
        path = f"/device/v3/{identity.uuid}/state"
        answer = await self._ask("GET", path, identity.device_key, headers=headers)
        if answer.status_code == 304:
            return None
        if answer.status_code != 200:
            raise SourceUnavailableError(f"the target state was answered with {answer.status_code}")
        body = _json(answer)
        self._etag = answer.headers.get("etag")
        return body

    async def report(self, identity: Identity, report: Mapping[str, Any]) -> Reported:
        answer = await self._ask("PATCH", "/device/v3/state", identity.device_key, json=report)
        return Reported(answer.status_code, answer.headers.get("retry-after"))

    async def _register(self, identity: Identity, host: HostFacts) -> int:
        body = {
            "application": self._setup.fleet,
            "uuid": identity.uuid,
            "device_type": host.device_type,
            "api_key": identity.device_key,
            "supervisor_version": VERSION,
            "os_version": host.os_version,
            "os_variant": host.os_variant,
            "mac_address": host.mac_address,
        }
        answer = await self._ask("POST", "/device/register", self._provisioning_key(), json=body)
        if answer.status_code == 409:
            return await self._already_registered(identity)
        if answer.status_code != 201:
            raise SourceUnavailableError(f"registering was answered with {answer.status_code}")
        return _id(_json(answer))

    def _provisioning_key(self) -> str:
        return self._setup.join_token.get_secret_value()

    async def _already_registered(self, identity: Identity) -> int:
        """Find out who we are, or become somebody else."""
        found = await self._look_up(identity, identity.device_key)
        if found is not None:
            return found
        found = await self._look_up(identity, self._provisioning_key())
        if found is not None and await self._exchange_key(identity, found):
            return found
        identity.uuid, identity.device_key = new_id(self._world), new_id(self._world)
        raise SourceUnavailableError("registered already, and not by us")

    async def _look_up(self, identity: Identity, key: str) -> int | None:
        params = {"$select": "id", "$filter": f"uuid eq '{identity.uuid}'"}
        answer = await self._ask("GET", "/v7/device", key, params=params)
        if answer.status_code != 200:
            return None
        body = _json(answer)
        rows = body.get("d", []) if isinstance(body, dict) else []
        return _id(rows[0]) if rows else None

    async def _exchange_key(self, identity: Identity, device_id: int) -> bool:
        path = f"/api-key/device/{device_id}/device-key"
        body = {"apiKey": identity.device_key}
        answer = await self._ask("POST", path, self._provisioning_key(), json=body)
        return answer.is_success

    async def _ask(self, method: str, path: str, key: str, **parts: Any) -> httpx.Response:
        headers = {
            "User-Agent": f"Supervisor/{VERSION} (Linux; balenaOS 6.5.1; dev)",
            **parts.pop("headers", {}),
            "Authorization": f"Bearer {key}",
        }
        try:
            return await self._client.request(method, path, headers=headers, **parts)
        except httpx.HTTPError as error:
            raise SourceUnavailableError(f"{method} {path}: {type(error).__name__}") from None


def _json(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError:
        raise SourceUnavailableError("the answer is not JSON") from None


def _id(body: object) -> int:
    found = body.get("id") if isinstance(body, dict) else None
    if not isinstance(found, int):
        raise SourceUnavailableError("the answer has no id that is a number")
    return found
