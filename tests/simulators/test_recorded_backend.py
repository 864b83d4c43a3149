"""The simulator in front of the recorded backend: the requests of the real one, in its order and its words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulators.world import run_virtual
from tests.simulators.recorded_backend import (
    JOIN_TOKEN,
    RecordedBackend,
    Row,
    order,
    recorded_order,
    recorded_rows,
    steady,
)
from tests.simulators.recorded_lab import DEVICE_ID, RecordedLab, a_recorded_lab

Story = Callable[[RecordedLab], Awaitable[None]]


def tell(tmp: Path, rows: list[Row], story: Story, **options: object) -> RecordedLab:
    """Run a story; nothing may have been asked that was not recorded, and nothing recorded may be missing."""
    lab = attempt(tmp, rows, story, **options)
    assert not lab.backend.complaints, "\n".join(lab.backend.complaints)
    assert lab.backend.left == []
    return lab


def attempt(tmp: Path, rows: list[Row], story: Story, **options: object) -> RecordedLab:
    async def run() -> RecordedLab:
        async with a_recorded_lab(tmp, rows, **options) as lab:  # type: ignore[arg-type]  # passed on
            await story(lab)
            return lab

    return run_virtual(run)


async def for_30_s(lab: RecordedLab) -> None:
    await lab.pass_(30)


def test_a_first_boot(tmp_path: Path) -> None:
    rows = recorded_rows("first-boot", 1, 8)

    lab = tell(tmp_path, rows, for_30_s, name="lab-initial")

    assert order(lab.backend.asked) == recorded_order(rows)
    assert lab.supervisor.kept.identity.device_id == DEVICE_ID


def test_a_registration_conflict_that_the_device_key_settles(tmp_path: Path) -> None:
    rows = recorded_rows("register-conflict")

    lab = tell(tmp_path, rows, for_30_s)

    assert order(lab.backend.asked) == recorded_order(rows)
    assert lab.supervisor.kept.identity.device_id == DEVICE_ID


def test_a_key_exchange(tmp_path: Path) -> None:
    rows = recorded_rows("key-exchange")

    lab = tell(tmp_path, rows, for_30_s)

    assert order(lab.backend.asked) == recorded_order(rows)
    asked = [(path, headers["authorization"]) for _, path, headers, _ in lab.backend.requests[1:4]]
    key = lab.supervisor.kept.identity.device_key
    assert [of for _, of in asked] == [
        f"Bearer {key}",
        f"Bearer {JOIN_TOKEN}",
        f"Bearer {JOIN_TOKEN}",
    ]


def test_a_refused_registration_is_tried_again_and_a_conflict_makes_a_new_device_each_time(
    tmp_path: Path,
) -> None:
    rows = recorded_rows("register-refused")

    async def story(lab: RecordedLab) -> None:
        await lab.until(lambda: not lab.backend.left)

    lab = tell(tmp_path, rows, story)

    assert order(lab.backend.asked) == recorded_order(rows)
    registered = [body["uuid"] for _, path, _, body in lab.backend.requests if "register" in path]
    assert len(set(registered[:4])) == 1, "refusals and the first conflict: as who it is"
    assert len(set(registered[3:])) == len(registered[3:]), "then a new one each time"
    took_s = lab.backend.at_s[-1]
    assert took_s == pytest.approx(59, abs=8), "02:59:32 to 03:00:31"
    assert len(lab.backend.streams) == 1, "the log stream stays with the first name"


async def applied(lab: RecordedLab) -> None:
    """The device starts without its apps, and has the first release after a while."""
    await lab.until(lambda: len(lab.backend.left) == 0)


async def updated(lab: RecordedLab) -> None:
    await applied(lab)
    await lab.pass_(20)
    lab.backend.skip_to(recorded_rows("updates", 10, 14))
    lab.backend.go_on()
    await lab.update()
    await lab.pass_(40)


def test_a_device_that_lost_its_apps_and_comes_back(tmp_path: Path) -> None:
    rows = recorded_rows("updates", 1, 8)

    lab = tell(tmp_path, rows, applied, name="lab-initial", registered=True)

    assert order(lab.backend.asked) == recorded_order(rows)
    assert lab.backend.tokens == ["repository:v2/img0000000000000000000000000000001:pull"]


def test_an_update(tmp_path: Path) -> None:
    lab = tell(
        tmp_path,
        recorded_rows("updates", 1, 8),
        updated,
        name="lab-initial",
        registered=True,
    )

    assert lab.backend.tokens == [
        "repository:v2/img0000000000000000000000000000001:pull",
        "repository:v2/img0000000000000000000000000000002:pull",
    ]


def test_an_update_under_a_lock_that_is_cancelled_by_force(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await updated(lab)
        lab.backend.skip_to(recorded_rows("updates", 19, 33))
        restart = {"serviceName": "main"}
        await lab.client.post("/v2/applications/1001/restart-service", json=restart)
        await lab.until(lambda: len(lab.backend.left) == 3)
        await lab.pass_(4)
        (lab.locks / "updates.lock").touch()
        lab.backend.go_on()
        await lab.update()
        await lab.until(lambda: len(lab.backend.left) == 2)
        await lab.pass_(45)
        await lab.update(force=True, cancel=True)
        await lab.pass_(40)

    tell(tmp_path, recorded_rows("updates", 1, 8), story, name="lab-initial", registered=True)


def since_stroke_s(lab: RecordedLab) -> float:
    """How long ago the clock of the reports struck."""
    return (lab.world.monotonic() - lab.supervisor.reports._began_s) % 10


def test_the_loop_of_a_shared_repository_and_the_way_back_out_of_it(tmp_path: Path) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend.skip_to(recorded_rows("first-boot", 20, 44))
        lab.backend.go_on()
        await lab.update()
        await lab.until(lambda: len(lab.backend.left) == 2)
        await lab.pass_(30)
        await lab.until(lambda: 3.9 < since_stroke_s(lab) % 10 < 4)
        lab.backend.go_on()
        await lab.update()
        await lab.until(lambda: not lab.backend.left)
        in_loop = RecordedBackend(recorded_rows("first-boot", 50, 51), lab.world.monotonic)
        lab.backend._writes = in_loop._writes
        await lab.until(lambda: not lab.backend.left)
        lab.backend.skip_to(recorded_rows("first-boot", 58, 60))
        lab.backend.go_on()
        await lab.pass_(11)
        await lab.update()
        await lab.pass_(1)

    tell(tmp_path, recorded_rows("first-boot", 1, 8), story, name="lab-initial")


def test_a_difference_is_a_difference_after_what_is_volatile_was_taken_out() -> None:
    report = {"a" * 32: {"memory_usage": 1, "apps": {"1": {"release_uuid": "b" * 32}}}}

    assert steady(report) == {"<uuid>": {"apps": {"1": {"release_uuid": "<id>"}}}}
    assert steady({**report}) != steady({"a" * 32: {"memory_usage": 2}})


def test_the_recorded_backend_complains_of_what_was_not_recorded(tmp_path: Path) -> None:
    rows = [row for row in recorded_rows("first-boot", 1, 8) if row["seq"] != 5]

    lab = attempt(tmp_path, rows, for_30_s, name="lab-initial")

    assert "RESIN_HOST_FIREWALL_MODE" in lab.backend.complaints[0]
