"""Where nobody listens nobody is silent: an outage of Cloudly or its database is no failure of a node."""

from __future__ import annotations

import pytest

from cloudly import walking
from cloudly.leading import Leading
from cloudly.rollouts import orders
from cloudly.rollouts.engine import soak_until_ms
from cloudly.rollouts.phases import Phase
from cloudly.store.rollouts import sweeping
from cloudly.store.rollouts.observing import RETURN_MS, SLACK_MS
from tests.cloudly.given import Device, Plane
from tests.cloudly.rolling import ALL, Rolling, halting, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

OUTAGE_S = 3700
SOAKED = Phase(name="all", share_bp=10_000, soak_s=3600)


async def heard(rolling: Rolling, devices: list[Device], seconds: int) -> None:
    """Time passes, the leading process looks, these devices check in."""
    for _ in range(seconds // 50):
        await rolling.wait(50, every_s=25)
        for device in devices:
            await device.beat(reported={"boot_id": f"{rolling.now_ms}"})
        await rolling.plane.store.save_presence_if_due()


def restarts(rolling: Rolling) -> None:
    rolling.leading = Leading(rolling.plane.store, rolling.plane.world)


@pytest.mark.parametrize("is_another_process", [True, False])
async def test_nodes_in_flight_outlive_an_outage_and_succeed(
    plane: Plane, *, is_another_process: bool
) -> None:
    """Of Cloudly, which starts anew; of its database, while Cloudly asks on."""
    rolling = await Rolling.begin(plane, 6, plan())
    await rolling.all_beat()
    await rolling.tick()

    await plane.world.sleep(OUTAGE_S)
    if is_another_process:
        restarts(rolling)
    await rolling.wait(5, every_s=1)
    after = (rolling.believed.state, rolling.believed.counts.dark)
    for device in rolling.devices:
        await rolling.succeeds(device)
    await rolling.wait(5, every_s=1)

    assert after in [("admitting", 0), ("settling", 0)]
    assert rolling.believed.counts.succeeded == 6
    assert rolling.believed.state == "soaking"


async def test_a_node_that_stays_silent_after_the_outage_goes_dark_by_the_time_since(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, plan(dark_after_s=600))
    silent, speaks = rolling.devices
    await rolling.all_beat()
    await plane.world.sleep(OUTAGE_S)
    restarts(rolling)

    await rolling.tick()
    await heard(rolling, [speaks], 550)
    before = rolling.grant(silent)["outcome"]
    await heard(rolling, [speaks], 100)

    assert before is None
    assert rolling.grant(silent)["outcome"] == "dark"
    assert rolling.grant(speaks)["outcome"] is None


async def test_who_succeeded_has_not_relapsed_by_an_outage_in_the_soak_but_by_silence_after_it(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 3, plan(SOAKED.model_copy(update={"soak_s": 7200})))
    for device in rolling.devices:
        await rolling.succeeds(device)
    await rolling.wait(5, every_s=1)
    silent, *others = rolling.devices

    await plane.world.sleep(OUTAGE_S)
    restarts(rolling)
    await heard(rolling, others, 850)
    before = rolling.believed.counts.relapsed
    await heard(rolling, others, 150)

    assert before == 0
    assert rolling.grant(silent)["outcome"] == "relapsed"
    assert [rolling.grant(one)["outcome"] for one in others] == ["succeeded"] * 2


async def test_a_node_is_overdue_only_when_it_had_time_to_tell_after_an_outage(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, plan(dark_after_s=600, node_deadline_s=1000))
    done, slow = rolling.devices
    await rolling.all_beat()
    await plane.world.sleep(OUTAGE_S)
    restarts(rolling)

    await rolling.tick()
    await heard(rolling, rolling.devices, 200)
    before = rolling.grant(slow)["outcome"]
    await rolling.succeeds(done)
    await heard(rolling, rolling.devices, RETURN_MS // 1000 - 150)

    assert before is None
    assert rolling.grant(done)["outcome"] == "succeeded"
    assert rolling.grant(slow)["outcome"] == "overdue"


async def test_a_rollback_does_not_end_by_an_outage(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 2, plan(ALL))
    await rolling.all_beat()
    rolling.order(lambda rollout, _: orders.roll_back(rollout, by="anna", reason="it flickers"))
    await rolling.tick()

    await plane.world.sleep(OUTAGE_S)
    restarts(rolling)
    await rolling.wait(5, every_s=1)

    assert rolling.believed.state == "rolling-back"


@pytest.mark.parametrize("heartbeat_every_s", [60.0, 300.0])
async def test_a_phase_waits_after_an_outage_for_those_that_are_only_late_and_not_for_ever(
    plane: Plane, heartbeat_every_s: float
) -> None:
    """Everybody is silent when Cloudly is back: a sweep in this moment must not find that nobody is left."""
    rolling = await Rolling.begin(plane, 3, plan(dark_after_s=600))
    rolling.leading = Leading(plane.store, plane.world, heartbeat_every_s=heartbeat_every_s)
    first, late, dead = rolling.devices
    await rolling.succeeds(first)
    await rolling.tick()
    await plane.world.sleep(OUTAGE_S)
    await first.beat()

    await rolling.wait(heartbeat_every_s + 90)
    waiting = rolling.believed.state
    ordered = await rolling.beat(late)
    await rolling.succeeds(late)
    await rolling.wait(5, every_s=1)
    still = rolling.believed.state
    await rolling.wait(900)

    assert (waiting, still) == ("admitting", "admitting")
    assert ordered is not None
    assert ordered["version"] == "2.0.0"
    assert rolling.believed.state in {"soaking", "completed"}
    assert dead not in rolling.has_it()


async def test_canaries_that_die_in_the_soak_of_the_default_times_are_seen_in_it(
    plane: Plane,
) -> None:
    canary = Phase(name="canary", count=3)
    rolling = await Rolling.begin(plane, 10, plan(canary, Phase(name="all", share_bp=10_000)))
    await rolling.all_beat()
    canaries = rolling.has_it()
    for device in canaries:
        await rolling.succeeds(device)
    await rolling.wait(2, every_s=1)
    others = [one for one in rolling.devices if one not in canaries]

    await heard(rolling, others, 900 + SLACK_MS // 1000 + 70)

    assert rolling.believed.counts.relapsed == 3
    assert rolling.believed.state == "halted"


async def test_a_soak_that_is_over_waits_until_everybody_was_looked_at_since(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at all of them takes six ticks; the last of them is dark in the second in which the soak is over."""
    monkeypatch.setattr(sweeping, "SLICE", 1)
    monkeypatch.setattr(walking, "MOST_SLICES", 1)
    five = Phase(name="five", count=5, soak_s=1800)
    rolling = await Rolling.begin(
        plane, 6, plan(five, ALL, halt=halting(min_failures=1, most_failures=1))
    )
    await rolling.all_beat()
    for device in rolling.has_it():
        await rolling.succeeds(device)
    await rolling.wait(8, every_s=1)
    *others, last = rolling.has_it()
    over_ms = soak_until_ms(rolling.believed, rolling.story.plan)

    def left_s(before_s: int) -> int:
        return (over_ms - rolling.now_ms) // 1000 - before_s

    dark_s = rolling.story.plan.dark_after_s + SLACK_MS // 1000
    await heard(rolling, [*others, last], left_s(dark_s))
    await rolling.wait(left_s(dark_s), every_s=10)
    await last.beat(reported={"boot_id": "its last word"})
    await heard(rolling, others, left_s(1))
    await rolling.wait(left_s(-7), every_s=1)

    assert rolling.grant(last)["outcome"] == "relapsed"
    assert rolling.believed.state == "halted"
    assert "soak-passed" not in rolling.kinds
