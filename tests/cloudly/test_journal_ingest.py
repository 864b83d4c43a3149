"""Journal ingest: in order, once each, whole or not at all."""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

import anyio
import httpx
import pytest

from cloudly.http.device import CROWDED, next_after_s
from cloudly.store.journals import KEPT_TRANSITIONS, PRUNE_EVERY
from tests.cloudly.given import NODE, Device, Plane, bearer, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


@pytest.fixture
async def device(plane: Plane) -> Device:
    device = await plane.device().enroll()
    for number in range(1, 7):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}", reason=f"because {number}")
    return device


def ack_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    ack: dict[str, Any] = answer.json()["ack"]
    return ack


def stored(plane: Plane, lane: str = "core") -> list[int]:
    chunks = [row for row in plane.rows("journal_chunk") if row["lane"] == lane]
    return [event["seq"] for chunk in chunks for event in json.loads(chunk["events"])]


async def test_what_is_acked_is_stored_with_its_hash(plane: Plane, device: Device) -> None:
    ack = ack_of(await device.ship())

    assert ack == {
        "epoch": "epoch-1",
        "lane": "core",
        "seq": 6,
        "hash": device.hash_at("core", 6).hex(),
    }
    assert stored(plane) == [1, 2, 3, 4, 5, 6]


async def test_a_batch_sent_twice_is_stored_once(plane: Plane, device: Device) -> None:
    first = ack_of(await device.ship())
    before = plane.rows("journal_chunk") + plane.rows("transition") + plane.rows("stream")

    again = ack_of(await device.ship())

    assert again == first
    assert plane.rows("journal_chunk") + plane.rows("transition") + plane.rows("stream") == before


async def test_overlapping_batches_of_every_cut_end_in_the_same_journal(
    plane: Plane, device: Device
) -> None:
    for first in range(1, 7):
        for last in range(first, 7):
            await device.ship(device.batch(first, last))

    assert stored(plane) == [1, 2, 3, 4, 5, 6]
    assert ack_of(await device.ship(device.batch(7)))["seq"] == 6


async def test_an_empty_batch_asks_where_cloudly_is(device: Device) -> None:
    assert ack_of(await device.ship(device.batch(7)))["seq"] == 0

    await device.ship(device.batch(1, 4))

    assert ack_of(await device.ship(device.batch(7)))["seq"] == 4


async def test_a_gap_is_answered_with_what_cloudly_has(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(1, 2))

    answer = await device.ship(device.batch(4))

    assert code_of(answer) == (409, "gap")
    assert answer.json()["ack"]["seq"] == 2
    assert stored(plane) == [1, 2]


async def test_facts_that_the_device_has_no_more_are_a_gap_on_record(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 2))

    ack = ack_of(await device.ship(device.batch(5), oldest=5))

    assert ack["seq"] == 6
    assert stored(plane) == [1, 2, 5, 6]
    gap = plane.rows("lane_gap")[0]
    assert (gap["lane"], gap["first_seq"], gap["last_seq"]) == ("core", 3, 4)
    assert ack_of(await device.ship(device.batch(5), oldest=5))["seq"] == 6  # and again


async def test_another_past_is_a_fork(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(1, 3))
    other = await plane.device("other").enroll()
    for number in range(6):
        other.fact("app-update/1", "a", f"b{number}")
    other.token = device.token

    for batch in (
        other.batch(1, 3),
        other.batch(1, 6),
        other.batch(4),
        other.batch(2, 3),
        other.batch(1, 2),
    ):
        answer = await other.ship(batch)

        assert code_of(answer) == (409, "fork")
        assert answer.json()["ack"]["seq"] == 3
    assert stored(plane) == [1, 2, 3]


async def test_a_device_that_lost_what_cloudly_has_is_a_fork(device: Device) -> None:
    await device.ship()
    device.journals["core"] = device.journals["core"][:4]

    answer = await device.ship(device.batch(5))

    assert code_of(answer) == (409, "fork")
    assert answer.json()["ack"]["seq"] == 6


async def test_an_older_epoch_is_fenced_and_told_where_cloudly_was_in_it(
    plane: Plane, device: Device
) -> None:
    await device.ship(device.batch(1, 3))
    newer = plane.device(epoch="epoch-2")
    newer.token = device.token
    newer.fact("enrollment/2", "asking", "enrolled")
    await newer.ship()

    answer = await device.ship(device.batch(4))

    assert code_of(answer) == (409, "fenced")
    assert (answer.json()["ack"]["epoch"], answer.json()["ack"]["seq"]) == ("epoch-1", 3)
    assert [row["n"] for row in plane.rows("epoch")] == [1, 2]


def _tampered(event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(event) | changes


@pytest.mark.parametrize(
    "changes",
    [{"dst": "succeeded"}, {"data": "{}"}, {"seq": 9}, {"at_ms": 1}, {"hash": "0" * 64}, {"n": 99}],
)
async def test_a_batch_whose_chain_is_broken_is_not_taken(
    plane: Plane, device: Device, changes: dict[str, Any]
) -> None:
    batch = device.batch()
    batch["events"] = [
        *batch["events"][:2],
        _tampered(batch["events"][2], **changes),
        *batch["events"][3:],
    ]

    answer = await device.ship(batch)

    assert code_of(answer) == (422, "malformed")
    assert stored(plane) == []


async def test_two_lanes_have_sequences_of_their_own(plane: Plane, device: Device) -> None:
    device.fact("heartbeat/1", "asking", "answered", lane="log")
    device.fact("app-update/1", "", "", lane="log", progress=40)

    await device.ship()
    ack = ack_of(await device.ship(device.batch(lane="log")))

    assert ack["seq"] == 2
    assert stored(plane) == [1, 2, 3, 4, 5, 6]
    assert stored(plane, "log") == [1, 2]
    states = {row["stream"]: (row["lane"], row["state"]) for row in plane.rows("stream")}
    assert states == {"app-update/1": ("core", "s6"), "heartbeat/1": ("log", "answered")}


async def test_transitions_are_shown_in_the_journals_order(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(1, 3))
    await device.ship(device.batch(4))

    rows = plane.rows("transition")

    assert [(row["seq"], row["src"], row["dst"], row["reason"]) for row in rows] == [
        (n, f"s{n - 1}", f"s{n}", f"because {n}") for n in range(1, 7)
    ]


async def test_only_the_last_transitions_are_kept_but_the_whole_journal(
    plane: Plane, device: Device
) -> None:
    for number in range(7, KEPT_TRANSITIONS + 150):
        device.fact("app-update/2", "a", f"b{number}")
    for first in range(1, KEPT_TRANSITIONS + 150, 100):
        await device.ship(device.batch(first, first + 99))

    assert KEPT_TRANSITIONS <= len(plane.rows("transition")) <= KEPT_TRANSITIONS + 2 * PRUNE_EVERY
    assert plane.rows("transition")[-1]["seq"] == KEPT_TRANSITIONS + 149
    assert len(stored(plane)) == KEPT_TRANSITIONS + 149


@pytest.mark.parametrize(
    "strange",
    [
        {"kind": "k" * 500},
        {"data": "x" * 70_000},
        {"at_ms": 2**70},
        {"mono_ms": -(2**64)},
        {"kind": None},
        {"n": "many"},
        {"stream": {"of": "another", "shape": [1, 2]}},
    ],
)
async def test_a_fact_that_cannot_be_decoded_is_kept_as_it_came_and_acked(
    plane: Plane, device: Device, strange: dict[str, Any]
) -> None:
    batch = device.batch()
    batch["events"] = [
        *batch["events"][:3],
        _tampered(batch["events"][3], **strange),
        *batch["events"][4:],
    ]

    ack = ack_of(await device.ship(batch))

    assert ack["seq"] == 6
    chunk = plane.rows("journal_chunk")[0]
    assert chunk["opaque"] == 1
    kept = json.loads(chunk["events"])[3]
    assert all(kept[key] == value for key, value in strange.items())
    assert [row["seq"] for row in plane.rows("transition")] == [1, 2, 3, 5, 6]
    assert ack_of(await device.ship(batch)) == ack


@pytest.mark.parametrize(
    "data", ["[1]", "null", "not json", "[" * 20_000, '{"deployment": 7, "reason": {"a": []}}']
)
async def test_data_of_any_kind_is_kept_and_projected_as_far_as_it_goes(
    plane: Plane, data: str
) -> None:
    device = await plane.device().enroll()
    from journal.chain import link

    event = device.fact("app-update/1", "new", "offered")
    event["data"] = data
    fields = {key: value for key, value in event.items() if key != "hash"}
    event["hash"] = link(device.hash_at("core", 0), lane="core", **fields).hex()

    assert ack_of(await device.ship())["seq"] == 1
    assert plane.rows("stream")[0]["state"] == "offered"


async def test_a_field_that_a_newer_agent_adds_is_kept(plane: Plane, device: Device) -> None:
    device.journals["core"][0]["tide"] = "high"

    await device.ship()

    assert json.loads(plane.rows("journal_chunk")[0]["events"])[0]["tide"] == "high"


async def test_more_than_two_hundred_facts_at_once_are_to_be_halved(device: Device) -> None:
    for number in range(7, 202):
        device.fact("app-update/2", "a", f"b{number}")

    assert code_of(await device.ship()) == (413, "too-large")
    assert ack_of(await device.ship(device.batch(1, 200)))["seq"] == 200


async def test_a_batch_may_come_compressed(plane: Plane, device: Device) -> None:
    body = gzip.compress(json.dumps(device.batch()).encode())

    answer = await plane.client.post(
        NODE + "journal", content=body, headers=bearer(device.token) | {"content-encoding": "gzip"}
    )

    assert ack_of(answer)["seq"] == 6


async def test_the_journal_is_read_the_same_after_a_restart(plane: Plane, device: Device) -> None:
    await device.ship(device.batch(1, 4))

    device.plane = later = plane.again()
    ack = ack_of(await device.ship(device.batch(3)))

    assert ack["seq"] == 6
    assert stored(later) == [1, 2, 3, 4, 5, 6]
    later.end()


async def test_a_crowd_is_asked_to_ship_more_slowly() -> None:
    assert next_after_s(0) == 0.0
    assert next_after_s(CROWDED - 1) == 0.0
    assert next_after_s(CROWDED * 3) == 3.0


async def test_a_full_queue_takes_no_batch_and_says_when_to_come_again(
    plane: Plane, device: Device
) -> None:
    plane.store.most_waiting = 2
    answers: list[httpx.Response] = []

    async def ship() -> None:
        answers.append(await device.ship())

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(ship)
    refused = [answer for answer in answers if answer.status_code != 200]

    assert 0 < len(refused) < 6
    for answer in refused:
        assert code_of(answer) == (503, "busy")
        assert 5 <= int(answer.headers["retry-after"]) <= 15
    assert ack_of(await device.ship())["seq"] == 6
