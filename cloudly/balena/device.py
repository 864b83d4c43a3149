"""What a Supervisor says of its device beside its state: settings of the host, a name, tags.

Rules (recorded in supervisor/backend):
- A setting that it found on the host is given back in the target's `config`, or the device drops it.
- A setting that would make it reject its target as a whole is refused here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloudly.balena.door import Door, Supervisor, device_of, route
from cloudly.balena.odata import asked_device
from cloudly.problems import Refused
from interfaces.target_verdict import CONFIG_NAME, CONFIG_NAME_RULE
from interfaces.wire import Wire

MAX_SETTINGS = 200
MAX_TAGS = 100


class ConfigVariable(Wire):
    """The body of `POST /v7/device_config_variable`."""

    device: int
    name: str = Field(max_length=255)
    value: str = Field(max_length=10_000)


class DeviceName(Wire):
    """The body of `PATCH /v7/device(<id>)`."""

    device_name: str = Field(max_length=255)


TagKey = Annotated[str, StringConstraints(pattern=r"^\S{1,255}$")]
TagValue = Annotated[str, StringConstraints(max_length=10_000)]

VARIABLE = TypeAdapter(ConfigVariable)
NAME = TypeAdapter(DeviceName)
TAGS: TypeAdapter[dict[str, dict[TagKey, TagValue]]] = TypeAdapter(
    dict[str, dict[TagKey, TagValue]]
)


class Device:
    def __init__(self, door: Door) -> None:
        self._door = door

    def routes(self) -> list[Route]:
        return [
            route("/v7/device_config_variable", self.set_variable, "POST"),
            route("/v7/device({device})", self.set_name, "PATCH"),
            route("/v7/device_tag", self.tags, "GET"),
            route("/device/v3/tags", self.set_tags, "PATCH"),
        ]

    async def set_variable(self, request: Request) -> Response:
        supervisor = await self._door.supervisor(request)
        told = await self._door.json(request, VARIABLE)
        _own(supervisor, told.device)
        if not CONFIG_NAME.fullmatch(told.name):
            raise Refused("malformed", f"name: {CONFIG_NAME_RULE}", status=400)
        number = await self._door.store.devices.set_config(
            supervisor, told.name, told.value, most=MAX_SETTINGS
        )
        return JSONResponse({**told.model_dump(), "id": number}, 201)

    async def set_name(self, request: Request) -> Response:
        supervisor = await self._door.supervisor(request)
        _own(supervisor, device_of(request))
        told = await self._door.json(request, NAME)
        await self._door.store.devices.set_name(supervisor, told.device_name)
        return PlainTextResponse("OK")

    async def tags(self, request: Request) -> Response:
        supervisor = await self._door.supervisor(request)
        _own(supervisor, asked_device(request.query_params))
        return JSONResponse({"d": await self._door.store.devices.tags(supervisor.device)})

    async def set_tags(self, request: Request) -> Response:
        supervisor = await self._door.supervisor(request)
        told = await self._door.json(request, TAGS)
        if list(told) != [supervisor.uuid]:
            raise Refused("node-mismatch", status=401)
        await self._door.store.devices.set_tags(supervisor, told[supervisor.uuid], most=MAX_TAGS)
        return PlainTextResponse("OK")


def _own(supervisor: Supervisor, device: int) -> None:
    if device != supervisor.device:
        raise Refused("node-mismatch", status=401)
