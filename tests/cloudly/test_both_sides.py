"""Two stories of one node: where what baserunner journaled and what its Supervisor reported cannot both be true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from cloudly.balena.sides import SETTLE_MS, SILENT_MS, Journaled, Reported, Service, disagreements
from tests.cloudly.given import DIGEST, UUID, Device, Plane, bearer, commit_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

NOW = 10_000_000_000
KEY = "5016ddb664b64d5685d6560d4ec35bef"
NEW, OLD = commit_of("2.0.0"), commit_of("1.0.0")
IMAGE = f"registry.example/app-2.0.0@{DIGEST}"
LONG_AGO = NOW - SETTLE_MS - 1

JOURNALED = Journaled(
    heard_at_ms=NOW,
    sees_supervisor=True,
    release=NEW,
    wanted=NEW,
    wanted_version="2.0.0",
    outcome="succeeded",
    outcome_at_ms=LONG_AGO,
    open=False,
    images={"main": IMAGE},
)
REPORTED = Reported(
    registered_at_ms=1,
    seen_at_ms=NOW,
    at_ms=LONG_AGO,
    release=NEW,
    update_status={NEW: "done"},
    services=(Service("main", NEW, IMAGE, "Running", None),),
    version="19.0.5",
    status="Idle",
)


def differ(journaled: dict[str, Any], reported: dict[str, Any]) -> tuple[str, ...]:
    return disagreements(replace(JOURNALED, **journaled), replace(REPORTED, **reported), now_ms=NOW)


async def test_two_stories_that_agree_have_nothing_to_say() -> None:
    assert differ({}, {}) == ()


@pytest.mark.parametrize(
    ("journaled", "reported", "says"),
    [
        ({}, {"release": OLD}, "2.0.0 succeeded; the Supervisor reports that " + OLD[:12]),
        ({}, {"release": None}, "2.0.0 succeeded; the Supervisor reports that no release runs"),
        ({}, {"services": ()}, "reports no service main"),
        (
            {},
            {"services": (Service("main", NEW, IMAGE, "exited", None),)},
            "reports that main is exited",
        ),
        (
            {},
            {"services": (Service("main", NEW, "other@x", "Running", None),)},
            f"runs other@x, wanted is {IMAGE}",
        ),
        ({"outcome": "failed"}, {}, "2.0.0 failed; the Supervisor reports that it runs"),
        ({"outcome": "rolled-back"}, {}, "rolled-back; the Supervisor reports that it runs"),
        (
            {"outcome": "failed", "release": OLD},
            {"release": "c" * 32},
            "baserunner saw release " + OLD[:12] + " running; the Supervisor reports cccccccccccc",
        ),
        (
            {},
            {"seen_at_ms": NOW - SILENT_MS - 1},
            "answers baserunner, but it last asked Cloudly 45 min ago",
        ),
        ({"sees_supervisor": False}, {}, "cannot reach the Supervisor, but Cloudly heard"),
    ],
)
async def test_each_contradiction_is_said_once(
    journaled: dict[str, Any], reported: dict[str, Any], says: str
) -> None:
    (sentence,) = differ(journaled, reported)

    assert says in sentence


@pytest.mark.parametrize(
    ("journaled", "reported"),
    [
        ({"outcome_at_ms": NOW - SETTLE_MS + 1}, {"release": OLD}),
        ({"outcome": "applying", "open": True}, {"release": OLD}),
        ({"outcome": "succeeded"}, {"at_ms": None, "release": None}),
        ({"wanted": None, "outcome": None, "outcome_at_ms": None}, {"release": OLD}),
        ({"heard_at_ms": NOW - SETTLE_MS - 1}, {"seen_at_ms": NOW - SILENT_MS - 1}),
        ({"sees_supervisor": None}, {"seen_at_ms": None}),
        ({"outcome": "failed", "release": None}, {"release": OLD}),
        ({}, {"release": OLD, "seen_at_ms": LONG_AGO + 1}),
        ({"images": {"main": IMAGE.replace("@", ":1.2@")}}, {}),
    ],
)
async def test_what_is_not_settled_or_not_said_is_no_disagreement(
    journaled: dict[str, Any], reported: dict[str, Any]
) -> None:
    assert differ(journaled, reported) == ()


async def test_without_a_supervisor_there_is_nothing_to_compare() -> None:
    assert disagreements(JOURNALED, None, now_ms=NOW) == ()


# -- through the whole of Cloudly


async def with_both(plane: Plane) -> Device:
    token = plane.join_token()
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": KEY}, headers=bearer(token)
    )
    device = plane.device()
    await device.ask(token)
    return device


async def report(plane: Plane, release: str, status: str = "Running") -> None:
    services = {"main": {"image": f"registry.example/app-1.0.0@{DIGEST}", "status": status}}
    app = {
        "release_uuid": release,
        "releases": {release: {"update_status": "done", "services": services}},
    }
    parts = {"supervisor_version": "19.0.5", "apps": {plane.store.app_uuid: app}}
    answer = await plane.client.patch("/device/v3/state", json={UUID: parts}, headers=bearer(KEY))
    assert answer.status_code == 200, answer.text


async def page(plane: Plane) -> str:
    answer: httpx.Response = await plane.client.get(f"/nodes/{UUID}")
    assert answer.status_code == 200
    return " ".join(answer.text.split())


async def succeed(plane: Plane, device: Device) -> None:
    deployment = plane.release("1.0.0", UUID)
    await device.beat()
    await device.tell("app-update/1", "staged", "applying", "succeeded", deployment=deployment)
    await plane.world.sleep(SETTLE_MS / 1000 + 1)
    await device.beat(reported={"release": OLD})
    await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(KEY))


async def test_the_page_shows_both_stories_side_by_side(plane: Plane) -> None:
    device = await with_both(plane)

    await report(plane, OLD)
    await succeed(plane, device)

    shown = await page(plane)
    assert "The Supervisor reported" in shown
    assert f"registry.example/app-1.0.0@{DIGEST}" in shown
    assert "urgent" not in shown


async def test_the_page_says_where_they_disagree(plane: Plane) -> None:
    device = await with_both(plane)

    await report(plane, OLD, status="exited")
    await succeed(plane, device)

    assert (
        "The journal says that 1.0.0 succeeded; the Supervisor reports that main is exited."
        in await page(plane)
    )


async def test_what_a_hostile_supervisor_reports_is_text(plane: Plane) -> None:
    await with_both(plane)
    evil = "<script>alert(1)</script>"
    apps = {
        plane.store.app_uuid: {
            "release_uuid": evil,
            "releases": {
                evil: {"update_status": evil, "services": {evil: {"image": evil}}},
                "x": 7,
            },
        }
    }

    for told in ({"apps": apps}, {"apps": [1]}, {"apps": {plane.store.app_uuid: None}}):
        await plane.client.patch("/device/v3/state", json={UUID: told}, headers=bearer(KEY))

        assert "<script>alert" not in await page(plane)


async def test_a_device_whose_supervisor_never_came_is_told_so(plane: Plane) -> None:
    await plane.device().enroll()

    assert "it has not registered: it gets no target state" in await page(plane)
