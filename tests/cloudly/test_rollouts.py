"""A rollout over real heartbeats and journals: from its draft to its end, halted by what nodes' journals prove."""

from __future__ import annotations

import pytest

from cloudly.problems import BadOrder
from cloudly.rollouts import orders
from cloudly.rollouts.evidence import failures_to_halt
from cloudly.rollouts.phases import Phase
from tests.cloudly.given import Plane, commit_of
from tests.cloudly.rolling import ALL, Rolling, canary_first, halting, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


async def test_a_rollout_lives_from_draft_to_completed(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 3, canary_first())

    told = await rolling.all_beat()
    [canary] = rolling.has_it()
    assert [app and app["version"] for app in told] == ["2.0.0", "1.0.0", "1.0.0"]
    await rolling.tick()
    await rolling.succeeds(canary)
    await rolling.tick()
    assert rolling.believed.state == "soaking"
    await rolling.wait(61)
    assert rolling.believed.present.name == "all"

    await rolling.all_beat()
    for device in rolling.devices[1:]:
        await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)
    await rolling.wait(61)

    assert rolling.believed.state == "completed"
    assert rolling.believed.counts.succeeded == 3
    assert [plane.node(device.node_id)["last_good"] for device in rolling.devices] == ["2.0.0"] * 3
    assert {row["counted"] for row in plane.rows("rollout_grant")} == {"succeeded"}
    assert rolling.kinds == [
        "created", "started", "phase-opened", "outcomes-counted", "phase-filled", "outcomes-counted",
        "settled", "soak-passed", "phase-opened", "outcomes-counted", "phase-filled", "settled",
        "soak-passed", "completed",
    ]  # fmt: skip


async def test_the_very_answer_of_the_check_in_carries_the_order(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    before = plane.node(device.node_id)["generation"]

    desired = (await device.beat()).json()["desired"]

    assert desired["generation"] == before + 1
    assert desired["app"]["release"] == commit_of("2.0.0")
    deployment = plane.deployment(desired["app"]["deployment"])
    assert (deployment["rollout"], deployment["actor"]) == (rolling.number, "rollout/1")
    assert rolling.grant(device)["deployment"] == desired["app"]["deployment"]


async def test_a_draft_a_paused_and_a_halted_rollout_let_nobody_in(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1)
    rolling.create(plan())
    await rolling.tick()
    told = [await rolling.beat(rolling.devices[0])]

    rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    rolling.order(lambda rollout, _: orders.pause(rollout, by="anna", reason="wait"))
    await rolling.tick()
    told.append(await rolling.beat(rolling.devices[0]))
    rolling.order(lambda rollout, _: orders.halt(rollout, by="anna", reason="no"))
    await rolling.tick()
    told.append(await rolling.beat(rolling.devices[0]))

    assert [app and app["version"] for app in told] == ["1.0.0"] * 3
    rolling.order(lambda rollout, _: orders.resume(rollout, by="anna", reason="go"))
    await rolling.tick()
    app = await rolling.beat(rolling.devices[0])
    assert app is not None
    assert app["version"] == "2.0.0"


async def test_it_is_halted_by_evidence_within_the_predicted_number_of_failures(
    plane: Plane,
) -> None:
    said = plan(halt=halting(base_rate=0.02, min_failures=2), concurrency=6)
    rolling = await Rolling.begin(plane, 12, said)
    predicted = failures_to_halt(0, said.halt, in_flight=6)

    failed = 0
    for _ in range(12):
        await rolling.all_beat()
        await rolling.tick()
        if rolling.believed.state != "admitting":
            break
        broken = next(one for one in rolling.has_it() if rolling.grant(one)["outcome"] is None)
        await rolling.fails(broken)
        failed += 1
        await rolling.tick()

    assert rolling.believed.state == "halted"
    assert failed <= predicted
    assert rolling.believed.counts.rolled_back == failed
    halted = rolling.facts[-1].values
    assert (halted["why"], halted["by"]) == ("evidence", "cloudly")
    assert f"{failed} of" in halted["reason"]


async def test_a_check_in_sees_the_evidence_before_the_leading_process_does(plane: Plane) -> None:
    rolling = await Rolling.begin(
        plane, 4, plan(halt=halting(min_failures=1, most_failures=1), concurrency=1)
    )
    first = rolling.devices[0]
    await rolling.beat(first)
    await rolling.tick()
    await rolling.fails(first)

    told = await rolling.all_beat()

    assert rolling.believed.state == "admitting"
    assert [app and app["version"] for app in told] == ["1.0.0"] * 4
    await rolling.tick()
    assert rolling.believed.state == "halted"


async def test_a_node_that_says_the_new_version_without_a_journal_of_success_stays_in_flight(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    [device] = rolling.devices
    app = await rolling.beat(device)
    assert app is not None

    for _ in range(3):
        update = {"stream": "app-update/2", "deployment": app["deployment"], "release": app["release"],
                  "version": "2.0.0", "state": "succeeded"}  # fmt: skip
        await device.beat(
            reported={
                "supervisor": {"available": True}, "boot_id": "boot", "uptime_s": 9.0,
                "release": app["release"], "update": update, "observed_generation": 2,
                "journal": device.heads(),
            }
        )  # fmt: skip
        await rolling.wait(2, every_s=1)

    assert rolling.believed.counts.in_flight == 1
    assert rolling.believed.counts.succeeded == 0
    await rolling.succeeds(device)
    await rolling.tick()
    assert rolling.believed.counts.succeeded == 1


async def test_a_result_is_booked_to_the_rollout_whose_deployment_it_names(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    first, second = rolling.devices
    await rolling.all_beat()
    other = Rolling(plane, rolling.devices)
    other.create(plan(), version="3.0.0")
    other.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await rolling.tick()
    await rolling.succeeds(first)  # and takes 3.0.0 with its next check-in
    await rolling.tick()
    app = await other.beat(first)
    assert app is not None
    assert app["version"] == "3.0.0"

    # a report that names the older rollout's deployment, a foreign node's, and none at all
    batch = len(first.journals["core"]) + 1
    theirs = rolling.grant(second)["deployment"]
    for number, deployment in enumerate((rolling.grant(first)["deployment"], theirs, "0" * 32)):
        first.fact(f"app-update/{50 + number}", "new", "failed", deployment=deployment, reason="x")
    await first.ship(first.batch(batch))
    await rolling.tick()

    assert rolling.grant(first)["outcome"] == "succeeded"
    assert rolling.grant(second)["outcome"] is None
    assert other.grant(first)["outcome"] is None
    assert other.believed.counts.bad == rolling.believed.counts.bad == 0


async def test_a_node_below_its_place_waits_for_its_phase(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 8, plan(Phase(name="half", share_bp=5000, soak_s=60), ALL))
    early = [one for one in rolling.devices if rolling.phase_of(one) == 0]
    assert 0 < len(early) < 8

    await rolling.all_beat()

    assert rolling.has_it() == early


async def test_concurrency_is_never_exceeded(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 5, plan(concurrency=2))

    await rolling.all_beat()
    assert len(rolling.has_it()) == 2
    await rolling.succeeds(rolling.has_it()[0])
    await rolling.tick()
    await rolling.all_beat()

    assert len(rolling.has_it()) == 3


async def test_a_rollout_is_rolled_back_to_what_each_node_ran_well_before(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 3, plan())
    await rolling.all_beat()
    done, under_way, _ = rolling.devices
    await rolling.succeeds(done)
    await rolling.tick()

    rolling.order(lambda rollout, _: orders.roll_back(rollout, by="anna", reason="it smells"))
    await rolling.tick()
    told = await rolling.all_beat()

    assert [app and app["version"] for app in told] == ["1.0.0"] * 3
    assert rolling.believed.state == "rolling-back"
    assert rolling.grant(under_way)["outcome"] == "superseded"
    for device in rolling.devices:
        await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)
    assert (rolling.believed.state, rolling.believed.left) == ("rolled-back", 0)
    assert {plane.node(device.node_id)["last_good"] for device in rolling.devices} == {"1.0.0"}


async def test_an_order_that_the_state_does_not_allow_is_refused_and_writes_nothing(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 0)
    rolling.create(plan())

    with pytest.raises(BadOrder, match="it is draft; now one may"):
        rolling.order(lambda rollout, _: orders.pause(rollout, by="anna", reason="x"))
    with pytest.raises(BadOrder, match="no rollout 99"):
        rolling.order(lambda rollout, _: orders.pause(rollout, by="anna", reason="x"), number=99)

    assert rolling.kinds == ["created"]


async def test_a_banned_release_is_not_created_and_one_banned_later_lets_nobody_in(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    ban = (commit_of("2.0.0"), "anna", "CVE", 5)
    plane.store.write_now(lambda db: db.execute("INSERT INTO ban VALUES(?,?,?,?)", ban).rowcount)
    await plane.world.sleep(2)

    app = await rolling.beat(rolling.devices[0])

    assert app is not None
    assert app["version"] == "1.0.0"
    with pytest.raises(BadOrder, match="CVE"):
        rolling.create(plan())
    assert len(plane.rows("rollout")) == 1
