"""A device that holds a valid token and lies about its past: Cloudly's ingest, records and pages outlive it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cloudly.given import UUID, Device, Plane

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
