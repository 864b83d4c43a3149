"""The thirteen things that a naive client, simulator or backend gets wrong: features of the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.supervisor import (
    BackendSetup,
    BackendTargets,
    ContainerEvent,
    Reported,
    Setup,
    Supervisor,
    Timings,
    one_directory,
)
from simulators.supervisor.backend import CrashedAtBootError
from simulators.world import SimWorld, run_virtual
from tests.simulators.conftest import InALab
from tests.simulators.lab import (
    COMMITS,
    LETTERS_UUID,
    SHARED,
    UUID,
    Lab,
    a_lab,
    running,
    target,
    two_services,
)


async def _offer(lab: Lab, body: object) -> None:
    assert lab.source is not None
    lab.source.set_target(body)
    assert await lab.update() == 204


def test_1_a_204_from_update_proves_nothing_and_the_old_state_still_says_applied(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))

        await _offer(lab, target(2))

        at_once = await lab.get("/v2/state/status")
        await lab.pass_(0.2)
        soon = await lab.get("/v2/state/status")
        await lab.pass_(0.3)
        later = await lab.get("/v2/state/status")
        assert at_once == soon
        assert (soon["appState"], soon["release"]) == ("applied", COMMITS[1])
        assert (later["appState"], later["release"]) == ("applying", COMMITS[1])

    in_a_lab(story)


def test_2_a_202_from_reboot_is_followed_by_a_closed_socket(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        boot = lab.world.boot_id()

        answer = await lab.client.post("/v1/reboot")

        assert (answer.status_code, answer.json()) == (202, {"Data": "OK", "Error": None})
        await lab.pass_(0.01)
        with pytest.raises(httpx.ConnectError):
            await lab.client.get("/ping")
        assert lab.world.boot_id() != boot
        await lab.pass_(25)
        assert (await lab.client.get("/ping")).text == "OK"

    in_a_lab(story)


def test_3_a_service_is_told_to_stop_in_the_middle_of_the_update_it_asked_for(
    tmp_path: Path,
) -> None:
    seen: list[tuple[ContainerEvent, str]] = []

    async def story() -> None:
        async with a_lab(
            tmp_path,
            on_container=lambda event, container: seen.append((event, container.image.commit)),
        ) as lab:
            await lab.apply(target(1))
            await lab.apply(target(2))

    run_virtual(story)

    assert seen == [
        (ContainerEvent.STARTED, COMMITS[1]),
        (ContainerEvent.STOPPING, COMMITS[1]),
        (ContainerEvent.STARTED, COMMITS[2]),
    ]


def test_4_a_new_digest_in_a_known_repository_is_never_pulled_and_the_device_loops(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1, SHARED[1]))
        before = await lab.get("/v2/state/status")

        await _offer(lab, target(2, SHARED[2]))
        await lab.pass_(600)

        after = await lab.get("/v2/state/status")
        assert after["containers"][0]["containerId"] == before["containers"][0]["containerId"]
        assert after["containers"][0]["imageId"] == 9002, "the OLD container, renamed"
        contents = {image["dockerImageId"] for image in after["images"] if "dockerImageId" in image}
        assert contents <= {before["images"][0]["dockerImageId"]}, "the OLD content"
        assert (after["appState"], after["release"]) == ("applying", COMMITS[1])
        reported = await lab.get("/v2/applications/state")
        assert reported["lab-fleet"]["updateStatus"] == "done"

    in_a_lab(story)


def test_4_a_tag_in_a_known_repository_is_pulled(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1, "lab/tagged:rel5"))

        await lab.apply(target(2, "lab/tagged:rel6"))

        assert (await lab.get("/v2/state/status"))["release"] == COMMITS[2]

    in_a_lab(story)


def test_5_an_http_backend_crashes_it_at_boot_unless_its_logs_go_over_https() -> None:
    world, token = SimWorld(1), SecretStr("a-join-token")

    BackendTargets(BackendSetup("https://cloudly", token), world)
    BackendTargets(BackendSetup("http://cloudly", token, logs_url="https://logs"), world)

    for logs_url in (None, "http://logs"):
        with pytest.raises(CrashedAtBootError):
            BackendTargets(BackendSetup("http://cloudly", token, logs_url=logs_url), world)


def test_6_retry_after_seconds_on_a_report_are_taken_for_milliseconds(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        assert lab.source is not None
        await lab.pass_(30)
        lab.source.reports.clear()
        lab.source.answer = Reported(429, "5")

        await lab.apply(target(1))
        await lab.pass_(10)

        assert len(lab.source.reports) > 42, "42 in 10 s were recorded, over a real network"

    in_a_lab(story)


def test_6_retry_after_seconds_on_tags_are_taken_for_milliseconds_too(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        assert lab.source is not None
        lab.source.answer = Reported(429, "5")

        answer = await lab.client.patch("/v2/device/tags", json={"place": "roof"})
        await lab.pass_(1)
        asked_in_a_second = lab.source.tag_reports
        lab.source.answer = Reported(200)
        await lab.pass_(1)

        assert answer.status_code == 202
        assert asked_in_a_second > 100
        assert (await lab.get("/v2/device/tags"))["tags"][0]["name"] == "place"

    in_a_lab(story)


def test_7_without_etag_every_poll_restarts_the_running_apply(tmp_path: Path) -> None:
    fast = {"RESIN_SUPERVISOR_POLL_INTERVAL": "2000"}

    async def release_after_a_minute(*, with_etag: bool) -> str:
        backend = _Backend(target(1, config=fast), with_etag=with_etag)
        world = SimWorld(7)
        slow = Timings(download_s=10, poll_jitter_s=0)
        setup = Setup(one_directory(tmp_path), uuid=UUID, timings=slow)
        source = BackendTargets(
            BackendSetup("https://cloudly", SecretStr("token")), world, transport=backend.transport
        )
        supervisor = Supervisor(world, setup, source)
        async with running(supervisor):
            await world.sleep(61)
            backend.body = target(2, config=fast)
            await world.sleep(60)
            return supervisor.kept.commits[1001]

    assert run_virtual(lambda: release_after_a_minute(with_etag=True)) == COMMITS[2]
    assert run_virtual(lambda: release_after_a_minute(with_etag=False)) == COMMITS[1]


def test_8_a_conflict_that_nobody_can_look_up_makes_ghost_devices(tmp_path: Path) -> None:
    async def story() -> list[str]:
        backend = _Backend(target(None), register_status=409)
        world = SimWorld(8)
        source = BackendTargets(
            BackendSetup("https://cloudly", SecretStr("token")), world, transport=backend.transport
        )
        supervisor = Supervisor(world, Setup(one_directory(tmp_path), uuid=UUID), source)
        async with running(supervisor):
            await world.sleep(60)
        return backend.registered

    uuids = run_virtual(story)

    assert uuids[0] == UUID
    assert len(set(uuids)) == len(uuids) > 2


@pytest.mark.parametrize("how", ["cut", "500", "no rows", "no number"])
def test_8_a_look_up_that_fails_for_whatever_reason_makes_one_too(tmp_path: Path, how: str) -> None:
    """Read in its source: it tells no refusal from a cut."""
    registered: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/device/register":
            registered.append(json.loads(request.content)["uuid"])
            return httpx.Response(409)
        if how == "cut":
            raise httpx.ReadError("cut")
        body = {"d": [{"id": "12"}]} if how == "no number" else {"d": []}
        return httpx.Response(500 if how == "500" else 200, json=body)

    async def story() -> None:
        world = SimWorld(8)
        setup = BackendSetup("https://cloudly", SecretStr("token"))
        source = BackendTargets(setup, world, transport=httpx.MockTransport(answer))
        supervisor = Supervisor(world, Setup(one_directory(tmp_path), uuid=UUID), source)
        async with running(supervisor):
            await world.sleep(15)

    run_virtual(story)

    assert registered[0] == UUID
    assert len(set(registered)) == len(registered) > 2


def test_9_a_device_without_apps_reports_nothing_of_apps(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        assert lab.source is not None
        await lab.pass_(3600)

        assert len(lab.source.reports) == 1, "what the device is, once"
        assert "apps" not in lab.source.reports[0][UUID]

    in_a_lab(story)


def test_9_a_failing_pull_is_reported_downloading_for_ever_and_never_failed(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        assert lab.source is not None
        await lab.apply(target(1))
        await lab.pass_(30)
        lab.source.reports.clear()

        fails = {"io.baseos.simulator.behaviour": "pull-fails"}
        await _offer(lab, target(2, labels=fails))
        await lab.pass_(3600)

        assert (await lab.get("/v1/device"))["update_failed"] is True
        assert "failed" not in str(lab.source.reports)
        application = await lab.get("/v2/applications/state")
        assert application["lab-fleet"]["updateStatus"] == "downloading"

    in_a_lab(story)


def test_10_in_an_app_with_one_service_any_service_name_restarts_that_one(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        before = (await lab.get("/v2/containerId"))["services"]

        answer = await lab.client.post(
            "/v2/applications/1001/restart-service", json={"serviceName": "nobody"}
        )

        assert answer.status_code == 200
        assert (await lab.get("/v2/containerId"))["services"].keys() == before.keys()
        assert (await lab.get("/v2/containerId"))["services"] != before

    in_a_lab(story)


def test_11_any_service_key_sees_the_environment_and_the_api_keys_of_all(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await two_services(lab)
        keys = lab.supervisor.kept.service_keys
        mine, other = keys[1001, "main"], keys[1001, "second"]

        shown = await lab.client.get("/v2/local/target-state", params={"apikey": mine})

        assert shown.status_code == 200
        assert other in shown.text

    in_a_lab(story)


@pytest.mark.parametrize(
    ("app_uuid", "ends"), [("11112222333344445555666677778888", False), (LETTERS_UUID, True)]
)
def test_12_an_app_whose_uuid_is_digits_only_is_never_removed(
    in_a_lab: InALab,
    app_uuid: str,
    ends: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1, app_uuid=app_uuid))

        await _offer(lab, target(None))
        await lab.pass_(3600)

        state = await lab.get("/v2/state/status")
        assert state["appState"] == ("applied" if ends else "applying")
        assert ("release" in state) is not ends

    in_a_lab(story)


def test_13_without_a_backend_there_is_nothing_to_update_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_lab(tmp_path, managed=False) as lab:
            assert await lab.update(force=True) == 204
            await lab.pass_(60)
            assert (await lab.get("/v2/state/status"))["appState"] == "applied"

            local = {"local": target(1)[UUID]}
            answer = await lab.client.post("/v2/local/target-state", json=local)
            await lab.pass_(20)

            assert answer.status_code == 200
            assert (await lab.get("/v2/state/status"))["release"] == COMMITS[1]

    run_virtual(story)


class _Backend:
    """A backend with one target."""

    def __init__(
        self, body: dict[str, Any], *, with_etag: bool = True, register_status: int = 201
    ) -> None:
        self.body = body
        self._with_etag = with_etag
        self._register_status = register_status
        self.registered: list[str] = []
        routes = [
            Route("/device/register", self._register, methods=["POST"]),
            Route("/device/v3/{uuid}/state", self._state),
            Route("/v7/device_config_variable", self._taken, methods=["POST"]),
            Route("/device/v3/state", self._taken, methods=["PATCH"]),
        ]
        self.transport = httpx.ASGITransport(Starlette(routes=routes))

    async def _register(self, request: Request) -> Response:
        self.registered.append((await request.json())["uuid"])
        return JSONResponse({"id": 1234}, self._register_status)

    async def _taken(self, _request: Request) -> Response:
        return Response(status_code=201)

    async def _state(self, request: Request) -> Response:
        if not self._with_etag:
            return JSONResponse(self.body)
        tag = f'W/"{len(str(self.body))}{COMMITS[2] in str(self.body)}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304)
        return JSONResponse(self.body, headers={"etag": tag})
