"""How a new device joins: it registers, or finds out that it has, and says what is not the default on it.

Rules:
- `POST /device/register` with the join token as Bearer provisioning key; the device chose uuid and key itself. Only
  201 with `{"id": <number>}` counts.
- On 409 it asks `GET /v7/device` with the device key, then with the provisioning key and exchanges the key (200 alone
  counts); when that fails for whatever reason, it takes a NEW uuid at each retry (README 8: ghost devices).
- Then, once for each backend: fetch the target, `POST /v7/device_config_variable` for each setting that is not the
  default and not in it, and `PATCH /v7/device(<id>)` with the initial name, if there is one. A variable that is not
  taken starts that anew; a name that is not taken is only a line in the log stream (code).

Source: `backend/first-boot.json` rows 2-7, `key-exchange.json`, `register-conflict.json`, `register-refused.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from interfaces.world import World, new_id
from simulators.supervisor.backend_client import NODE, BackendClient, id_of, json_of
from simulators.supervisor.device_config import to_tell
from simulators.supervisor.sources import SourceUnavailableError
from simulators.supervisor.state import VERSION, HostFacts, Identity
from simulators.supervisor.target import bare_config

NAME_NOT_TAKEN: Final = "Unable to report initial device name to API"


@dataclass(frozen=True, slots=True)
class Joining:
    client: BackendClient
    world: World
    provisioning_key: SecretStr
    fleet: int

    async def register(self, identity: Identity, host: HostFacts) -> int:
        """The device's id with this backend. Raises SourceUnavailableError."""
        body = {
            "application": self.fleet,
            "uuid": identity.uuid,
            "device_type": host.device_type,
            "api_key": identity.device_key,
            "supervisor_version": VERSION,
            "os_version": host.os_version,
            "os_variant": host.os_variant,
            "mac_address": host.mac_address,
        }
        answer = await self.client.ask("POST", "/device/register", self._key(), json=body)
        if answer.status_code == 409:
            return await self._already_registered(identity)
        if answer.status_code != 201:
            raise SourceUnavailableError(f"registering was answered with {answer.status_code}")
        return id_of(json_of(answer))

    async def tell_config(
        self, identity: Identity, current: Mapping[str, str], target: object
    ) -> None:
        """Tell what is not the default. Raises SourceUnavailableError."""
        device = target.get(identity.uuid) if isinstance(target, dict) else None
        config = device.get("config") if isinstance(device, dict) else None
        if not isinstance(config, dict):
            raise SourceUnavailableError("the target state has no config to compare with")
        for name, value in to_tell(current, bare_config(config)):
            variable = {"value": value, "device": identity.device_id, "name": name}
            answer = await self.client.ask(
                "POST", "/v7/device_config_variable", identity.device_key, json=variable
            )
            if not answer.is_success:
                raise SourceUnavailableError(f"{name} was answered with {answer.status_code}")

    async def tell_name(self, identity: Identity, name: str) -> bool:
        """Whether the initial name was taken."""
        path = f"/v7/device({identity.device_id})"
        body = {"device_name": name}
        try:
            answer = await self.client.ask("PATCH", path, identity.device_key, json=body)
        except SourceUnavailableError:
            return False
        return answer.is_success

    def _key(self) -> str:
        return self.provisioning_key.get_secret_value()

    async def _already_registered(self, identity: Identity) -> int:
        """Find out who we are, or become somebody else."""
        found = await self._look_up(identity, identity.device_key)
        if found is not None:
            return found
        found = await self._look_up(identity, self._key())
        if found is not None and await self._exchange_key(identity, found):
            return found
        identity.uuid, identity.device_key = new_id(self.world), new_id(self.world)
        raise SourceUnavailableError("registered already, and not by us")

    async def _look_up(self, identity: Identity, key: str) -> int | None:
        """The id behind our uuid; None for any answer that does not hold one, and for none at all (code)."""
        path = f"/v7/device?$select=id&$filter=uuid%20eq%20%27{identity.uuid}%27"
        try:
            answer = await self.client.ask("GET", path, key, agent=NODE)
            rows = json_of(answer).get("d") if answer.is_success else None
            return id_of(rows[0]) if rows else None
        except (SourceUnavailableError, AttributeError, LookupError, TypeError):
            return None

    async def _exchange_key(self, identity: Identity, device_id: int) -> bool:
        """Raises SourceUnavailableError when nothing came: then it asks again as who it is."""
        path = f"/api-key/device/{device_id}/device-key"
        body = {"apiKey": identity.device_key}
        answer = await self.client.ask("POST", path, self._key(), json=body)
        return answer.status_code == 200
