"""Update locks: staging by a lock, back-off, cancel, force, and who may hold one."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators.supervisor import MemoryTargets, Setup, Supervisor, directory_each
from simulators.supervisor.locks import NOBODY
from simulators.world import SimWorld, run_virtual
from tests.simulators.conftest import InALab
from tests.simulators.lab import COMMITS, UUID, Lab, running, target


async def _staged(lab: Lab) -> Path:
    """Release 1 runs, release 2 is downloaded, and a lock holds it back."""
    await lab.apply(target(1))
    lock = lab.lock()
    assert lab.source is not None
    lab.source.set_target(target(2))
    await lab.update()
    await lab.until(lambda: lab.supervisor.applier.waits)
    return lock


async def _seconds_until_stopping(lab: Lab) -> float:
    begin = lab.world.monotonic()
    await lab.until(lambda: "Stopping" in lab.supervisor.fleeting.services.values())
    return lab.world.monotonic() - begin


def test_an_update_under_a_lock_is_downloaded_and_not_applied(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await _staged(lab)
        await lab.pass_(3600)

        device = await lab.get("/v1/device")
        state = await lab.get("/v2/state/status")
        flags = [device[f"update_{flag}"] for flag in ("pending", "failed", "downloaded")]
        assert flags == [True, True, True]
        assert state["release"] == COMMITS[1]
        assert state["containers"][0]["status"] == "Running"
        assert [image["status"] for image in state["images"]] == ["Downloaded", "Downloaded"]

    in_a_lab(story)


def test_cancel_after_the_lock_is_gone_applies_at_once(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        lock = await _staged(lab)
        await lab.pass_(14)
        lock.unlink()

        await lab.update(cancel=True)

        assert await _seconds_until_stopping(lab) <= 0.6, "0.5 s were recorded"
        await lab.until(lambda: not lab.supervisor.fleeting.applying)
        device = await lab.get("/v1/device")
        assert not any(device[f"update_{flag}"] for flag in ("pending", "failed", "downloaded"))
        assert device["commit"] == COMMITS[2]

    in_a_lab(story)


@pytest.mark.parametrize("body", [None, {}, {"force": True}], ids=["no-post", "empty", "force"])
def test_without_cancel_it_starts_when_its_back_off_ends(
    in_a_lab: InALab, body: dict[str, object] | None
) -> None:
    async def story(lab: Lab) -> None:
        lock = await _staged(lab)
        await lab.pass_(8)
        lock.unlink()

        if body is not None:
            await lab.update(**body)

        waited = await _seconds_until_stopping(lab)
        assert 1 < waited <= 8, "the fourth wait is of 8 s"

    in_a_lab(story)


def test_the_back_off_doubles_from_1_s_to_the_poll_interval(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await _staged(lab)

        waits = []
        for _ in range(9):
            begin = lab.world.monotonic()
            await lab.until(lambda: not lab.supervisor.applier.waits)
            waits.append(round(lab.world.monotonic() - begin))
            await lab.until(lambda: lab.supervisor.applier.waits)

        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    in_a_lab(story)


def test_cancel_under_a_lock_tries_again_and_waits_1_s_again(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        lock = await _staged(lab)
        await lab.pass_(40)

        await lab.update(cancel=True)
        await lab.pass_(1)
        lock.unlink()

        assert await _seconds_until_stopping(lab) <= 1

    in_a_lab(story)


def test_force_with_cancel_deletes_the_lock_and_says_so(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        lock = await _staged(lab)

        await lab.update(force=True, cancel=True)
        await _seconds_until_stopping(lab)

        assert not lock.exists()
        deleted = [told.body for told in lab.supervisor.told if told.what == "lock-deleted"]
        assert deleted == [{"name": "updates.lock"}]

    in_a_lab(story)


@pytest.mark.parametrize("name", ["updates.lock", "resin-updates.lock"])
def test_a_lock_owned_by_nobody_is_ignored_and_deleted(in_a_lab: InALab, name: str) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        lock = lab.lock(name)
        lab.owners[name] = NOBODY

        await lab.apply(target(2))

        assert not lock.exists()
        assert not [told for told in lab.supervisor.told if told.what == "lock-deleted"]

    in_a_lab(story)


def test_any_locked_service_of_any_app_blocks_a_reboot(tmp_path: Path) -> None:
    async def story() -> tuple[int, str]:
        import httpx

        world = SimWorld(1)
        setup = Setup(directory_each(tmp_path), uuid=UUID, api_key="key")
        source = MemoryTargets(target(1, second=True))
        supervisor = Supervisor(world, setup, source)
        async with running(supervisor):
            await world.sleep(30)
            locked = tmp_path / "1001" / "second"
            locked.mkdir(parents=True)
            (locked / "updates.lock").touch()
            headers = {"Authorization": "ApiKey key"}
            async with httpx.AsyncClient(
                transport=supervisor.transport(), base_url="http://s", headers=headers
            ) as client:
                answer = await client.post("/v1/reboot")
                return answer.status_code, answer.json()["Error"]

    assert run_virtual(story) == (
        423,
        "Lockfile exists for { appId: 1001, service: second }",
    )


def test_a_lock_survives_a_restart_of_the_supervisor_and_goes_with_a_reboot(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        lock = await _staged(lab)

        lab.supervisor.restart()
        await lab.pass_(5)
        assert lock.exists()

        lab.supervisor.power_cut()
        await lab.pass_(1)
        assert not lock.exists()

    in_a_lab(story)
