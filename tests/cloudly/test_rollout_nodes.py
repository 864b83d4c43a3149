"""What becomes of a rollout when nodes join, go dark, are flashed, restored, moved, retired, or speak too late."""

from __future__ import annotations

from typing import Any

import pytest

from cloudly.rollouts import orders
from cloudly.rollouts.phases import Phase
from cloudly.store import fleets
from cloudly.store.rollouts.observing import SLACK_MS
from interfaces.world import new_id, new_secret
from tests.cloudly.given import Device, Plane, report
from tests.cloudly.rolling import ALL, Rolling, canary_first, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

HOUR_S = 3600


def change(plane: Plane, device: Device, column: str) -> None:
    plane.store.write_now(
        lambda db: (
            db.execute(
                f"UPDATE node SET {column}=5 WHERE node_id=?",  # noqa: S608 - a test's own
                (device.node_id,),
            ).rowcount
        )
    )


def pin(plane: Plane, scope: str, number: int, until_ms: int | None) -> None:
    plane.store.write_now(
        lambda db: (
            db.execute(
                "INSERT INTO pin(scope, scope_id, release, actor, reason, at_ms, until_ms)"
                " VALUES(?,?,NULL,'anna','demo',5,?)",
                (scope, number, until_ms),
            ).rowcount
        )
    )


def move(rolling: Rolling, device: Device, name: str) -> None:
    plane = rolling.plane
    number = plane.node(device.node_id)["id"]

    def work(db: Any) -> fleets.Moved:
        fleets.create(db, name, rolling.now_ms)
        return fleets.move(
            db,
            number,
            fleets.find(db, name),
            new_id=lambda: new_id(plane.world),
            now_ms=rolling.now_ms,
        )

    plane.store.write_now(work)


async def flashed_again(plane: Plane, device: Device) -> Device:
    again = plane.device(device.node_id, epoch="epoch-2", hostname=device.hostname)
    again.secret = new_secret(plane.world)
    answer = await again.ask(plane.join_token())
    assert answer.status_code == 201, answer.text
    return again


async def test_a_node_that_joins_in_mid_rollout_takes_part_by_its_place(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    await rolling.all_beat()

    late = await rolling.joins()
    await rolling.beat(late)
    for device in rolling.devices:
        await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)

    assert rolling.has_it() == rolling.devices
    assert rolling.believed.counts.succeeded == 3


async def test_a_node_that_joins_while_its_first_release_is_under_way_is_waited_for(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    await rolling.beat(rolling.devices[0])
    late = await rolling.joins(good=False)
    first = plane.release("1.0.0", late.node_id)

    await rolling.beat(late)
    await rolling.wait(3, every_s=1)
    waiting = (rolling.has_it(), rolling.believed.state)
    await late.tell("app-update/1", "offered", "succeeded", deployment=first)
    await rolling.beat(late)

    assert waiting == ([rolling.devices[0]], "admitting")
    assert rolling.has_it() == rolling.devices


async def test_a_node_that_never_comes_holds_up_no_phase(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan(dark_after_s=600))
    there, away = rolling.devices
    await rolling.wait(700)

    await rolling.beat(there)
    await rolling.succeeds(there)
    await rolling.wait(3, every_s=1)

    assert rolling.has_it() == [there]
    assert rolling.believed.state == "soaking"
    assert away not in rolling.has_it()


async def test_a_node_that_goes_dark_after_its_order_is_a_failure(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan(dark_after_s=600, node_deadline_s=7200))
    dark, slow = rolling.devices
    await rolling.all_beat()

    for _ in range(4):
        await rolling.wait(200)
        await slow.beat(reported={"update": None, "temperature_c": 20.0})
        await plane.store.save_presence_if_due()
    await rolling.wait(1)

    assert rolling.grant(dark)["outcome"] == "dark"
    assert "not heard of" in rolling.grant(dark)["reason"]
    assert rolling.grant(slow)["outcome"] is None
    assert rolling.believed.counts.dark == 1


async def test_a_node_that_speaks_and_never_ends_is_overdue(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan(dark_after_s=600, node_deadline_s=1000))
    [device] = rolling.devices
    await rolling.beat(device)

    for _ in range(11):
        await rolling.wait(100)
        await device.beat(reported={"boot_id": f"{rolling.now_ms}"})
    await rolling.wait(1)

    assert rolling.grant(device)["outcome"] == "overdue"
    assert rolling.believed.counts.overdue == 1


async def test_a_node_that_succeeded_and_falls_silent_in_the_soak_has_relapsed(
    plane: Plane,
) -> None:
    soak = Phase(name="all", share_bp=10_000, soak_s=HOUR_S)
    rolling = await Rolling.begin(plane, 2, plan(soak, dark_after_s=600))
    silent, speaks = rolling.devices
    await rolling.all_beat()
    for device in rolling.devices:
        await rolling.succeeds(device)
    await rolling.wait(5, every_s=1)
    assert rolling.believed.state == "soaking"

    for _ in range(4):
        await rolling.wait(200)
        await speaks.beat(reported={"boot_id": f"{rolling.now_ms}"})
    await rolling.wait(SLACK_MS / 1000)

    assert rolling.grant(silent)["outcome"] == "relapsed"
    assert rolling.grant(speaks)["outcome"] == "succeeded"
    counts = rolling.believed.counts
    assert (counts.relapsed, counts.succeeded) == (1, 1)


async def test_a_node_flashed_again_in_flight_keeps_its_grant_under_a_new_deployment(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.ends(device, "offered", "applying")
    before = rolling.grant(device)

    again = rolling.devices[0] = await flashed_again(plane, device)
    app = await rolling.beat(again)
    after = rolling.grant(again)

    assert app is not None
    assert app["deployment"] == after["deployment"] != before["deployment"]
    assert (after["outcome"], after["at_ms"]) == (None, before["at_ms"])
    assert plane.deployment(after["deployment"])["rollout"] == rolling.number
    await rolling.succeeds(again)
    await rolling.tick()
    assert rolling.believed.counts.granted == rolling.believed.counts.succeeded == 1


async def test_a_node_flashed_again_after_its_success_that_fails_then_has_relapsed(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.succeeds(device)
    await rolling.tick()
    assert rolling.believed.counts.succeeded == 1

    again = rolling.devices[0] = await flashed_again(plane, device)
    await rolling.fails(again, "no disk")
    await rolling.tick()

    assert rolling.grant(again)["outcome"] == "relapsed"
    counts = rolling.believed.counts
    assert (counts.granted, counts.succeeded, counts.relapsed) == (1, 0, 1)


async def test_success_and_relapse_between_two_ticks_is_one_failure(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.succeeds(device)

    again = rolling.devices[0] = await flashed_again(plane, device)
    await rolling.fails(again)
    await rolling.tick()

    counts = rolling.believed.counts
    assert (counts.granted, counts.succeeded, counts.relapsed, counts.in_flight) == (1, 0, 1, 0)


async def test_a_node_that_saw_a_later_generation_keeps_its_grant(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    before = await rolling.beat(device)
    assert before is not None

    answer = await device.beat(reported=report(observed_generation=40, journal=device.heads()))
    app = answer.json()["desired"]["app"]

    assert answer.json()["desired"]["generation"] == 41
    assert app["version"] == "2.0.0"
    assert rolling.grant(device)["deployment"] == app["deployment"] != before["deployment"]
    assert rolling.grant(device)["outcome"] is None


async def test_a_rollout_orders_no_release_over_the_call_for_an_operator(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1)
    [device] = rolling.devices
    answer = await device.beat(reported=report(observed_generation=40, journal=device.heads()))
    restored = answer.json()["desired"]["app"]
    await rolling.ends(device, "offered", "succeeded")
    rolling.create(plan())
    rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await rolling.tick()

    app = await rolling.beat(device)

    assert restored["version"] == "1.0.0"
    assert app is not None
    assert app["version"] == "2.0.0"
    assert "restored" in plane.node(device.node_id)["needs_operator"]


@pytest.mark.parametrize("column", ["revoked_at_ms", "quarantined_at_ms", "retired_at_ms"])
async def test_a_node_revoked_quarantined_or_retired_in_flight_is_superseded(
    plane: Plane, column: str
) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    gone, stays = rolling.devices
    await rolling.all_beat()

    change(plane, gone, column)
    await rolling.tick()
    await rolling.succeeds(stays)
    await rolling.wait(3, every_s=1)

    assert rolling.grant(gone)["outcome"] == "superseded"
    counts = rolling.believed.counts
    assert (counts.superseded, counts.succeeded, counts.bad) == (1, 1, 0)
    assert rolling.believed.state == "soaking"


@pytest.mark.parametrize("scope", ["node", "fleet"])
async def test_a_node_pinned_in_flight_is_superseded(plane: Plane, scope: str) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.beat(device)

    pin(plane, scope, plane.node(device.node_id)["id"] if scope == "node" else 1, None)
    await rolling.tick()

    assert rolling.grant(device)["outcome"] == "superseded"
    assert rolling.believed.counts.superseded == 1


@pytest.mark.parametrize("column", ["quarantined_at_ms", "retired_at_ms"])
async def test_a_node_quarantined_or_retired_before_its_turn_gets_nothing_and_holds_up_nobody(
    plane: Plane, column: str
) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    out, stays = rolling.devices
    change(plane, out, column)

    answer = await out.beat()
    await rolling.beat(stays)
    await rolling.succeeds(stays)
    await rolling.wait(3, every_s=1)

    assert answer.status_code == (401 if column == "retired_at_ms" else 200)
    assert rolling.has_it() == [stays]
    assert rolling.believed.state == "soaking"


async def test_a_node_moved_to_another_fleet_in_flight_is_superseded(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.beat(device)

    move(rolling, device, "elsewhere")
    await rolling.succeeds(device)
    await rolling.tick()

    assert rolling.grant(device)["outcome"] == "superseded"
    assert "elsewhere" in rolling.grant(device)["reason"]
    assert rolling.believed.counts.superseded == 1
    assert [fact.kind for fact in rolling.facts if fact.is_note] == ["late-outcome"]


async def test_a_node_moved_into_the_selected_fleet_takes_part(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan(selector="fleet=lab"))
    first, second = rolling.devices
    await rolling.all_beat()
    assert rolling.has_it() == []

    move(rolling, first, "lab")
    await rolling.all_beat()

    assert rolling.has_it() == [first]
    assert second not in rolling.has_it()


async def test_a_node_given_something_else_by_an_operator_is_superseded_and_keeps_that(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    await rolling.beat(device)

    plane.release("1.5.0", device.node_id)
    await rolling.succeeds(device)
    app = await rolling.beat(device)
    await rolling.tick()

    assert app is not None
    assert app["version"] == "1.5.0"
    assert rolling.grant(device)["outcome"] == "superseded"
    assert rolling.believed.counts.superseded == 1


@pytest.mark.parametrize("until_ms", [None, 0])
async def test_a_pinned_node_is_passed_by_until_its_pin_has_ended(
    plane: Plane, until_ms: int | None
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    pin(plane, "node", plane.node(device.node_id)["id"], until_ms)

    await rolling.beat(device)

    assert rolling.has_it() == ([] if until_ms is None else [device])


async def test_an_older_rollout_does_not_take_back_what_a_younger_one_gave(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan(selector="label.early"))
    [device] = rolling.devices
    younger = Rolling(plane, rolling.devices)
    younger.create(plan(), version="3.0.0")
    younger.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await rolling.tick()
    await younger.succeeds(device)
    await rolling.tick()

    plane.store.write_now(
        lambda db: db.execute("""UPDATE node SET labels='{"early": "1"}'""").rowcount
    )
    app = await rolling.beat(device)

    assert app is not None
    assert app["version"] == "3.0.0"
    assert rolling.has_it() == []


async def test_what_is_told_after_overdue_is_a_note_and_changes_nothing(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan(dark_after_s=600, node_deadline_s=600))
    [device] = rolling.devices
    await rolling.beat(device)
    await rolling.wait(700)
    counted = rolling.believed.counts

    await rolling.succeeds(device)
    await rolling.tick()
    await rolling.tick()

    assert rolling.believed.counts == counted
    assert rolling.grant(device)["outcome"] in {"dark", "overdue"}
    assert plane.node(device.node_id)["last_good"] == "2.0.0"
    notes = [fact.values for fact in rolling.facts if fact.is_note]
    assert notes == [
        {"node": device.node_id, "outcome": "succeeded", "counted_as": rolling.grant(device)["outcome"]}
    ]  # fmt: skip


async def test_an_outcome_after_the_end_is_a_note_and_every_device_is_accounted_for(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    first, second = rolling.devices
    await rolling.all_beat()
    await rolling.tick()
    rolling.order(lambda rollout, _: orders.abort(rollout, by="anna", reason="enough"))
    await rolling.tick()
    ended = rolling.believed

    await rolling.succeeds(first)
    await rolling.fails(second)
    for _ in range(3):
        await rolling.tick()

    assert rolling.believed.counts == ended.counts
    assert rolling.believed.state == "aborted"
    assert [rolling.grant(one)["outcome"] for one in rolling.devices] == [
        "succeeded",
        "rolled_back",
    ]
    notes = [fact.values for fact in rolling.facts if fact.is_note]
    assert [(note["node"], note["outcome"]) for note in notes] == [
        (first.node_id, "succeeded"),
        (second.node_id, "rolled_back"),
    ]


async def test_a_node_that_must_never_run_it_again_is_not_asked_by_another_rollout(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, canary_first())
    await rolling.all_beat()
    [canary] = rolling.has_it()
    await rolling.fails(canary)
    rolling.order(lambda rollout, _: orders.abort(rollout, by="anna", reason="again"))
    rolling.create(plan(ALL))
    rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await rolling.tick()

    await rolling.all_beat()

    assert rolling.has_it() == [one for one in rolling.devices if one is not canary]


async def test_a_node_whose_journal_is_closed_is_given_nothing(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())

    await rolling.devices[0].beat(epoch=None)

    assert rolling.has_it() == []
    await rolling.beat(rolling.devices[0])
    assert rolling.has_it() == rolling.devices


async def test_a_release_that_its_channel_does_not_offer_is_not_given_and_holds_up_nobody(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    held, free = rolling.devices
    move(rolling, held, "shop")

    def follow(db: Any) -> int:
        db.execute(
            "INSERT INTO channel(name, created_at_ms, approvals, second_person) VALUES('stable',1,0,0)"
        )
        return int(db.execute("UPDATE fleet SET channel=1 WHERE name='shop'").rowcount)

    plane.store.write_now(follow)
    await rolling.all_beat()
    await rolling.succeeds(free)
    await rolling.wait(3, every_s=1)

    assert rolling.has_it() == [free]
    assert rolling.believed.state == "soaking"
