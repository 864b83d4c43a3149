"""A device that holds a valid token and lies about its past: Cloudly's ingest, records and pages outlive it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cloudly.given import UUID, Plane

pytestmark = pytest.mark.anyio

LONE = "\ud800"
"""Half a character: JSON can name it, UTF-8 cannot hold it."""


@pytest.mark.parametrize("field", ["reason", "deployment", "problem"])
async def test_half_a_character_in_a_fact_stops_no_queue_and_no_page(
    plane: Plane, field: str
) -> None:
    device = await plane.device().enroll()
    device.fact("app-update/1", "new", "offered", **{field: f"half {LONE} of one"})
    device.fact("app-update/1", "", "", **{field: f"half {LONE} of one"})

    answer = await device.ship()

    assert answer.status_code == 200, answer.text
    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200


@pytest.mark.parametrize("field", ["why", "from", "problem", "kept_in", "known"])
async def test_half_a_character_in_the_note_of_an_epoch_stops_nothing(
    plane: Plane, field: str
) -> None:
    device = await plane.device().enroll()
    await device.tell("app-update/1", "offered")
    bad: Any = {"epoch": LONE, "lanes": {"core": 5}} if field == "known" else LONE
    device.begins("epoch-2", **({"why": "salvaged", "from": "epoch-1"} | {field: bad}))

    answer = await device.ship()

    assert answer.status_code == 200, answer.text
    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200


async def test_half_a_character_in_a_line_of_a_log_stops_no_page(plane: Plane) -> None:
    device = await plane.device().enroll()
    device.fact("app-update/1", "", "", kind="lines", lines=[LONE], source=LONE, why=LONE)

    answer = await device.ship()

    assert answer.status_code == 200, answer.text
    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200


async def test_an_epoch_explains_itself_once(plane: Plane) -> None:
    """What its first fact said is on record; a later line that says otherwise erases nothing."""
    device = await plane.device().enroll()
    await device.tell("app-update/1", "offered", "admitted")
    device.fact("app-update/1", "admitted", "staged")
    await device.beat()
    device.begins("epoch-2", why="tail-lost", **{"from": "epoch-1"}, lanes={})
    assert (await device.ship()).status_code == 200
    before = plane.rows("lane_gap"), plane.rows("epoch")

    again = {"written": {"seq": 1}, "why": "nothing happened", "from": "epoch-1"}
    lanes = {"core": {"head": 2, "acked": 2, "carried": [1, 2**53], "lost": []}}
    device.fact("epoch/1", "", "", kind="epoch-began", lane="log", **again, lanes=lanes)
    answer = await device.ship(device.batch(lane="log"))

    assert answer.status_code == 200
    assert before[0]
    assert (plane.rows("lane_gap"), plane.rows("epoch")) == before


async def test_a_page_of_a_node_with_very_many_gaps_is_bounded_and_says_what_it_leaves_out(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    kinds = {f"{at:02}" + "<" * 198: 1 for at in range(50)}
    for epoch in range(2, 5):
        device.begins(f"epoch-{epoch}")
        for at in range(40):
            first = at * 100 + 2
            told = [
                {
                    "first_seq": first + 2 * k,
                    "last_seq": first + 2 * k,
                    "why": "<" * 200,
                    "kinds": kinds,
                }
                for k in range(32)
            ]
            seq = first + 98
            head = {"seq": seq, "hash": f"{seq:064x}"}
            answer = await device.ship(
                {
                    "epoch": device.epoch, "lane": "core", "prev_hash": "00" * 32, "events": [],
                    "head": head, "oldest": seq + 1, "gaps": told,
                }
            )  # fmt: skip
            assert answer.status_code == 200, answer.text
    assert len(plane.rows("lane_gap")) > 1000

    page = await plane.client.get(f"/nodes/{UUID}")

    assert page.status_code == 200
    assert "more gaps" in page.text
    assert len(page.content) < 2_000_000
