"""The simulator as its backend sees it: the requests of the recordings, in their order and shape."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.supervisor import BackendSetup, BackendTargets, Setup, Supervisor, one_directory
from simulators.world import SimWorld, run_virtual
from tests.simulators.lab import COMMITS, RECORDINGS, UUID, running, target

JOIN_TOKEN: Final = "bjt_canary"
METRICS: Final = {"cpu_usage", "memory_usage", "cpu_temp"}


class Scripted:
    """A backend that writes down what it is asked, and answers from a script."""

    def __init__(self, body: object) -> None:
        self.body = body
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.conflict_with: str | None = None
        """The uuid is taken: 409; whoever has this key may look the device up."""
        self.report_status = 200
        methods = ["GET", "POST", "PATCH"]
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])

    @property
    def requests(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.asked]

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        path, key = request.url.path, request.headers["authorization"].removeprefix("Bearer ")
        parsed = json.loads(raw) if raw else None
        self.asked.append((request.method, path, dict(request.headers), parsed))
        if path == "/device/register":
            taken = self.conflict_with is not None
            return JSONResponse({"id": 1234}, 409 if taken else 201)
        if path == "/v7/device":
            known = key == self.conflict_with
            return JSONResponse({"d": [{"id": 77}]} if known else {}, 200 if known else 401)
        if path.startswith("/api-key/"):
            return Response(status_code=200)
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


def test_the_first_boot_asks_what_the_recorded_one_asked(tmp_path: Path) -> None:
    recorded = json.loads((RECORDINGS / "backend" / "first-boot.json").read_text())

    async def story() -> Scripted:
        backend = Scripted(target(None, config={}))
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(30)
        return backend

    backend = run_virtual(story)

    left_out = ("log-stream", "/v7/")
    theirs = [
        row
        for row in recorded[:8]
        if not any(part in row["request"]["path"] for part in left_out) and row["seq"] != 7
    ]
    assert backend.requests == [
        f"{row['request']['method']} {row['request']['path']}" for row in theirs
    ]
    for (_, path, headers, body), row in zip(backend.asked, theirs, strict=True):
        _same_request(path, headers, body, row["request"])


def _same_request(path: str, headers: dict[str, str], body: Any, recorded: dict[str, Any]) -> None:
    wanted = {name.lower(): value for name, value in recorded["headers"]}
    assert headers["user-agent"] == wanted["user-agent"]
    assert headers["authorization"].split()[0] == wanted["authorization"].split()[0] == "Bearer"
    if path == "/device/register":
        assert headers["authorization"] == f"Bearer {JOIN_TOKEN}"
    if body is None:
        assert recorded["body"] == ""
        return
    ours, theirs = body.get(UUID, body), recorded["body"].get(UUID, recorded["body"])
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert type(ours[name]) is type(value), name
        if name not in METRICS | {"api_key", "api_secret"}:
            assert ours[name] == value, name


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


def test_a_backend_that_takes_no_reports_is_left_alone(tmp_path: Path) -> None:
    async def story() -> Scripted:
        backend = Scripted(target(1))
        backend.report_status = 404
        supervisor = _supervisor(tmp_path, backend)
        async with running(supervisor):
            await supervisor.world.sleep(600)
        return backend

    assert run_virtual(story).requests.count("PATCH /device/v3/state") == 1


@pytest.mark.parametrize("known_by", ["device", "provisioning"])
def test_a_conflict_is_settled_by_looking_the_device_up(tmp_path: Path, known_by: str) -> None:
    async def story() -> tuple[Scripted, Supervisor]:
        backend = Scripted(target(None))
        supervisor = _supervisor(tmp_path, backend)
        key = supervisor.kept.identity.device_key if known_by == "device" else JOIN_TOKEN
        backend.conflict_with = key
        async with running(supervisor):
            await supervisor.world.sleep(5)
        return backend, supervisor

    backend, supervisor = run_virtual(story)

    recording = "register-conflict" if known_by == "device" else "key-exchange"
    rows = json.loads((RECORDINGS / "backend" / f"{recording}.json").read_text())
    paths = [
        f"{row['request']['method']} {row['request']['path'].partition('?')[0]}" for row in rows
    ]
    recorded_way = [path for path in paths if "register" in path or "/v7/device" in path]
    recorded_way = [path for path in recorded_way if "variable" not in path]
    ours = [path for path in backend.requests if "register" in path or "/v7/device" in path]
    assert ours == recorded_way
    assert supervisor.kept.identity.uuid == UUID
    assert supervisor.kept.identity.device_id == 77


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
