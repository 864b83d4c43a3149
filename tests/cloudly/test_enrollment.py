"""Enrollment: a join token becomes a node and a node token, exactly once, and survives a lost answer."""

from __future__ import annotations

from datetime import timedelta

import anyio
import httpx
import pytest

from cloudly.tokens import fingerprint
from interfaces.world import new_secret
from tests.cloudly.given import HOUR_MS, NODE, UUID, Plane, bearer, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


async def test_a_join_token_becomes_a_node_and_a_node_token(plane: Plane) -> None:
    device = plane.device()

    answer = await device.ask(plane.join_token())

    assert answer.status_code == 201
    assert answer.json()["node_id"] == UUID
    assert answer.json()["token_generation"] == 1
    assert (await device.beat()).status_code == 200


async def test_the_same_ask_gets_the_same_token_because_its_answer_may_have_been_lost(
    plane: Plane,
) -> None:
    device, token = plane.device(), plane.join_token()
    first = await device.ask(token)

    again = [await device.ask(token) for _ in range(3)]

    assert [one.status_code for one in again] == [201, 201, 201]
    assert {one.json()["node_token"] for one in again} == {first.json()["node_token"]}
    assert {one.json()["token_generation"] for one in again} == {1}
    assert plane.rows("join_token")[0]["uses_left"] == 0


async def test_the_first_authenticated_heartbeat_closes_the_enrollment(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token()
    await device.ask(token)
    await device.beat()

    again = await device.ask(token)

    assert code_of(again) == (409, "enrollment-closed")
    assert (await device.beat()).status_code == 200


async def test_a_refused_heartbeat_does_not_close_the_enrollment(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token()
    await device.ask(token)
    await device.beat(node_id="another")
    await plane.client.post(NODE + "heartbeat", content=b"{", headers=bearer(device.token))

    again = await device.ask(token)

    assert again.status_code == 201


async def test_an_enrollment_survives_a_restart_of_cloudly(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token()
    first = (await device.ask(token)).json()

    device.plane = later = plane.again()
    again = (await device.ask(token)).json()

    assert again == first
    later.end()


async def test_another_secret_is_refused_even_for_the_same_node(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token(uses=5)
    await device.ask(token)

    thief = await plane.device().ask(token)

    assert code_of(thief) == (403, "token-used-up")
    assert plane.rows("join_token")[0]["uses_left"] == 4


async def test_a_used_up_token_admits_no_other_node(plane: Plane) -> None:
    token = plane.join_token()
    await plane.device().ask(token)

    other = await plane.device("another").ask(token)

    assert code_of(other) == (403, "token-used-up")
    assert len(plane.rows("node")) == 1


async def test_a_token_for_three_admits_three(plane: Plane) -> None:
    token = plane.join_token(uses=3)

    answers = [await plane.device(f"node-{n}").ask(token) for n in range(4)]

    assert [one.status_code for one in answers] == [201, 201, 201, 403]


async def test_of_a_hundred_at_once_with_a_one_time_token_exactly_one_gets_in(plane: Plane) -> None:
    token, answers = plane.join_token(), []

    async def rush(number: int) -> None:
        answers.append(await plane.device(f"node-{number}").ask(token))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(rush, number)

    assert sorted(one.status_code for one in answers) == [201] + [403] * 99
    assert len(plane.rows("node")) == 1
    assert len(plane.rows("credential")) == 1


async def test_a_hundred_retries_of_one_device_at_once_are_one_enrollment(plane: Plane) -> None:
    token, answers, device = plane.join_token(), [], plane.device()

    async def ask() -> None:
        answers.append(await device.ask(token))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)

    assert len({one.json()["node_token"] for one in answers}) == 1


async def test_an_expired_token_is_refused(plane: Plane) -> None:
    token = plane.join_token(lasts_ms=HOUR_MS)
    plane.world.jump(timedelta(hours=1))

    answer = await plane.device().ask(token)

    assert code_of(answer) == (403, "token-expired")
    assert plane.rows("node") == []


async def test_expiry_does_not_strand_a_device_that_was_admitted_in_time(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token(lasts_ms=HOUR_MS)
    first = await device.ask(token)
    plane.world.jump(timedelta(hours=2))

    again = await device.ask(token)

    assert again.json()["node_token"] == first.json()["node_token"]


async def test_a_revoked_token_is_refused_to_everyone(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token(uses=2)
    await device.ask(token)
    plane.revoke_token()

    assert code_of(await device.ask(token)) == (403, "token-revoked")
    assert code_of(await plane.device("another").ask(token)) == (403, "token-revoked")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer bjt_nobody-knows-this-token-at-all-00000000000000"},
        {"authorization": "Basic Zm9vOmJhcg=="},
        {"authorization": "Bearer " + "x" * 5000},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_what_is_no_known_join_token_is_refused_in_one_way(
    plane: Plane, headers: dict[str, str]
) -> None:
    device = plane.device()
    body = {
        "node_id": device.node_id,
        "enrollment_secret": device.secret,
        "epoch": "e",
        "agent_version": "1",
    }

    answer = await plane.client.post(NODE + "register", json=body, headers=headers)

    assert code_of(answer) == (401, "token-unknown")


async def test_a_reflash_with_a_fresh_token_keeps_the_node_and_its_history(plane: Plane) -> None:
    before = await plane.device().enroll()
    await before.beat()
    await before.tell("enrollment/1", "enrolled")
    number = plane.node()["id"]

    after = plane.device(epoch="epoch-2")
    answer = await after.ask(plane.join_token())

    assert answer.json()["token_generation"] == 2
    assert plane.node()["id"] == number
    assert len(plane.rows("transition")) == 1
    assert [row["epoch"] for row in plane.rows("epoch")] == ["epoch-1", "epoch-2"]
    assert code_of(await before.beat()) == (409, "fenced")
    assert (await after.beat()).status_code == 200


async def test_after_a_reflash_the_old_epoch_is_fenced(plane: Plane) -> None:
    before = await plane.device().enroll()
    before.fact("enrollment/1", "asking", "enrolled")
    after = plane.device(epoch="epoch-2")
    await after.ask(plane.join_token())

    after.epoch, after.journals = "epoch-1", before.journals
    answer = await after.ship()

    assert code_of(answer) == (409, "fenced")
    assert plane.rows("journal_chunk") == []


async def test_an_old_epoch_cannot_enroll_again_and_uses_nothing_up(plane: Plane) -> None:
    await plane.device().enroll()
    await plane.device(epoch="epoch-2").ask(plane.join_token())

    answer = await plane.device(epoch="epoch-1").ask(plane.join_token())

    assert code_of(answer) == (409, "fenced")
    assert plane.rows("join_token")[2]["uses_left"] == 1


async def test_a_reflashed_node_is_ordered_its_release_again_as_a_new_deployment(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.tell("app-update/1", "offered", "succeeded", deployment=first)

    after = plane.device(epoch="epoch-2")
    await after.ask(plane.join_token())
    wanted = (await after.beat()).json()["desired"]

    assert wanted["generation"] == 2
    assert wanted["app"]["version"] == "1.0.0"
    assert wanted["app"]["deployment"] != first


async def test_a_fresh_token_brings_a_revoked_node_back(plane: Plane) -> None:
    device = await plane.device().enroll()
    plane.revoke_node(UUID)
    assert code_of(await device.beat()) == (401, "node-revoked")

    device.secret = new_secret(plane.world)
    await device.ask(plane.join_token())

    assert (await device.beat()).status_code == 200


async def test_no_half_of_a_revoked_node_brings_it_back_with_a_token_it_used_before(
    plane: Plane,
) -> None:
    device, token = plane.device(), plane.join_token(uses=3)
    await device.ask(token)
    plane.revoke_node(UUID)

    again = await device.ask(token)
    other_half = await register_supervisor(plane, token)

    assert code_of(again) == (401, "node-revoked")
    assert code_of(other_half) == (401, "node-revoked")
    assert code_of(await device.beat()) == (401, "node-revoked")
    assert plane.rows("device") == []
    assert plane.rows("join_token")[0]["uses_left"] == 2


async def test_a_revoked_node_is_not_brought_back_by_its_agent_after_its_supervisor(
    plane: Plane,
) -> None:
    token = plane.join_token()
    await register_supervisor(plane, token)
    plane.revoke_node(UUID)

    answer = await plane.device().ask(token)

    assert code_of(answer) == (401, "node-revoked")
    assert plane.node()["revoked_at_ms"] is not None


async def test_a_fresh_token_brings_a_revoked_node_back_with_its_old_secret_too(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    await device.beat()
    plane.revoke_node(UUID)

    answer = await device.ask(plane.join_token())

    assert answer.json()["token_generation"] == 2
    assert (await device.beat()).status_code == 200


async def test_a_late_ask_with_the_same_secret_and_another_token_leaves_the_node_token_alone(
    plane: Plane,
) -> None:
    device, late = plane.device(), plane.join_token()
    first = await device.ask(plane.join_token())

    before_the_first_heartbeat = await device.ask(late)
    await device.beat()
    after = await device.ask(late)

    assert before_the_first_heartbeat.json() == first.json()
    assert code_of(after) == (409, "enrollment-closed")
    assert (await device.beat()).status_code == 200
    assert plane.rows("credential")[0]["generation"] == 1
    assert plane.rows("join_token")[0]["uses_left"] == 1


async def register_supervisor(plane: Plane, token: str) -> httpx.Response:
    body = {"uuid": UUID, "api_key": "k" * 32}
    return await plane.client.post("/device/register", json=body, headers=bearer(token))


async def test_only_hashes_are_at_rest(plane: Plane) -> None:
    device, token = plane.device(), plane.join_token()
    await device.ask(token)
    await device.beat()

    stored = plane.at_rest()

    assert fingerprint(device.token) in stored  # the search itself works
    for secret in (token, device.secret, device.token):
        assert secret.encode() not in stored


async def test_a_node_that_enrolls_later_gets_what_all_nodes_should_run(plane: Plane) -> None:
    plane.release("1.0.0")

    device = await plane.device().enroll()
    wanted = (await device.beat()).json()["desired"]

    assert (wanted["generation"], wanted["app"]["version"]) == (1, "1.0.0")
