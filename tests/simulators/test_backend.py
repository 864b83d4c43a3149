"""The simulator as its backend sees it, beyond the recordings (those are in `test_recorded_backend.py`)."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.supervisor import BackendSetup, BackendTargets, Setup, Supervisor, one_directory
from simulators.world import SimWorld, run_virtual
from tests.simulators.lab import COMMITS, UUID, running, target

JOIN_TOKEN: Final = "bjt_canary"


class Scripted:
    """A backend that writes down what it is asked, and answers from a script."""

    def __init__(self, body: object) -> None:
        self.body = body
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.when: list[tuple[str, float]] = []
        self.report_status = 200
        methods = ["GET", "POST", "PATCH"]
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])

    @property
    def requests(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.asked]

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        path = request.url.path
        if path.endswith("/log-stream"):
            return Response(status_code=204)
        parsed = json.loads(raw) if raw else None
        self.asked.append((request.method, path, dict(request.headers), parsed))
        self.when.append((self.requests[-1], anyio.current_time()))
        if request.method == "POST":
            return JSONResponse({"id": 1234}, 201)
        if request.method == "PATCH":
            return Response("OK", status_code=self.report_status)
        return self._state(request)

    def _state(self, request: Request) -> Response:
        etag = f'W/"{hash(str(self.body))}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return JSONResponse(self.body, headers={"etag": etag})


def _supervisor(tmp: Path, backend: Scripted, *, on_disk: bool = False) -> Supervisor:
    world = SimWorld(3)
    source = BackendTargets(
        BackendSetup("https://cloudly", SecretStr(JOIN_TOKEN)),
        world,
        transport=httpx.ASGITransport(backend.app),
    )
    setup = Setup(one_directory(tmp), uuid=UUID, state_directory=tmp if on_disk else None)
    return Supervisor(world, setup, source)


def test_an_unchanged_target_is_asked_for_by_etag_and_answered_by_304(tmp_path: Path) -> None:
    async def story() -> Scripted:
        backend = Scripted(target(1))
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(300)
        return backend

    backend = run_virtual(story)

    polls = [headers for _, path, headers, _ in backend.asked if path.endswith(f"{UUID}/state")]
    assert "if-none-match" not in polls[0]
    assert len(polls) > 2
    assert all("if-none-match" in headers for headers in polls[1:])


def test_reports_are_differences_and_tell_of_the_release(tmp_path: Path) -> None:
    async def story() -> Scripted:
        backend = Scripted(target(1))
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(60)
        return backend

    backend = run_virtual(story)

    reports = [body[UUID] for method, _, _, body in backend.asked if method == "PATCH"]
    app = reports[-1]["apps"]["11112222333344445555666677778888"]
    assert all("ip_address" not in report for report in reports[1:])
    assert app["release_uuid"] == COMMITS[1]
    assert app["releases"][COMMITS[1]]["update_status"] == "done"
    assert app["releases"][COMMITS[1]]["services"]["main"]["status"] == "Running"


def test_a_report_that_is_not_taken_is_handed_in_again_and_again_with_longer_pauses(
    tmp_path: Path,
) -> None:
    async def story() -> Scripted:
        backend = Scripted(target(None))
        backend.report_status = 404
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(200)
        return backend

    backend = run_virtual(story)

    reports = [at for request, at in backend.when if request == "PATCH /device/v3/state"]
    pauses = [round(after - before) for before, after in itertools.pairwise(reports)]
    assert pauses == [15, 30, 60, 60], "at most the poll interval"


def test_it_registers_once_in_its_life(tmp_path: Path) -> None:
    backend = Scripted(target(1))

    async def story() -> None:
        supervisor = _supervisor(tmp_path, backend, on_disk=True)
        async with running(supervisor):
            await supervisor.world.sleep(30)
            supervisor.restart()
            await supervisor.world.sleep(30)

    run_virtual(story)
    run_virtual(story)

    assert backend.requests.count("POST /device/register") == 1


def test_an_unreachable_backend_is_retried_and_update_says_204_all_the_same(
    tmp_path: Path,
) -> None:
    async def story() -> tuple[int, bool]:
        backend = Scripted(target(1))
        online = False

        async def now_and_then(scope: Any, receive: Any, send: Any) -> None:
            if not online:
                raise httpx.ConnectError("offline")
            await backend.app(scope, receive, send)

        world = SimWorld(3)
        source = BackendTargets(
            BackendSetup("https://cloudly", SecretStr(JOIN_TOKEN)),
            world,
            transport=httpx.ASGITransport(now_and_then),
        )
        supervisor = Supervisor(
            world, Setup(one_directory(tmp_path), uuid=UUID, api_key="k"), source
        )
        async with (
            running(supervisor),
            httpx.AsyncClient(transport=supervisor.transport(), base_url="http://s") as client,
        ):
            answer = await client.post("/v1/update", headers={"Authorization": "Bearer k"})
            await world.sleep(600)
            online = True
            await world.sleep(1800)
            return answer.status_code, bool(supervisor.kept.commits)

    assert run_virtual(story) == (204, True)


def test_no_secret_is_in_any_repr_or_address(tmp_path: Path) -> None:
    async def story() -> tuple[Scripted, Supervisor]:
        backend = Scripted(target(1))
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(30)
        return backend, supervisor

    backend, supervisor = run_virtual(story)

    kept = supervisor.kept
    secrets = [JOIN_TOKEN, kept.global_key, kept.identity.device_key, *kept.service_keys.values()]
    shown = f"{kept!r} {supervisor.setup!r} {supervisor.told!r} {backend.requests!r}"
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in shown]
    assert base64.b64encode(JOIN_TOKEN.encode()).decode() not in shown
