"""How a Supervisor becomes known: registration, and what it asks when it seems to be registered already.

Rules (recorded in supervisor/backend):
- The Supervisor draws uuid and key itself. 201 with a numeric id; the same pair may ask again.
- A uuid that is registered with another key gets 409, if the join token would admit it. The Supervisor then looks
  itself up and exchanges the key, which is when a use of the join token is consumed.
- Whose uuid a fresh join token does not know, it cannot take: numbers can be guessed, so the look-up comes first.
- What the join token does not admit is 401. After a 409 with both look-ups refused a Supervisor draws a NEW uuid at
  each retry (ghost devices), so whoever got 409 is also answered by `GET /v7/device`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloudly.balena.door import Door, device_of, route
from cloudly.balena.odata import asked_uuid
from cloudly.http.device import join_token_of
from cloudly.problems import Refused
from cloudly.store.joining import DeviceAsk
from cloudly.tokens import fingerprint
from interfaces.wire import Wire
from interfaces.world import new_id

FOUND_FOR_MS = 600_000
"""So long a look-up by uuid lets its join token exchange the key; a Supervisor does so within seconds."""
MOST_FOUND = 10_000

Key = Annotated[SecretStr, Field(min_length=16, max_length=128)]


class DeviceRegistration(Wire):
    """The body of `POST /device/register`."""

    uuid: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32}|[0-9a-f]{62})$")]
    api_key: Key
    device_type: str = Field(default="", max_length=100)
    supervisor_version: str = Field(default="", max_length=100)
    os_version: str = Field(default="", max_length=200)
    os_variant: str = Field(default="", max_length=100)


class KeyExchange(Wire):
    """The body of `POST /api-key/device/<id>/device-key`."""

    api_key: Key = Field(alias="apiKey")


REGISTRATION = TypeAdapter(DeviceRegistration)
EXCHANGE = TypeAdapter(KeyExchange)


class Registration:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._found: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        """When which join token looked up which device by its uuid."""

    def routes(self) -> list[Route]:
        return [
            route("/device/register", self.register, "POST"),
            route("/v7/device", self.look_up, "GET"),
            route("/api-key/device/{device}/device-key", self.exchange_key, "POST"),
        ]

    async def register(self, request: Request) -> Response:
        join_token = await join_token_of(request, self._door.store)
        asked = await self._door.json(request, REGISTRATION)
        ask = DeviceAsk(
            join_token=join_token,
            node_id=asked.uuid,
            api_key=asked.api_key.get_secret_value(),
            device_type=asked.device_type,
            info=asked.model_dump_json(exclude={"api_key", "uuid"}),
            now_ms=self._door.now_ms(),
            deployment=new_id(self._door.world),
        )
        device = await self._admitted(ask)
        if device is None:
            raise Refused("registered-already")
        return JSONResponse({"id": device, "uuid": asked.uuid}, 201)

    async def look_up(self, request: Request) -> Response:
        """`GET /v7/device?$select=id&$filter=uuid eq '…'`, with the device key or with the join token."""
        key, uuid = self._door.key(request), asked_uuid(request.query_params)
        now_ms = self._door.now_ms()
        device = await self._door.store.devices.find(uuid, key, now_ms=now_ms)
        if device is not None:
            self._found[device, fingerprint(key)] = now_ms
            while len(self._found) > MOST_FOUND:
                self._found.popitem(last=False)
        return JSONResponse({"d": [] if device is None else [{"id": device}]})

    async def exchange_key(self, request: Request) -> Response:
        join_token = await join_token_of(request, self._door.store)
        asked = await self._door.json(request, EXCHANGE)
        key, device = asked.api_key.get_secret_value(), device_of(request)
        found_at_ms = self._found.get((device, fingerprint(join_token)))
        if found_at_ms is None or self._door.now_ms() - found_at_ms > FOUND_FOR_MS:
            raise Refused("node-unknown", "It is looked up by its uuid first.")
        uuid = await self._door.store.devices.uuid_of(device)
        ask = DeviceAsk(
            join_token=join_token,
            node_id=uuid,
            api_key=key,
            device_type="",
            info="{}",
            now_ms=self._door.now_ms(),
            deployment=new_id(self._door.world),
            exchange=True,
        )
        await self._admitted(ask)
        return PlainTextResponse(key)

    async def _admitted(self, ask: DeviceAsk) -> int | None:
        """The device's id; None: it is registered with another key. Raises Refused (401)."""
        try:
            return await self._door.store.devices.register(ask)
        except Refused as refused:
            raise Refused(refused.problem.code, refused.problem.detail, status=401) from None
