"""What a balena Supervisor asks of its backend: the slice it needs to have a target. The rest is a later issue.

Rules (recorded in supervisor/backend):
- Registration is answered with 201, or refused with 401: a 409 makes a device invent a new uuid at each retry.
- No Retry-After: a Supervisor reads its seconds as milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloudly.balena.target import etag, matches, target_state
from cloudly.batch import malformed
from cloudly.http.body import read_body
from cloudly.http.device import MAX_HEARTBEAT, join_token_of, parse
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store.joining import DeviceAsk
from cloudly.store.store import Store
from cloudly.store.targets import target_of
from cloudly.tokens import bearer
from interfaces.wire import Wire
from interfaces.world import World, new_id, now_ms

REPORT = TypeAdapter(dict[str, dict[str, Any]], config=ConfigDict(hide_input_in_errors=True))
SECRET_FIELDS = frozenset({"api_secret", "api_key"})
"""A Supervisor reports the key of its own API; nobody here needs it at rest."""


class DeviceRegistration(Wire):
    """The body of `POST /device/register`; the Supervisor has drawn uuid and key itself."""

    uuid: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32}|[0-9a-f]{62})$")]
    api_key: SecretStr = Field(min_length=16, max_length=128)
    device_type: str = Field(default="", max_length=100)
    supervisor_version: str = Field(default="", max_length=100)
    os_version: str = Field(default="", max_length=200)
    os_variant: str = Field(default="", max_length=100)


class SupervisorApi:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._store = store
        self._world = world
        self._settings = settings

    def routes(self) -> list[Route]:
        return [
            Route("/device/register", self.register, methods=["POST"]),
            Route("/device/v3/state", self.report, methods=["PATCH"]),
            Route("/device/v3/{uuid}/state", self.state, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Response:
        join_token = join_token_of(request, self._store)
        asked = parse(DeviceRegistration, await self._body(request))
        try:
            device = await self._store.register_device(
                DeviceAsk(
                    join_token=join_token,
                    node_id=asked.uuid,
                    api_key=asked.api_key.get_secret_value(),
                    device_type=asked.device_type,
                    info=asked.model_dump_json(exclude={"api_key", "uuid"}),
                    now_ms=now_ms(self._world),
                    deployment=new_id(self._world),
                )
            )
        except Refused as refused:
            raise Refused(refused.problem.code, refused.problem.detail, status=401) from None
        return JSONResponse({"id": device, "uuid": asked.uuid}, 201)

    async def state(self, request: Request) -> Response:
        device, uuid = self._caller(request)
        if request.path_params["uuid"] != uuid:
            raise Refused("node-mismatch", status=401)
        target = self._store.read(lambda db: target_of(db, device))
        body = target_state(
            uuid=uuid,
            name=target.name,
            app_uuid=self._store.app_uuid,
            release=target.release,
            withdrawn=target.withdrawn,
        )
        tag = etag(body)
        if matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, headers={"etag": tag}, media_type="application/json")

    async def report(self, request: Request) -> Response:
        device, uuid = self._caller(request)
        report = _report(await self._body(request))
        if list(report) != [uuid]:
            raise Refused("node-mismatch", status=401)
        kept = {key: value for key, value in report[uuid].items() if key not in SECRET_FIELDS}
        text = REPORT.dump_json({uuid: kept}).decode()
        await self._store.save_device_report(device, text, now_ms(self._world))
        return PlainTextResponse("OK")

    def _caller(self, request: Request) -> tuple[int, str]:
        key = bearer(request.headers.get("authorization"))
        if key is None:
            raise Refused("node-unknown")
        return self._store.authenticate_device(key)

    async def _body(self, request: Request) -> bytes:
        return await read_body(
            request, limit=MAX_HEARTBEAT, deadline_s=self._settings.body_deadline_s
        )


def _report(body: bytes) -> dict[str, dict[str, Any]]:
    try:
        return REPORT.validate_json(body)
    except ValidationError as problem:
        raise malformed(problem) from None
