"""Who may use the admin API: every route, every role, and everybody else."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from cloudly.access import GRANTED, Permission, Role, may
from cloudly.http.api.door import MAX_BODY, Resource
from cloudly.store import api_tokens
from interfaces.world import now_ms
from tests.cloudly.api_given import API, Operator, operator, requests, routes
from tests.cloudly.given import HOUR_MS, Plane, bearer, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

DAY_MS = 24 * HOUR_MS


def test_every_route_names_a_permission_that_some_role_has_and_waits_without_a_thread() -> None:
    found = routes()

    assert len(found) > 25
    for route in found:
        assert any(may(role, route.permission) for role in Role), route.path
        assert inspect.iscoroutinefunction(route.endpoint), route.path  # a thread breaks order


def test_a_route_without_a_permission_cannot_be_made() -> None:
    resource = Resource("open to all")

    async def open_to_all() -> str:
        return "come in"

    with pytest.raises(KeyError, match="x-permission"):
        resource.get("/open")(open_to_all)


def test_each_role_has_what_a_viewer_has_and_only_an_admin_has_all() -> None:
    assert all(GRANTED[Role.VIEWER] <= GRANTED[role] for role in Role)
    assert [role for role in Role if GRANTED[role] == set(Permission)] == [Role.ADMIN]


def test_who_approves_gives_no_orders_and_who_gives_orders_approves_nothing() -> None:
    assert not may(Role.OPERATOR, Permission.RELEASES_APPROVE)
    assert not may(Role.APPROVER, Permission.RELEASES_SET)
    assert not may(Role.APPROVER, Permission.RELEASES_WRITE)
    both = GRANTED[Role.OPERATOR] & GRANTED[Role.APPROVER] - GRANTED[Role.VIEWER]
    assert both == {Permission.RELEASES_CONTENTS}
    assert not may(Role.OPERATOR, Permission.ROLLOUTS_APPROVE)


def test_only_an_admin_says_how_many_must_agree_and_whom_that_binds() -> None:
    assert [role for role in Role if may(role, Permission.CHANNELS_GOVERN)] == [Role.ADMIN]


@pytest.mark.parametrize("role", Role)
async def test_each_role_gets_what_its_permissions_allow_on_every_route(
    plane: Plane, role: Role
) -> None:
    who = operator(plane, role)
    refused, let_in = 0, 0

    for route in routes():
        for method, path in requests(route):
            answer = await who(method, path)

            if may(role, route.permission):
                assert answer.status_code not in {401, 403, 500}, (method, path, answer.text)
                let_in += 1
            else:
                assert code_of(answer) == (403, "not-allowed"), (method, path)
                refused += 1

    assert let_in > 10
    assert (refused == 0) == (role is Role.ADMIN)


async def test_a_viewer_and_an_approver_change_nothing(plane: Plane) -> None:
    await plane.device().enroll()
    tables = (
        "node", "fleet", "join_token", "release", "meta", "diagnosis", "deployment", "channel", "channel_release",
        "approval", "pin", "ban", "rollout", "rollout_event", "audit",
    )  # fmt: skip
    viewers = [operator(plane, role) for role in (Role.VIEWER, Role.APPROVER)]
    before = [plane.rows(table) for table in tables]
    good: dict[str, Any] = {"name": "x", "role": "admin", "fleet": "default", "release": "1.0.0"}

    for who in viewers:
        for route in routes():
            for method, path in requests(route):
                if method != "GET":
                    await who(method, path.replace("nowhere", "default"), json=good)

    assert [plane.rows(table) for table in tables] == before
    assert len(plane.rows("api_token")) == 2


async def test_nobody_without_a_usable_api_token_gets_anything_from_any_route(plane: Plane) -> None:
    device = await plane.device().enroll()
    expired = operator(plane, name="old", lasts_ms=HOUR_MS)
    revoked = operator(plane, name="gone-too")
    await revoked.does("POST", "/api-tokens/gone-too/revoke")
    await plane.world.sleep(HOUR_MS / 1000)
    strangers = {
        "api-token-unknown": [
            {},
            bearer("bat_" + "x" * 43),
            bearer(device.token),
            bearer(plane.join_token()),
            {"authorization": f"Basic {expired.token}"},
            bearer("\x7f" * 300),
        ],
        "api-token-expired": [bearer(expired.token)],
        "api-token-revoked": [bearer(revoked.token)],
    }

    for route in routes():
        for method, path in requests(route):
            for code, those in strangers.items():
                for headers in those:
                    answer = await plane.client.request(method, API + path, headers=headers)
                    assert code_of(answer) == (401, code), (method, path)
                    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_is_good_until_the_millisecond_in_which_it_expires(plane: Plane) -> None:
    who = operator(plane, lasts_ms=1000)

    await plane.world.sleep(0.999)
    before = await who("GET", "/self")
    await plane.world.sleep(0.001)

    assert before.status_code == 200
    assert code_of(await who("GET", "/self")) == (401, "api-token-expired")


async def test_the_body_of_a_stranger_is_not_read_and_a_too_large_one_of_nobody(
    plane: Plane,
) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b"x" * MAX_BODY

    stranger = await plane.client.post(API + "/fleets", content=body())
    seen = read
    viewer = await operator(plane, Role.VIEWER)("POST", "/fleets", content=body())
    seen_of_viewer = read - seen
    admin = await operator(plane)("POST", "/fleets", content=body())
    seen_of_admin = read - seen_of_viewer - seen

    assert code_of(stranger) == (401, "api-token-unknown")
    assert code_of(viewer) == (403, "not-allowed")
    assert (seen, seen_of_viewer) == (0, 0)
    assert 1 <= seen_of_admin <= 3  # until it was too large, and no further
    assert code_of(admin) == (413, "too-large")


async def test_the_day_of_the_last_use_is_kept_and_written_once_a_day(plane: Plane) -> None:
    who = operator(plane)
    now = now_ms(plane.world)

    await who.get("/self")
    commits = plane.store.database.commits
    for _ in range(5):
        await who.get("/self")

    assert plane.store.database.commits == commits
    assert plane.rows("api_token")[0]["used_at_ms"] == now - now % DAY_MS

    await plane.world.sleep(DAY_MS / 1000)
    await who.get("/self")

    assert plane.store.database.commits == commits + 1
    assert plane.rows("api_token")[0]["used_at_ms"] == now - now % DAY_MS + DAY_MS


async def test_two_usable_tokens_never_have_one_name_and_a_revoked_one_frees_its_name(
    plane: Plane,
) -> None:
    admin = operator(plane)

    first = await admin.does("POST", "/api-tokens", {"name": "ci", "role": "viewer"})
    again = await admin("POST", "/api-tokens", json={"name": "ci", "role": "admin"})
    await admin.does("POST", "/api-tokens/ci/revoke")
    second = await admin.does("POST", "/api-tokens", {"name": "ci", "role": "viewer"})

    assert code_of(again) == (409, "conflict")
    assert (await Operator(plane, second["token"]).get("/self"))["actor"] == "api/ci"
    assert code_of(await Operator(plane, first["token"])("GET", "/self")) == (
        401,
        "api-token-revoked",
    )
    assert code_of(await admin("POST", "/api-tokens/nobody/revoke")) == (404, "not-found")


async def test_a_token_is_at_rest_only_as_its_hash(plane: Plane) -> None:
    made = await operator(plane).does("POST", "/api-tokens", {"name": "ci", "role": "viewer"})

    assert made["token"].startswith("bat_")
    assert len(made["token"]) == 4 + 43  # 256 bits
    assert made["token"].encode() not in plane.at_rest()
    assert made["token"] not in repr(api_tokens.listed) + str(plane.rows("api_token"))


async def test_a_full_disk_keeps_nobody_from_looking(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudly.problems import StoreUnavailable

    who = operator(plane)

    async def full(_work: object) -> None:
        raise StoreUnavailable("nothing was written: the disk is full")

    monkeypatch.setattr(plane.store, "write", full)

    assert (await who("GET", "/self")).status_code == 200
    assert code_of(await who("POST", "/fleets", json={"name": "lobby"})) == (503, "busy")


async def test_the_api_can_be_switched_off_and_answers_under_any_name(plane: Plane) -> None:
    who = operator(plane)
    elsewhere = await who("GET", "/self", headers={"host": "cloudly.example"})
    plane.end()
    off = Plane.begin(
        plane.directory, world=plane.world, database_url=plane.database_url, api=False
    )

    async with AsyncClient(transport=ASGITransport(app=off.app), base_url="http://x") as client:
        gone = await client.get(API + "/self", headers=bearer(who.token))
    off.store.close()

    assert elsewhere.status_code == 200
    assert code_of(gone) == (404, "not-found")
    plane.store = off.store
