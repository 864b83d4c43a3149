"""The balena slice: what a Supervisor asks, in the shapes that were recorded from a real one."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from cloudly.balena.target import device_name, etag, matches
from interfaces.target_verdict import faults_of
from tests.cloudly.given import DIGEST, UUID, Plane, bearer, code_of, commit_of

pytestmark = pytest.mark.anyio

KEY = "5016ddb664b64d5685d6560d4ec35bef"
REGISTRATION: dict[str, Any] = {
    "application": 1001,
    "uuid": UUID,
    "device_type": "generic-amd64",
    "api_key": KEY,
    "supervisor_version": "19.0.5",
    "os_version": "balenaOS 6.5.1",
    "os_variant": "dev",
    "mac_address": "02:FC:00:00:00:01 2A:BB:35:25:96:4A",
}


async def register(plane: Plane, token: str, **changes: Any) -> httpx.Response:
    return await plane.client.post(
        "/device/register", json=REGISTRATION | changes, headers=bearer(token)
    )


async def state(plane: Plane, **headers: str) -> httpx.Response:
    return await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(KEY) | headers)


async def test_registration_is_answered_with_201_and_a_number(plane: Plane) -> None:
    answer = await register(plane, plane.join_token())

    assert answer.status_code == 201
    assert answer.json() == {"id": plane.node()["id"], "uuid": UUID}


async def test_agent_and_supervisor_are_one_node_and_one_use_whoever_comes_first(
    plane: Plane,
) -> None:
    token, other_token = plane.join_token(), plane.join_token()
    other = "d914fb90f7b9400bb7bf8fabf790030d"

    first = [await register(plane, token), await plane.device().ask(token)]
    second = [
        await plane.device(other).ask(other_token),
        await register(plane, other_token, uuid=other, api_key="k" * 32),
    ]

    assert [answer.status_code for answer in first + second] == [201] * 4
    assert len(plane.rows("node")) == 2
    assert [row["uses_left"] for row in plane.rows("join_token")] == [0, 0]


async def test_the_same_registration_again_is_the_same_device(plane: Plane) -> None:
    token = plane.join_token()
    first = await register(plane, token)

    assert (await register(plane, token)).json() == first.json()
    assert len(plane.rows("device")) == 1


async def test_refusals_are_401_because_409_would_breed_ghosts(plane: Plane) -> None:
    token = plane.join_token()
    await register(plane, token)

    other_key = await register(plane, token, api_key="x" * 32)
    other_node = await register(plane, token, uuid="d914fb90f7b9400bb7bf8fabf790030d")
    nobody = await register(plane, "bjt_unknown")

    assert [code_of(one) for one in (other_key, other_node, nobody)] == [
        (401, "token-used-up"), (401, "token-used-up"), (401, "token-unknown"),
    ]  # fmt: skip
    assert len(plane.rows("node")) == 1
    assert all("retry-after" not in one.headers for one in (other_key, other_node, nobody))


async def test_without_a_release_the_target_has_no_apps(plane: Plane) -> None:
    await register(plane, plane.join_token())

    answer = await state(plane)

    assert answer.json() == {UUID: {"name": "node-6ed0237", "config": {}, "apps": {}}}


async def test_the_target_is_the_desired_release_in_the_shape_that_a_supervisor_accepts(
    plane: Plane,
) -> None:
    await register(plane, plane.join_token())
    plane.release("1.0.0", UUID)

    target = (await state(plane)).json()[UUID]

    ((app_uuid, app),) = target["apps"].items()
    assert not app_uuid.isdigit()
    assert len(app_uuid) == 32
    assert (app["id"], app["name"], app["class"], app["is_host"]) == (1, "baseos", "fleet", False)
    ((commit, release),) = app["releases"].items()
    assert commit == commit_of("1.0.0")
    service = release["services"]["main"]
    assert service["image"] == f"registry.example/app-1.0.0@{DIGEST}"
    assert service["labels"] == {"io.balena.features.supervisor-api": "1"}
    assert service["environment"] == {}
    assert all(isinstance(one, int) for one in (release["id"], service["id"], service["image_id"]))


async def test_a_withdrawn_release_leaves_the_app_without_one(plane: Plane) -> None:
    token = plane.join_token()
    await register(plane, token)
    device = plane.device()
    await device.ask(token)
    given_up = plane.release("1.0.0", UUID)
    before = (await state(plane)).json()[UUID]["apps"]

    await device.tell("app-update/1", "downloading", "failed", deployment=given_up)

    target = (await state(plane)).json()[UUID]
    assert [one["releases"] for one in target["apps"].values()] == [{}]
    assert list(target["apps"]) == list(before)
    assert faults_of(target, UUID) == ()


async def test_numeric_ids_stay_and_follow_what_they_name(plane: Plane) -> None:
    await register(plane, plane.join_token())

    seen = []
    for version in ("1.0.0", "2.0.0", "1.0.0"):
        plane.release(version, UUID)
        (app,) = (await state(plane)).json()[UUID]["apps"].values()
        (release,) = app["releases"].values()
        service = release["services"]["main"]
        seen.append((app["id"], release["id"], service["id"], service["image_id"]))

    assert seen[0] == seen[2]
    assert seen[0][1] != seen[1][1]  # another release
    assert seen[0][2] == seen[1][2]  # the same service
    assert seen[0][3] != seen[1][3]  # another image


async def test_the_etag_is_strong_and_stays_until_the_target_changes(plane: Plane) -> None:
    await register(plane, plane.join_token())
    plane.release("1.0.0", UUID)
    tag = (await state(plane)).headers["etag"]

    later = plane.again()
    unchanged = await state(later, **{"if-none-match": f'"other", W/{tag}'})
    later.release("2.0.0", UUID)
    changed = await state(later, **{"if-none-match": tag})

    assert tag.startswith('"')
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
    later.end()


async def test_what_agents_report_does_not_touch_the_target(plane: Plane) -> None:
    token = plane.join_token()
    await register(plane, token)
    device = plane.device()
    await device.ask(token)
    tag = (await state(plane)).headers["etag"]

    await device.beat(reported={"release": "c1"})

    assert (await state(plane, **{"if-none-match": tag})).status_code == 304


@pytest.mark.parametrize("key", ["", "x" * 32, KEY.upper()])
async def test_a_stranger_gets_no_target(plane: Plane, key: str) -> None:
    await register(plane, plane.join_token())

    answer = await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key))

    assert code_of(answer) == (401, "node-unknown")


async def test_a_device_gets_no_target_but_its_own(plane: Plane) -> None:
    other = "d914fb90f7b9400bb7bf8fabf790030d"
    await register(plane, plane.join_token())
    await register(plane, plane.join_token(), uuid=other, api_key="k" * 32)

    answer = await plane.client.get(f"/device/v3/{other}/state", headers=bearer(KEY))

    assert code_of(answer) == (401, "node-mismatch")


async def test_a_state_report_is_kept_as_it_came_but_for_the_key_in_it(plane: Plane) -> None:
    await register(plane, plane.join_token())
    report = {
        "ip_address": "192.0.2.2",
        "api_secret": "CANARY-1bdce32d",
        "apps": {"a": {"releases": {}}},
    }

    answer = await plane.client.patch("/device/v3/state", json={UUID: report}, headers=bearer(KEY))

    assert (answer.status_code, answer.text) == (200, "OK")
    kept = plane.rows("device")[0]["report"]
    assert json.loads(kept) == {UUID: {"ip_address": "192.0.2.2", "apps": {"a": {"releases": {}}}}}


@pytest.mark.parametrize(
    "body", [{}, {"d914fb90f7b9400bb7bf8fabf790030d": {}}, {UUID: {}, "other": {}}]
)
async def test_a_device_reports_for_itself_only(plane: Plane, body: dict[str, Any]) -> None:
    await register(plane, plane.join_token())

    answer = await plane.client.patch("/device/v3/state", json=body, headers=bearer(KEY))

    assert code_of(answer) == (401, "node-mismatch")
    assert plane.rows("device")[0]["report"] is None


async def test_a_fresh_token_replaces_the_key_of_a_reflashed_device(plane: Plane) -> None:
    first = await register(plane, plane.join_token())

    again = await register(plane, plane.join_token(), api_key="k" * 32)

    assert again.json() == first.json()
    assert code_of(await state(plane)) == (401, "node-unknown")


async def test_tags_and_names_are_as_the_rfc_and_the_supervisor_want_them() -> None:
    assert matches("*", etag(b"x"))
    assert matches(f"W/{etag(b'x')}", etag(b"x"))
    assert not matches(None, etag(b"x"))
    assert not matches('"y"', etag(b"x"))
    assert device_name("a\nb<c>", UUID) == "a-b-c-"
    assert device_name("", UUID) == "node-6ed0237"
