"""Two devices with one identity: one is fenced with its next request, and the operator hears of it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cloudly.cli import app as command
from cloudly.store.voices import KEPT_SUPERSEDED
from interfaces.world import now_ms
from tests.cloudly.given import UUID, Device, Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


@pytest.fixture
async def device(plane: Plane) -> Device:
    device = await plane.device(writer="a").enroll()
    for number in range(1, 6):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}")
    assert (await device.beat()).status_code == 200
    return device


def alarm(plane: Plane) -> bool:
    return any(row["alarm"] for row in plane.rows("fence"))


async def test_an_agent_that_starts_again_succeeds_the_one_before(
    plane: Plane, device: Device
) -> None:
    for writer in ("b", "c", "d"):
        device.writer = writer
        assert (await device.beat()).status_code == 200
        assert (await device.ship()).status_code == 200

    assert plane.rows("fence") == []
    assert plane.rows("voice")[0]["writer"] == "d"


async def test_the_one_that_was_superseded_is_fenced_with_its_very_next_request(
    device: Device,
) -> None:
    clone = device.copy("b")

    assert (await clone.beat()).status_code == 200
    beat, batch = await device.beat(), await device.ship()

    assert code_of(beat) == (409, "fenced")
    assert code_of(batch) == (409, "fenced")
    assert (await clone.beat()).status_code == 200
    assert (await clone.ship()).status_code == 200


async def test_what_a_fenced_device_reports_changes_nothing(plane: Plane, device: Device) -> None:
    await device.copy("b").beat(reported={"release": "c-of-b"})

    await device.beat(reported={"release": "c-of-a"})

    assert '"release":"c-of-b"' in plane.node()["reported"]


async def test_a_batch_may_be_the_first_word_of_a_successor(device: Device) -> None:
    clone = device.copy("b")

    assert (await clone.ship()).status_code == 200

    assert code_of(await device.beat()) == (409, "fenced")


async def test_a_packet_that_comes_late_once_raises_no_alarm(plane: Plane, device: Device) -> None:
    late = device.copy("a")
    device.writer = "b"
    await device.beat(reported={"uptime_s": 30.0})

    answer = await late.beat(reported={"uptime_s": 1.0})

    assert code_of(answer) == (409, "fenced")
    assert not alarm(plane)
    assert (await device.beat(reported={"uptime_s": 60.0})).status_code == 200


async def test_a_word_of_a_process_that_ended_unheard_supersedes_nobody(
    plane: Plane, device: Device
) -> None:
    """By its uptime in the same boot, or by its journal, it is from before what Cloudly heard of."""
    await device.beat(reported={"uptime_s": 50.0})
    same_boot = await device.copy("x").beat(reported={"uptime_s": 20.0})
    short = device.copy("y")
    del short.journals["core"][3:]
    behind = await short.beat(reported={"uptime_s": 90.0})

    assert same_boot.status_code == 200
    assert behind.status_code == 200
    heard = {one["lane"]: one for one in behind.json()["heard"]}
    assert heard["core"]["seq"] == 5  # so that a device that lost its tail begins another epoch
    assert plane.rows("voice")[0]["writer"] == "a"
    assert (await device.beat(reported={"uptime_s": 51.0})).status_code == 200
    assert code_of(await short.ship()) == (409, "fork")


async def test_a_device_behind_what_was_heard_of_is_seen_with_what_it_says(
    plane: Plane, device: Device
) -> None:
    """It may be unable to begin another epoch, and then an operator has to know why."""
    await plane.world.sleep(3600)
    device.writer = "b"
    del device.journals["core"][3:]

    answer = await device.beat(reported={"boot_id": "next", "degraded": ["the disk is full"]})

    assert answer.status_code == 200
    assert "the disk is full" in plane.node()["reported"]
    assert plane.rows("node_live")[0]["last_seen_at_ms"] == now_ms(plane.world)


async def test_a_machine_put_back_to_a_snapshot_is_no_late_packet(
    plane: Plane, device: Device
) -> None:
    await device.beat(reported={"uptime_s": 90_000.0})
    device.writer = "b"

    await device.beat(reported={"uptime_s": 20.0})

    assert plane.rows("voice")[0]["writer"] == "b"


async def test_the_second_time_raises_the_alarm(plane: Plane, device: Device) -> None:
    await device.copy("b").beat()

    await device.beat()
    once = alarm(plane)
    await device.beat()

    assert not once
    assert alarm(plane)
    assert plane.rows("fence")[0]["count"] == 2


async def test_two_late_packets_far_apart_are_weather(plane: Plane, device: Device) -> None:
    late = device.copy("a")
    device.writer = "b"
    await device.beat()

    for _ in range(3):
        await plane.world.sleep(86_401)
        assert code_of(await late.beat()) == (409, "fenced")

    assert not alarm(plane)


async def test_a_device_that_lives_after_its_successor_spoke_raises_it_at_once(
    plane: Plane, device: Device
) -> None:
    await plane.world.sleep(10)
    await device.copy("b").beat(reported={"boot_id": "other", "uptime_s": 5.0})
    await plane.world.sleep(50)

    await device.beat(reported={"uptime_s": 61.0})

    assert alarm(plane)


async def test_a_living_writer_does_not_clear_the_alarm(plane: Plane, device: Device) -> None:
    clone = device.copy("b")
    await clone.beat()
    for _ in range(2):
        await device.beat()

    for seconds in range(5):
        await plane.world.sleep(60)
        await clone.beat(reported={"uptime_s": 60.0 * seconds, "release": f"r{seconds}"})

    assert alarm(plane)


async def test_a_fenced_device_that_enrolls_anew_is_the_node_and_ends_the_alarm(
    plane: Plane, device: Device
) -> None:
    clone = device.copy("b")
    await clone.beat()
    for _ in range(2):
        await device.beat()

    device.secret = "s" * 43
    device.begins("epoch-2", why="fenced", **{"from": "epoch-1"})
    await device.enroll()

    assert plane.rows("fence") == []
    assert (await device.beat()).status_code == 200
    assert (await device.ship()).status_code == 200
    told = await clone.beat()
    assert code_of(told) == (409, "fenced")
    assert "enrolled anew" in told.text
    assert plane.rows("fence") == []  # it has lost its token, and disturbs nobody


async def test_an_operator_may_say_that_it_is_settled(plane: Plane, device: Device) -> None:
    await device.copy("b").beat()
    for _ in range(2):
        await device.beat()

    words = ["node", "acknowledge", UUID, "--data-dir", str(plane.directory)]
    first, second = (CliRunner().invoke(command, words).output for _ in range(2))

    assert "acknowledged" in first
    assert "nothing to acknowledge" in second
    assert not alarm(plane)
    assert code_of(await device.beat()) == (409, "fenced")  # it still is


async def test_who_speaks_of_an_older_epoch_is_fenced_with_and_without_a_writer(
    plane: Plane, device: Device
) -> None:
    older = device.copy("a")
    silent = device.copy(None)
    device.begins("epoch-2", why="salvaged", **{"from": "epoch-1"})
    await device.beat()

    assert code_of(await older.beat()) == (409, "fenced")
    assert code_of(await silent.beat()) == (409, "fenced")
    assert code_of(await silent.ship()) == (409, "fenced")
    assert alarm(plane)


async def test_an_epoch_begins_with_whoever_names_it_first(plane: Plane, device: Device) -> None:
    device.begins("epoch-2", why="salvaged", **{"from": "epoch-1"})

    answer = await device.beat()

    assert answer.status_code == 200
    assert [row["epoch"] for row in plane.rows("epoch")] == ["epoch-1", "epoch-2"]


async def test_without_writers_only_the_epoch_counts(plane: Plane) -> None:
    device = await plane.device().enroll()
    other = device.copy()

    for one in (device, other, device, other):
        assert (await one.beat()).status_code == 200
    assert plane.rows("fence") == []


async def test_a_device_whose_journal_cannot_be_opened_is_not_judged(device: Device) -> None:
    await device.copy("b").beat()

    answer = await device.beat(epoch=None, writer=None)

    assert answer.status_code == 200
    assert answer.json()["heard"] == []


async def test_the_writers_that_are_remembered_are_bounded(plane: Plane, device: Device) -> None:
    for number in range(KEPT_SUPERSEDED + 20):
        await plane.world.sleep(1)
        device.writer = f"w{number}"
        await device.beat()

    assert len(plane.rows("superseded")) == KEPT_SUPERSEDED


async def test_a_heartbeat_of_the_present_writer_still_writes_nothing(
    plane: Plane, device: Device
) -> None:
    commits = plane.store.database.commits

    for uptime in range(2, 6):
        await plane.world.sleep(1)
        device.fact("app-update/1", "a", "b")
        await device.beat(reported={"uptime_s": float(uptime)})

    assert plane.store.database.commits == commits


async def test_two_branches_of_one_journal_never_become_one(device: Device) -> None:
    """The clone went on from a copy; what the first one only spoke of is compared when it comes."""
    clone = device.copy("b")
    await device.ship(device.batch(1, 3))
    device.fact("app-update/1", "s5", "s6-of-a")
    await device.beat()
    for number in range(6, 9):
        clone.fact("app-update/1", f"s{number - 1}", f"s{number}-of-b")

    beat = await clone.beat()
    batch = await clone.ship(clone.batch(4))

    assert beat.status_code == 200
    heard = {one["lane"]: one for one in beat.json()["heard"]}
    assert heard["core"]["hash"] == device.hash_at("core", 6).hex()  # for the clone to compare
    assert code_of(batch) == (409, "fork")
    assert batch.json()["ack"]["seq"] == 3


async def test_a_batch_that_was_overtaken_by_a_heartbeat_is_taken(device: Device) -> None:
    batch = device.batch(1, 5)
    device.fact("app-update/1", "s5", "s6")
    await device.beat()

    answer = await device.ship(batch)

    assert answer.json()["ack"]["seq"] == 5


@pytest.mark.parametrize("writer", ["", "x" * 65, "a b", 7, ["a"], {"a": 1}])
async def test_a_writer_that_is_no_id_is_malformed(device: Device, writer: object) -> None:
    assert code_of(await device.beat(writer=writer)) == (422, "malformed")
    assert code_of(await device.ship(writer=writer)) == (422, "malformed")
