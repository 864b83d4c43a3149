"""Diagnostics on demand, as Cloudly keeps and shows them."""

from __future__ import annotations

from typing import Any

import pytest

from cloudly.store import diagnoses
from interfaces.world import now_ms
from tests.cloudly.given import UUID, Device, Plane

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

ASKED = "d" * 32
WELL = {"verdict": "ok", "what": "disk", "seen": "900 of 1000 MB free", "todo": ""}


def ask(plane: Plane, node_id: str = UUID, diagnosis: str = ASKED) -> None:
    number, now = plane.node(node_id)["id"], now_ms(plane.world)
    plane.store.write_now(lambda db: diagnoses.ask(db, number, diagnosis, now_ms=now))


async def told(device: Device) -> Any:
    return (await device.beat()).json()["diagnosis"]


async def answer(device: Device, *findings: Any, stream: str = "diagnosis/1") -> None:
    device.fact(stream, "new", "looking", diagnosis=ASKED)
    device.fact(stream, "looking", "done", diagnosis=ASKED, findings=list(findings))
    assert (await device.ship(device.batch())).status_code == 200


async def page(plane: Plane) -> str:
    return " ".join((await plane.client.get(f"/nodes/{UUID}")).text.split())


async def test_a_node_is_told_until_its_journal_has_answered(plane: Plane) -> None:
    device = await plane.device().enroll()
    ask(plane)

    before = [await told(device), await told(device)]
    await answer(device, WELL)

    assert before == [ASKED, ASKED]
    assert await told(device) is None
    assert "900 of 1000 MB free" in await page(plane)


async def test_the_first_answer_stays_and_another_node_cannot_give_it(plane: Plane) -> None:
    device = await plane.device().enroll()
    other = await plane.device("other").enroll()
    ask(plane)

    await answer(other, WELL | {"seen": "not mine"})
    await answer(device, WELL)
    await answer(device, WELL | {"seen": "another"}, stream="diagnosis/2")

    shown = await page(plane)
    assert "900 of 1000 MB free" in shown
    assert "not mine" not in shown
    assert "another" not in shown


async def test_findings_of_any_shape_are_text(plane: Plane) -> None:
    device = await plane.device().enroll()
    ask(plane)

    evil = "<script>alert(1)</script>"
    await answer(device, {"verdict": evil, "what": evil, "seen": [evil]}, 7, None, evil)

    shown = await page(plane)
    assert "&lt;script&gt;" in shown
    assert "<script>alert" not in shown


async def test_only_the_newest_diagnoses_are_kept_beside_the_journal(plane: Plane) -> None:
    device = await plane.device().enroll()
    for number in range(diagnoses.KEPT + 3):
        ask(plane, diagnosis=f"d{number}")
        device.fact(f"diagnosis/{number}", "looking", "done", diagnosis=f"d{number}", findings=[])
        await device.ship(device.batch())
        await plane.world.sleep(1)

    assert len(plane.rows("diagnosis")) == diagnoses.KEPT
