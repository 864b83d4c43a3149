"""The balena slice: what a Supervisor asks, in the shapes that were recorded from a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from cloudly.balena.registration import FOUND_FOR_MS
from cloudly.balena.target import device_name, etag, matches
from cloudly.problems import StoreUnavailable
from cloudly.tokens import fingerprint
from interfaces.target_verdict import faults_of
from interfaces.world import now_ms
from tests.cloudly.given import DIGEST, UUID, Plane, bearer, code_of, commit_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

KEY = "5016ddb664b64d5685d6560d4ec35bef"
OTHER_KEY = "9f229a2251bc4722a350477271954d59"
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


async def state(plane: Plane, key: str = KEY, **headers: str) -> httpx.Response:
    return await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key) | headers)


async def report(plane: Plane, parts: dict[str, Any]) -> httpx.Response:
    return await plane.client.patch("/device/v3/state", json={UUID: parts}, headers=bearer(KEY))


@asynccontextmanager
async def sending_slowly(plane: Plane, parts: bytes) -> AsyncIterator[list[httpx.Response]]:
    """A report whose second half comes when the block ends; then its answer is there."""
    rest, answers = anyio.Event(), list[httpx.Response]()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"' + UUID.encode() + b'": '
        await rest.wait()
        yield parts + b"}"

    async def send() -> None:
        answers.append(
            await plane.client.patch("/device/v3/state", content=body(), headers=bearer(KEY))
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await plane.world.sleep(1)
        yield answers
        rest.set()


async def look_up(plane: Plane, key: str) -> httpx.Response:
    asked = {"$select": "id", "$filter": f"uuid eq '{UUID}'"}
    return await plane.client.get("/v7/device", params=asked, headers=bearer(key))


async def exchange(plane: Plane, device: int, token: str, key: str) -> httpx.Response:
    await look_up(plane, token)  # as a Supervisor does it
    path = f"/api-key/device/{device}/device-key"
    return await plane.client.post(path, json={"apiKey": key}, headers=bearer(token))


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
    other_node = await register(
        plane, token, uuid="d914fb90f7b9400bb7bf8fabf790030d", api_key="y" * 32
    )
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
    assert json.loads(kept) == {"ip_address": "192.0.2.2", "apps": {"a": {"releases": {}}}}
    assert plane.rows("device")[0]["api_secret_hash"] == fingerprint("CANARY-1bdce32d")


@pytest.mark.parametrize(
    "body", [{}, {"d914fb90f7b9400bb7bf8fabf790030d": {}}, {UUID: {}, "other": {}}]
)
async def test_a_device_reports_for_itself_only(plane: Plane, body: dict[str, Any]) -> None:
    await register(plane, plane.join_token())

    answer = await plane.client.patch("/device/v3/state", json=body, headers=bearer(KEY))

    assert code_of(answer) == (401, "node-mismatch")
    assert plane.rows("device")[0]["report"] is None


async def test_a_fresh_token_replaces_the_key_of_a_reflashed_device_by_an_exchange(
    plane: Plane,
) -> None:
    first = await register(plane, plane.join_token())
    device, token = first.json()["id"], plane.join_token()
    await report(plane, {"status": "Idle"})

    conflict = await register(plane, token, api_key=OTHER_KEY)
    by_key = await look_up(plane, OTHER_KEY)
    by_token = await look_up(plane, token)
    used_before = plane.rows("join_token")[1]["uses_left"]
    exchanged = await exchange(plane, device, token, OTHER_KEY)

    assert code_of(conflict) == (409, "registered-already")
    assert code_of(by_key) == (401, "node-unknown")
    assert (by_token.status_code, by_token.json()) == (200, {"d": [{"id": device}]})
    assert (used_before, plane.rows("join_token")[1]["uses_left"]) == (1, 0)
    assert (exchanged.status_code, exchanged.text) == (200, OTHER_KEY)
    assert code_of(await state(plane)) == (401, "node-unknown")
    assert (await state(plane, OTHER_KEY)).status_code == 200
    assert (await look_up(plane, OTHER_KEY)).json() == {"d": [{"id": device}]}
    assert plane.rows("device")[0]["report"] is None  # another life, which reports anew


async def test_a_key_is_exchanged_only_by_who_knows_the_uuid(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    token, other = plane.join_token(), plane.join_token()
    path = f"/api-key/device/{device}/device-key"
    await look_up(plane, other)

    guessed = await plane.client.post(path, json={"apiKey": OTHER_KEY}, headers=bearer(token))
    await look_up(plane, token)
    await plane.world.sleep(FOUND_FOR_MS / 1000 + 1)
    late = await plane.client.post(path, json={"apiKey": OTHER_KEY}, headers=bearer(token))

    assert code_of(guessed) == code_of(late) == (401, "node-unknown")
    assert (await state(plane)).status_code == 200
    assert plane.rows("join_token")[1]["uses_left"] == 1


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 25, "-1", "1e3", "0", "x"])
async def test_a_number_that_is_none_is_not_found(plane: Plane, number: str) -> None:
    await register(plane, plane.join_token())

    key = await plane.client.post(
        f"/api-key/device/{number}/device-key",
        json={"apiKey": OTHER_KEY},
        headers=bearer(plane.join_token()),
    )
    name = await plane.client.patch(
        f"/v7/device({number})", json={"device_name": "x"}, headers=bearer(KEY)
    )

    assert code_of(key) == code_of(name) == (404, "not-found")


async def test_a_copied_card_with_another_uuid_is_refused_and_harms_nobody(plane: Plane) -> None:
    token = plane.join_token(uses=5)
    await register(plane, token)

    copied = await register(plane, token, uuid="d914fb90f7b9400bb7bf8fabf790030d")

    assert code_of(copied) == (401, "node-mismatch")
    assert (await state(plane)).status_code == 200


@pytest.mark.parametrize("parts", [b'{"status": "late"}', b'{"cpu_usage": 1}'])
async def test_what_a_revoked_device_was_still_sending_is_not_kept(
    plane: Plane, parts: bytes
) -> None:
    await register(plane, plane.join_token())
    await report(plane, {"status": "Idle"})
    async with sending_slowly(plane, parts) as answers:
        plane.revoke_node(UUID)

    assert code_of(answers[0]) == (401, "node-revoked")
    number = plane.node()["id"]
    said = plane.store.read_now(lambda db: plane.store.devices.said(db, number))
    assert said is not None
    assert json.loads(said["report"]) == {"status": "Idle"}


async def test_settings_are_bounded_in_all_and_a_new_life_tells_them_anew(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]

    for number in range(8):
        told = {"device": device, "name": f"X{number}", "value": "\N{GRINNING FACE}" * 10_000}
        answer = await plane.client.post(
            "/v7/device_config_variable", json=told, headers=bearer(KEY)
        )
    kept = len(plane.rows("device_config"))
    await exchange(plane, device, plane.join_token(), OTHER_KEY)

    assert code_of(answer) == (413, "too-large")
    assert kept == 6
    assert plane.rows("device_config") == []


async def test_a_supervisor_alone_is_seen_in_the_database_too(plane: Plane) -> None:
    await register(plane, plane.join_token())
    await state(plane)
    await plane.world.sleep(30)

    await state(plane)

    assert plane.rows("device")[0]["seen_at_ms"] == now_ms(plane.world)


async def test_an_exchange_whose_answer_was_lost_is_answered_again(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    token = plane.join_token()
    await exchange(plane, device, token, OTHER_KEY)

    again = await exchange(plane, device, token, OTHER_KEY)

    assert (again.status_code, again.text) == (200, OTHER_KEY)
    assert (await state(plane, OTHER_KEY)).status_code == 200


async def test_a_revoked_device_finds_itself_no_more(plane: Plane) -> None:
    await register(plane, plane.join_token())
    plane.revoke_node(UUID)

    assert code_of(await look_up(plane, KEY)) == (401, "node-revoked")


async def test_a_copy_of_an_older_disk_does_not_get_its_key_back(plane: Plane) -> None:
    old = plane.join_token()
    device = (await register(plane, old)).json()["id"]
    await exchange(plane, device, plane.join_token(), OTHER_KEY)

    again = await register(plane, old)
    exchanged = await exchange(plane, device, old, KEY)

    assert code_of(again) == code_of(exchanged) == (401, "token-used-up")
    assert (await state(plane, OTHER_KEY)).status_code == 200


async def test_no_token_and_no_use_left_find_and_exchange_nothing(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    spent, revoked, expired = plane.join_token(), plane.join_token(), plane.join_token(lasts_ms=0)
    await register(plane, spent, uuid="d914fb90f7b9400bb7bf8fabf790030d", api_key="k" * 32)
    plane.revoke_token(3)

    for token in (spent, revoked, expired, "bjt_unknown"):
        assert (await look_up(plane, token)).status_code in {401, 403}
        assert (await exchange(plane, device, token, OTHER_KEY)).status_code == 401
    assert (await state(plane)).status_code == 200


@pytest.mark.parametrize(
    "asked", ["", "uuid eq 'x' or 1 eq 1", "id eq 1", f"uuid eq '{UUID}' ", "uuid eq ''"]
)
async def test_other_odata_questions_are_refused_and_not_guessed(plane: Plane, asked: str) -> None:
    await register(plane, plane.join_token())

    answer = await plane.client.get("/v7/device", params={"$filter": asked}, headers=bearer(KEY))

    assert code_of(answer) == (400, "malformed")


async def test_what_a_supervisor_found_set_on_its_host_comes_back_in_its_target(
    plane: Plane,
) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    before = await state(plane)

    for value in ("900000", "60000"):
        told = {"device": device, "name": "RESIN_SUPERVISOR_POLL_INTERVAL", "value": value}
        answer = await plane.client.post(
            "/v7/device_config_variable", json=told, headers=bearer(KEY)
        )

    after = await state(plane)
    assert (answer.status_code, isinstance(answer.json()["id"], int)) == (201, True)
    assert after.json()[UUID]["config"] == {"RESIN_SUPERVISOR_POLL_INTERVAL": "60000"}
    assert after.headers["etag"] != before.headers["etag"]
    assert faults_of(after.json()[UUID], UUID) == ()


@pytest.mark.parametrize(
    "told",
    [
        {"name": "BAD-NAME", "value": "1"},
        {"name": "9", "value": "1"},
        {"name": "X", "value": 1},
        {"name": "X", "value": None},
        {"name": "X", "value": "1", "device": 77},
    ],
)
async def test_a_setting_that_would_spoil_the_whole_target_is_refused(
    plane: Plane, told: dict[str, Any]
) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    before = await state(plane)

    answer = await plane.client.post(
        "/v7/device_config_variable", json={"device": device} | told, headers=bearer(KEY)
    )

    assert answer.status_code in {400, 401, 422}
    assert (await state(plane)).content == before.content


async def test_a_device_may_name_itself(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]

    answer = await plane.client.patch(
        f"/v7/device({device})", json={"device_name": "lab-initial"}, headers=bearer(KEY)
    )
    other = await plane.client.patch(
        f"/v7/device({device + 1})", json={"device_name": "x"}, headers=bearer(KEY)
    )

    assert (answer.status_code, answer.text) == (200, "OK")
    assert code_of(other) == (401, "node-mismatch")
    assert (await state(plane)).json()[UUID]["name"] == "lab-initial"


async def test_tags_are_kept_and_given_back(plane: Plane) -> None:
    device = (await register(plane, plane.join_token())).json()["id"]
    asked = {"$select": "id,tag_key,value", "$filter": f"device eq {device}"}

    none = await plane.client.get("/v7/device_tag", params=asked, headers=bearer(KEY))
    for told in ({"place": "hall", "lab_tag": "v1"}, {"lab_tag": "v2"}):
        answer = await plane.client.patch("/device/v3/tags", json={UUID: told}, headers=bearer(KEY))
    kept = await plane.client.get("/v7/device_tag", params=asked, headers=bearer(KEY))

    assert (none.status_code, none.json()) == (200, {"d": []})
    assert answer.status_code == 200
    assert {row["tag_key"]: row["value"] for row in kept.json()["d"]} == {
        "place": "hall",
        "lab_tag": "v2",
    }
    assert all(isinstance(row["id"], int) for row in kept.json()["d"])


@pytest.mark.parametrize("told", [{"a b": "1"}, {"a": 1}, {"": "1"}, [], {"k": {"a": "1"}}])
async def test_bad_tags_change_nothing(plane: Plane, told: Any) -> None:
    await register(plane, plane.join_token())

    answer = await plane.client.patch("/device/v3/tags", json={UUID: told}, headers=bearer(KEY))

    assert code_of(answer) == (422, "malformed")
    assert plane.rows("device_tag") == []


async def test_reports_are_differences_and_a_part_is_replaced_as_a_whole(plane: Plane) -> None:
    await register(plane, plane.join_token())

    await report(plane, {"status": "Idle", "apps": {"a": {"releases": {"r1": {}, "r2": {}}}}})
    await report(plane, {"apps": {"a": {"release_uuid": "r2", "releases": {"r2": {}}}}})

    assert json.loads(plane.rows("device")[0]["report"]) == {
        "status": "Idle",
        "apps": {"a": {"release_uuid": "r2", "releases": {"r2": {}}}},
    }


async def test_measurements_cost_no_write_and_are_not_lost_when_cloudly_ends(plane: Plane) -> None:
    await register(plane, plane.join_token())
    await report(plane, {"status": "Idle", "cpu_usage": 1})
    commits = plane.store.database.commits

    await report(plane, {"cpu_usage": 50, "memory_usage": 700})

    assert plane.store.database.commits == commits
    later = plane.again()
    assert json.loads(later.rows("device")[0]["report"]) == {
        "status": "Idle",
        "cpu_usage": 50,
        "memory_usage": 700,
    }
    later.end()


async def test_a_report_merges_into_measurements_that_are_only_in_memory(plane: Plane) -> None:
    await register(plane, plane.join_token())
    await report(plane, {"status": "Idle"})

    await report(plane, {"cpu_usage": 50})
    await report(plane, {"status": "Updating"})

    assert json.loads(plane.rows("device")[0]["report"]) == {"status": "Updating", "cpu_usage": 50}


async def test_a_report_that_was_overtaken_is_not_merged(plane: Plane) -> None:
    await register(plane, plane.join_token())
    async with sending_slowly(plane, b'{"status": "old"}') as answers:
        await report(plane, {"status": "new"})

    assert code_of(answers[0]) == (503, "busy")
    assert json.loads(plane.rows("device")[0]["report"]) == {"status": "new"}


async def test_more_than_is_kept_of_one_device_is_refused(plane: Plane) -> None:
    await register(plane, plane.join_token())

    for part in range(5):
        answer = await report(plane, {f"part{part}": "x" * 60_000})

    assert code_of(answer) == (413, "too-large")
    assert sorted(json.loads(plane.rows("device")[0]["report"])) == [f"part{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/device/v3/{UUID}/state"),
        ("PATCH", "/device/v3/state"),
        ("PATCH", "/device/v3/tags"),
        ("POST", "/v7/device_config_variable"),
        ("GET", f"/v7/device?$filter=uuid eq '{UUID}'"),
        ("POST", "/device/register"),
    ],
)
async def test_a_supervisor_is_never_told_when_to_ask_again(
    plane: Plane, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(plane, plane.join_token())

    def failing(*_: object, **__: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(plane.store, "read", failing)
    monkeypatch.setattr(plane.store.devices, "_read", failing)

    answer = await plane.client.request(method, path, headers=bearer(KEY), json={})

    assert code_of(answer) == (503, "busy")
    assert "retry-after" not in answer.headers


async def test_tags_and_names_are_as_the_rfc_and_the_supervisor_want_them() -> None:
    assert matches("*", etag(b"x"))
    assert matches(f"W/{etag(b'x')}", etag(b"x"))
    assert not matches(None, etag(b"x"))
    assert not matches('"y"', etag(b"x"))
    assert device_name("a\nb<c>", UUID) == "a-b-c-"
    assert device_name("", UUID) == "node-6ed0237"
