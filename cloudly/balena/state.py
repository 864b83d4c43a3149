"""The target state that a Supervisor polls, and its reports.

Rules (recorded in supervisor/backend):
- Every 200 has a strong ETag, and what has not changed is a 304: without, each poll cancels and restarts the apply.
- A report that began before one that has been taken is late: its sender has given it up, and it is not merged.
"""

from __future__ import annotations

from itertools import count

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cloudly.balena.door import Door, route
from cloudly.balena.report import read_report
from cloudly.balena.target import matches
from cloudly.problems import Refused


class State:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._began = count(1)
        self._taken: dict[int, int] = {}

    def routes(self) -> list[Route]:
        return [
            route("/device/v3/{uuid}/state", self.target, "GET"),
            route("/device/v3/state", self.report, "PATCH"),
        ]

    async def target(self, request: Request) -> Response:
        supervisor = await self._door.supervisor(request)
        if request.path_params["uuid"] != supervisor.uuid:
            raise Refused("node-mismatch", status=401)
        store = self._door.store
        body, tag = await store.devices.target(supervisor.device, supervisor.uuid)
        await store.save_presence_if_due()
        if matches(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, headers={"etag": tag}, media_type="application/json")

    async def report(self, request: Request) -> Response:
        """`PATCH /device/v3/state`; 200 when it is merged and, but for measurements, durable."""
        began, supervisor = next(self._began), await self._door.supervisor(request)
        difference = read_report(await self._door.body(request), supervisor.uuid)
        if began < self._taken.get(supervisor.device, 0):
            raise Refused("busy", "A later report was taken already.")
        self._taken[supervisor.device] = began
        store = self._door.store
        await store.devices.save_report(supervisor, difference, self._door.now_ms())
        await store.save_presence_if_due()
        return PlainTextResponse("OK")
