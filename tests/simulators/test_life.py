"""The Supervisor's own life: restart, reboot, power cut, what is kept and forgotten, services that misbehave."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest

from simulators.supervisor import BEHAVIOUR_LABEL, Behaviour
from simulators.world import run_virtual
from tests.simulators.conftest import InALab
from tests.simulators.lab import COMMITS, UUID, Lab, a_lab, target


def _behaving(behaviour: Behaviour) -> dict[str, str]:
    return {BEHAVIOUR_LABEL: behaviour}


def test_a_restart_keeps_the_release_and_the_containers_and_forgets_the_flags(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        before = await lab.get("/v2/state/status")
        lab.lock()
        assert lab.source is not None
        lab.source.set_target(target(2))
        await lab.update()
        await lab.until(lambda: lab.supervisor.applier.waits)

        lab.supervisor.restart()
        await lab.pass_(0.1)

        device, after = await lab.get("/v1/device"), await lab.get("/v2/state/status")
        assert not device["update_failed"]
        assert not device["update_downloaded"]
        assert after["release"] == COMMITS[1]
        assert after["containers"] == before["containers"]

    in_a_lab(story)


def test_what_is_kept_outlives_the_process(tmp_path: Path) -> None:
    async def first() -> str:
        async with a_lab(tmp_path, state_directory=tmp_path) as lab:
            await lab.apply(target(1))
            return str((await lab.get("/v2/containerId"))["services"]["main"])

    async def second() -> None:
        async with a_lab(tmp_path, state_directory=tmp_path) as lab:
            state = await lab.get("/v2/state/status")
            assert state["release"] == COMMITS[1]
            assert state["containers"][0]["containerId"] == container
            await lab.apply(target(2))
            assert (await lab.get("/v2/state/status"))["release"] == COMMITS[2]

    container = run_virtual(first)
    run_virtual(second)

    assert stat.S_IMODE((tmp_path / "supervisor.json").stat().st_mode) == 0o600


def test_a_power_cut_in_the_middle_of_an_update_is_survived(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        assert lab.source is not None
        lab.source.set_target(target(2))
        await lab.update()
        await lab.until(lambda: "Stopping" in lab.supervisor.fleeting.services.values())

        lab.supervisor.power_cut(off_s=5)
        await lab.pass_(1)
        with pytest.raises(httpx.ConnectError):
            await lab.client.get("/ping")
        await lab.pass_(60)

        state = await lab.get("/v2/state/status")
        assert (state["appState"], state["release"]) == ("applied", COMMITS[2])
        assert lab.world.boots == 2

    in_a_lab(story)


def test_a_device_that_was_shut_down_stays_down_until_somebody_presses_the_button(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        answer = await lab.client.post("/v1/shutdown")
        await lab.pass_(3600)
        down = not lab.supervisor.alive

        lab.supervisor.power_on()
        await lab.pass_(1)

        assert (answer.status_code, down) == (202, True)
        assert lab.supervisor.alive

    in_a_lab(story)


def test_it_polls_by_itself(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        assert lab.source is not None
        lab.source.set_target(target(1))

        await lab.pass_(60 + 60 + 12)

        assert (await lab.get("/v2/state/status"))["release"] == COMMITS[1]

    in_a_lab(story)


def test_a_refused_target_changes_nothing(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        broken = target(2)
        del broken[UUID]["name"]
        assert lab.source is not None
        lab.source.set_target(broken)

        assert await lab.update(force=True) == 204
        await lab.pass_(60)

        assert (await lab.get("/v2/state/status"))["release"] == COMMITS[1]
        assert lab.supervisor.follower.refused == (
            f"Expecting DeviceName at {UUID}.name but instead got: undefined",
        )

    in_a_lab(story)


def test_a_service_that_crashes_after_start_is_applied_and_then_comes_and_goes(
    in_a_lab: InALab,
) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1, labels=_behaving(Behaviour.CRASH_AFTER_START)))

        seen = set()
        for _ in range(40):
            state = await lab.get("/v2/state/status")
            seen.add((state["appState"], state["release"], state["containers"][0]["status"]))
            await lab.pass_(0.2)

        assert seen == {("applied", COMMITS[1], "Running"), ("applied", COMMITS[1], "exited")}

    in_a_lab(story)


def test_a_service_that_never_starts_is_tried_for_ever(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        assert lab.source is not None
        lab.source.set_target(target(2, labels=_behaving(Behaviour.NEVER_STARTS)))
        await lab.update()
        await lab.pass_(600)

        state = await lab.get("/v2/state/status")
        assert (state["appState"], state["release"]) == ("applying", COMMITS[1])
        assert (await lab.get("/v1/device"))["update_failed"]

        await lab.apply(target(1))
        state = await lab.get("/v2/state/status")
        assert (state["appState"], state["release"]) == ("applied", COMMITS[1])
        assert state["containers"][0]["status"] == "Running"

    in_a_lab(story)


def test_a_service_can_be_told_to_misbehave_while_it_runs(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))

        lab.supervisor.misbehave("main", Behaviour.CRASH_AFTER_START)
        await lab.pass_(2.5)

        assert (await lab.get("/v2/state/status"))["containers"][0]["status"] == "exited"

    in_a_lab(story)


def test_a_release_can_fail_on_one_device_and_its_way_back_does_not(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        lab.supervisor.misbehave_with(COMMITS[2], Behaviour.NEVER_STARTS)
        assert lab.source is not None
        lab.source.set_target(target(2))
        await lab.update()
        await lab.pass_(60)
        assert (await lab.get("/v1/device"))["update_failed"]

        await lab.apply(target(1))

        state = await lab.get("/v2/state/status")
        assert (state["appState"], state["release"]) == ("applied", COMMITS[1])
        assert state["containers"][0]["status"] == "Running"

    in_a_lab(story)


def test_after_a_new_key_the_container_is_recreated_at_the_next_apply(in_a_lab: InALab) -> None:
    async def story(lab: Lab) -> None:
        await lab.apply(target(1))
        old = lab.supervisor.kept.service_keys[1001, "main"]
        before = (await lab.get("/v2/containerId"))["services"]["main"]

        lab.client.headers["Authorization"] = f"Bearer {old}"
        new = (await lab.client.post("/v1/regenerate-api-key")).text
        assert (await lab.client.get("/v1/device")).status_code == 401
        lab.client.headers["Authorization"] = f"Bearer {new}"
        assert (await lab.get("/v2/containerId"))["services"]["main"] == before
        await lab.update()
        await lab.pass_(30)

        assert (await lab.get("/v2/containerId"))["services"]["main"] != before

    in_a_lab(story)


def test_everything_runs_faster_at_a_higher_speed(tmp_path: Path) -> None:
    from dataclasses import replace

    from simulators.supervisor import MemoryTargets, Setup, Supervisor, one_directory
    from simulators.world import SimWorld
    from tests.simulators.lab import running

    async def seconds(speed: float) -> float:
        world = SimWorld(1)
        setup = replace(Setup(one_directory(tmp_path), uuid=UUID), speed=speed)
        supervisor = Supervisor(world, setup, MemoryTargets(target(1)))
        async with running(supervisor):
            while not supervisor.kept.commits:
                await world.sleep(0.001)
            return world.monotonic()

    assert run_virtual(seconds, 1.0) == pytest.approx(10 * run_virtual(seconds, 10.0), rel=0.01)
