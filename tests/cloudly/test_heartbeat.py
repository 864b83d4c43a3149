"""Heartbeat: report in, desired state out; nothing is written when nothing changed."""

from __future__ import annotations

import json

import pytest

from cloudly.store.presence import PRESENCE_EVERY_S
from interfaces.desired import DesiredState
from interfaces.world import now_ms
from journal.chain import genesis
from tests.cloudly.given import HOUR_MS, NODE, UUID, Plane, bearer, code_of, report

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


async def test_a_node_without_a_release_has_generation_zero(plane: Plane) -> None:
    device = await plane.device().enroll()

    answer = (await device.beat()).json()

    assert answer["desired"] == {"generation": 0, "app": None}
    assert answer["incarnation"] == plane.store.incarnation
    assert answer["server_time_ms"] == now_ms(plane.world)
    assert answer["heartbeat_every_s"] == 60.0


async def test_the_order_of_an_operator_comes_with_the_next_heartbeat(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()

    deployment = plane.release("1.0.0", UUID)
    desired = DesiredState.model_validate((await device.beat()).json()["desired"])

    assert desired.generation == 1
    assert desired.app is not None
    assert desired.app.deployment == deployment
    assert [image.service for image in desired.app.images] == ["main"]


async def test_the_heartbeat_says_what_cloudly_has_of_each_lane(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.tell("enrollment/1", "asking", "enrolled")

    acks = {ack["lane"]: ack for ack in (await device.beat()).json()["acks"]}

    assert acks["core"]["seq"] == 2
    assert acks["core"]["hash"] == device.hash_at("core", 2).hex()
    assert acks["log"] == {
        "epoch": "epoch-1",
        "lane": "log",
        "seq": 0,
        "hash": genesis("epoch-1", "log").hex(),
    }


async def test_a_node_without_a_journal_is_heard_all_the_same(plane: Plane) -> None:
    device = await plane.device().enroll()

    answer = await device.beat(epoch=None, reported={"degraded": ["the journal is damaged"]})

    assert answer.status_code == 200
    assert answer.json()["acks"] == []
    assert json.loads(plane.node()["reported"])["degraded"] == ["the journal is damaged"]


@pytest.mark.parametrize(
    "headers", [{}, bearer("bnt_" + "x" * 43), {"authorization": "Basic eDp5"}, bearer("x" * 300)]
)
async def test_a_stranger_is_refused_before_his_body_is_looked_at(
    plane: Plane, headers: dict[str, str]
) -> None:
    answer = await plane.client.post(NODE + "heartbeat", content=b"not json", headers=headers)

    assert code_of(answer) == (401, "node-unknown")


async def test_a_revoked_node_is_told_so(plane: Plane) -> None:
    device = await plane.device().enroll()
    plane.revoke_node(UUID)

    assert code_of(await device.beat()) == (401, "node-revoked")
    assert code_of(await device.ship()) == (401, "node-revoked")


async def test_a_node_cannot_speak_for_another(plane: Plane) -> None:
    device = await plane.device().enroll()
    await plane.device("another").enroll()

    answer = await device.beat(node_id="another")

    assert code_of(answer) == (403, "node-mismatch")
    assert plane.rows("node_live") == []


async def test_a_heartbeat_that_changes_nothing_writes_nothing(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()
    commits = plane.store.database.commits

    for uptime in range(5):
        await plane.world.sleep(1)
        await device.beat(reported={"uptime_s": float(uptime), "temperature_c": 40.0 + uptime})

    assert plane.store.database.commits == commits


async def test_a_change_is_written_at_once(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()

    await device.beat(reported={"release": "c1"})

    assert json.loads(plane.rows("node_status")[0]["reported"])["release"] == "c1"


async def test_presence_reaches_the_database_after_a_while(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()
    await plane.world.sleep(PRESENCE_EVERY_S)

    await device.beat(reported={"uptime_s": 99.0})

    assert plane.rows("node_live")[0]["last_seen_at_ms"] == now_ms(plane.world)
    assert json.loads(plane.rows("node_status")[0]["reported"])["uptime_s"] == 99.0


async def test_presence_survives_an_orderly_stop(plane: Plane) -> None:
    device = await plane.device().enroll()
    await device.beat()
    await plane.world.sleep(5)
    await device.beat()
    seen = now_ms(plane.world)

    later = plane.again()

    assert later.rows("node_live")[0]["last_seen_at_ms"] == seen
    later.end()


async def test_a_report_with_a_field_from_the_future_is_taken(plane: Plane) -> None:
    device = await plane.device().enroll()

    answer = await device.beat(reported={"tides": {"high": True}}, mood="fine")

    assert answer.status_code == 200


async def test_a_token_of_a_lost_generation_is_unknown_even_in_the_middle_of_a_heartbeat(
    plane: Plane,
) -> None:
    old = await plane.device().enroll()
    new = plane.device(epoch="epoch-2")
    token = plane.join_token(lasts_ms=HOUR_MS)
    before = plane.store.authenticate

    async def overtaken(token_hash: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - the seam of this story
        caller = await before(token_hash)
        from cloudly.store.joining import Ask, enroll

        ask = Ask(token, UUID, new.secret, "epoch-2", "1", "", "", now_ms(plane.world), "n", "d")
        plane.store.write_now(lambda db: enroll(db, ask))
        return caller

    plane.store.authenticate = overtaken  # type: ignore[method-assign]
    answer = await old.beat(reported=report())

    assert code_of(answer) == (401, "node-unknown")
