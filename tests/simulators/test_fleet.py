"""A fleet of simulated Supervisors in one process: each is its own device, and all share the pools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from simulators.fleet import Fleet, FleetSetup, SharedPool
from simulators.fleet.__main__ import _parser, _setup
from simulators.fleet.fleet import backend_setup
from simulators.supervisor.backend import CrashedAtBootError
from simulators.supervisor.sources import target_state
from simulators.world import SimWorld, run_virtual

COMMIT = "c" * 32
IMAGE = "registry.example/v2/agent@sha256:" + "1" * 64
DEVICES = 40


class ManyDevices:
    """A backend that has the same release for everybody."""

    def __init__(self) -> None:
        self.registered: list[dict[str, Any]] = []
        self.running: set[str] = set()
        self.streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        await self._answer(request, body)(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        path = request.url.path
        if path.endswith("/log-stream"):
            self.streams += 1
            return Response(status_code=204)
        if path == "/device/register":
            self.registered.append(json.loads(body))
            return JSONResponse({"id": len(self.registered)}, 201)
        if request.method == "POST":
            return JSONResponse({}, 201)
        if request.method == "PATCH":
            for uuid, told in json.loads(body).items():
                if "Running" in str(told):
                    self.running.add(uuid)
            return Response("OK")
        if request.headers.get("if-none-match"):
            return Response(status_code=304)
        uuid = path.split("/")[3]
        return JSONResponse(target_state(uuid, COMMIT, {"agent": IMAGE}), headers={"etag": '"1"'})


def _fleet(tmp: Path, pool: SharedPool, logs: SharedPool) -> Fleet:
    setup = FleetSetup(
        DEVICES,
        backend_setup("https://cloudly", "a-join-token", logs_url=None, plain_logs=False),
        tmp,
    )
    return Fleet(setup, SimWorld("fleet"), pool, logs)


def test_every_device_of_a_fleet_joins_updates_and_reports_as_itself(tmp_path: Path) -> None:
    backend = ManyDevices()
    pool = SharedPool(httpx.ASGITransport(backend))
    logs = SharedPool(httpx.ASGITransport(backend))

    async def story() -> Fleet:
        fleet = _fleet(tmp_path, pool, logs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.run)
            await fleet.world.sleep(120)
            assert fleet.tally().applied == DEVICES
            tasks.cancel_scope.cancel()
        return fleet

    fleet = run_virtual(story)

    uuids = {asked["uuid"] for asked in backend.registered}
    assert len(backend.registered) == len(uuids) == DEVICES
    assert len({asked["api_key"] for asked in backend.registered}) == DEVICES
    assert len({supervisor.kept.global_key for supervisor in fleet.supervisors}) == DEVICES
    assert backend.running == uuids
    assert backend.streams >= DEVICES
    assert pool.answers["POST 201"] == 3 * DEVICES, "a registration and two config variables each"


def test_a_lock_of_one_device_is_not_a_lock_of_another(tmp_path: Path) -> None:
    backend = ManyDevices()
    pool = SharedPool(httpx.ASGITransport(backend))

    async def story() -> set[Path]:
        fleet = _fleet(tmp_path, pool, pool)
        made = [fleet._made(number) for number in range(3)]
        return {supervisor.setup.lock_directory(1001, "agent") for supervisor in made}

    assert len(run_virtual(story)) == 3


def test_a_pool_counts_what_was_answered_and_what_was_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/cut":
            raise httpx.ReadError("cut")
        return httpx.Response(204)

    async def story() -> SharedPool:
        pool = SharedPool(httpx.MockTransport(answer))
        async with httpx.AsyncClient(transport=pool, base_url="http://x") as one:
            await one.get("/")
        async with httpx.AsyncClient(transport=pool, base_url="http://x") as another:
            with pytest.raises(httpx.ReadError):
                await another.get("/cut")
        return pool

    assert anyio.run(story).answers == {"GET 204": 1, "GET ReadError": 1}


def test_a_fleet_over_http_needs_somewhere_for_its_logs_as_a_device_does(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-join-token\n")
    words = ["--cloudly-url", "http://cloudly", "--join-token-file", str(token)]
    pool = SharedPool(httpx.MockTransport(lambda _request: httpx.Response(204)))

    def starts(*more: str) -> None:
        async def story() -> None:
            setup = _setup(_parser().parse_args([*words, *more]), tmp_path)
            assert "a-join-token" not in repr(setup)
            Fleet(setup, SimWorld(1), pool, pool)._made(0)

        run_virtual(story)

    starts("--plain-logs")
    starts("--logs-url", "https://logs")
    with pytest.raises(CrashedAtBootError):
        starts()
