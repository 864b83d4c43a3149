"""Node tokens follow one another without a gap: both are good from the announcement until the first use of the new."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from cloudly.rotation import DAY_MS, TokenAge, wanted_generation
from cloudly.store import rotation
from cloudly.store.nodes import REPLACED
from interfaces.world import new_secret, now_ms
from tests.cloudly.given import UUID, Device, Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


def drawn(plane: Plane) -> str:
    return "bnt_" + new_secret(plane.world)


def ask(plane: Plane, node_id: str = UUID) -> int:
    node, now = plane.node(node_id)["id"], now_ms(plane.world)
    return plane.store.write_now(lambda db: rotation.ask(db, [node], now_ms=now))


def credential(plane: Plane) -> dict[str, object]:
    return plane.rows("credential")[0]


async def enrolled(plane: Plane) -> Device:
    """A node that has sent its first heartbeat."""
    device = await plane.device().enroll()
    await device.beat()
    return device


async def wanted(device: Device) -> int | None:
    answer = await device.beat()
    assert answer.status_code == 200, answer.text
    generation: int | None = answer.json()["rotate_token"]
    return generation


async def test_nobody_is_asked_for_another_token_unless_somebody_said_so(plane: Plane) -> None:
    device = await enrolled(plane)

    before = await wanted(device)
    asked = [ask(plane), ask(plane)]

    assert before is None
    assert asked == [1, 0]  # asked twice is asked once
    assert [await wanted(device), await wanted(device)] == [2, 2]


async def test_a_token_that_is_older_than_the_setting_is_to_be_replaced(plane: Plane) -> None:
    device = await enrolled(plane)
    asks = DAY_MS * 30

    young = TokenAge(generation=4, since_ms=0, asked_at_ms=None)

    assert wanted_generation(young, now_ms=asks, most_days=30) is None
    assert wanted_generation(young, now_ms=asks + 1, most_days=30) == 5
    assert wanted_generation(young, now_ms=asks * 99, most_days=None) is None
    assert wanted_generation(replace(young, asked_at_ms=0), now_ms=0, most_days=None) == 5
    plane.world.jump(timedelta(days=3650))
    assert await wanted(device) is None  # off by default


async def test_the_setting_makes_cloudly_ask(plane: Plane) -> None:
    device = await enrolled(plane)
    plane.end()
    strict = Plane.begin(
        plane.directory, world=plane.world, database_url=plane.database_url, node_token_days=1.0
    )
    device.plane = strict
    young = await wanted(device)

    strict.world.jump(timedelta(days=1, seconds=1))

    assert (young, await wanted(device)) == (None, 2)
    strict.end()
    plane.store = strict.store


async def test_from_the_announcement_until_the_first_use_of_the_new_one_both_are_good(
    plane: Plane,
) -> None:
    device, following = await enrolled(plane), drawn(plane)
    ask(plane)

    answer = await device.announce(following)

    assert answer.status_code == 200
    assert answer.json()["generation"] == 2
    assert (await device.beat()).status_code == 200
    assert (await device.tell("app-update/1", "offered")).status_code == 200
    assert credential(plane)["generation"] == 1
    device.token = following
    assert await wanted(device) is None
    assert credential(plane)["generation"] == 2
    assert credential(plane)["rotate_asked_at_ms"] is None
    assert credential(plane)["next_hash"] is None


@pytest.mark.parametrize("first", ["beat", "ship", "announce"])
async def test_any_first_use_of_the_new_one_ends_the_old_one(plane: Plane, first: str) -> None:
    device, following = await enrolled(plane), drawn(plane)
    await device.announce(following)
    copy = device.copy()
    device.fact("app-update/1", "new", "offered")

    device.token = following
    uses = {
        "beat": device.beat,
        "ship": device.ship,
        "announce": lambda: device.announce(following),
    }
    answer = await uses[first]()

    assert answer.status_code == 200, answer.text
    assert code_of(await copy.beat()) == (409, "fenced")
    assert (await copy.beat()).json()["detail"] == REPLACED
    assert code_of(await copy.announce(drawn(plane))) == (409, "fenced")
    assert (await device.beat()).status_code == 200
    assert len(plane.rows("former_token")) == 1


async def test_an_announcement_may_be_repeated_and_the_last_one_counts(plane: Plane) -> None:
    device, first, second = await enrolled(plane), drawn(plane), drawn(plane)

    answers = [await device.announce(one) for one in (first, first, second)]

    assert [one.status_code for one in answers] == [200, 200, 200]
    old, device.token = device.token, first
    assert code_of(await device.beat()) == (401, "node-unknown")
    device.token = old
    assert (await device.beat()).status_code == 200  # nobody is locked out by it
    device.token = second
    assert (await device.beat()).status_code == 200


async def test_an_announcement_is_durable_before_its_answer(plane: Plane) -> None:
    device, following = await enrolled(plane), drawn(plane)
    await device.announce(following)

    device.plane = later = plane.again()
    device.token = following

    assert (await device.beat()).status_code == 200
    later.end()
    plane.store = later.store


async def test_a_token_that_was_used_before_never_comes_back(plane: Plane) -> None:
    device, other = await enrolled(plane), await plane.device("another").enroll()
    old, following = device.token, drawn(plane)
    await device.announce(following)
    device.token = following
    await device.beat()

    answers = [await device.announce(one) for one in (old, other.token)]

    assert [code_of(one) for one in answers] == [(422, "malformed")] * 2
    assert (await device.announce(following)).json()["generation"] == 2  # it has it already
    assert (await other.beat()).status_code == 200


async def test_a_token_that_another_node_announced_is_not_taken(plane: Plane) -> None:
    device, other = await enrolled(plane), await plane.device("another").enroll()
    following = drawn(plane)
    await device.announce(following)

    assert code_of(await other.announce(following)) == (422, "malformed")


async def test_nobody_announces_for_another_node_and_no_stranger_for_any(plane: Plane) -> None:
    device, other = await enrolled(plane), await plane.device("another").enroll()
    following = drawn(plane)

    assert code_of(await device.announce(following, node_id="another")) == (403, "node-mismatch")
    assert code_of(await device.announce(following, token_hash="zz")) == (422, "malformed")
    device.token = drawn(plane)
    assert code_of(await device.announce(following)) == (401, "node-unknown")
    plane.revoke_node("another")
    assert code_of(await other.announce(following)) == (401, "node-revoked")
    assert [row["next_hash"] for row in plane.rows("credential")] == [None, None]


async def test_a_node_that_rotates_has_its_token_so_its_enrollment_is_closed(plane: Plane) -> None:
    device, join_token = plane.device(), plane.join_token()
    await device.ask(join_token)
    again = await device.ask(join_token)  # its answer may have been lost

    await device.announce(drawn(plane))

    assert again.json()["node_token"] == device.token
    assert code_of(await device.ask(join_token)) == (409, "enrollment-closed")


async def test_a_node_that_enrolls_anew_has_one_token_and_those_before_are_refused(
    plane: Plane,
) -> None:
    device, following = await enrolled(plane), drawn(plane)
    ask(plane)
    await device.announce(following)
    old = device.token

    reflashed = replace(await plane.device().enroll(), epoch=device.epoch)

    assert credential(plane)["next_hash"] is None
    assert await wanted(reflashed) is None
    assert credential(plane)["generation"] == 2
    for before in (old, following):
        device.token = before
        assert code_of(await device.beat()) == (409, "fenced")


async def test_of_many_first_uses_at_once_one_rotates_and_all_are_answered(plane: Plane) -> None:
    device, following, answers = await enrolled(plane), drawn(plane), []
    await device.announce(following)
    device.token = following

    async def beat() -> None:
        answers.append(await device.beat())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(beat)

    assert {one.status_code for one in answers} == {200}
    assert credential(plane)["generation"] == 2
    assert len(plane.rows("former_token")) == 1


async def test_a_restored_cloudly_knows_the_token_that_it_knew_then(plane: Plane) -> None:
    device, following = await enrolled(plane), drawn(plane)
    before = credential(plane)
    await device.announce(following)
    old, device.token = device.token, following
    await device.beat()

    plane.store.write_now(  # what the restore of a backup of that time leaves
        lambda db: (
            db.execute("DELETE FROM former_token").rowcount
            + db.execute(
                "UPDATE credential SET token_hash=?, next_hash=NULL, generation=1",
                (before["token_hash"],),
            ).rowcount
        )
    )

    assert code_of(await device.beat()) == (401, "node-unknown")  # says: try the one before
    device.token = old
    assert (await device.beat()).status_code == 200


async def test_of_tokens_only_hashes_are_at_rest(plane: Plane) -> None:
    device, following = await enrolled(plane), drawn(plane)
    await device.announce(following)
    announced = plane.at_rest()
    device.token = following
    await device.beat()

    for stored in (announced, plane.at_rest()):
        assert following.encode() not in stored
        assert following[4:20].encode() not in stored
    assert UUID.encode() in announced  # the search works
