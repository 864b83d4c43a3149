"""Virtual time and seeded chance."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from interfaces.world import World, new_id, new_secret
from simulators.world import FACTORY_CLOCK, NothingWillHappenError, SimWorld, run_virtual


def test_thirty_days_pass_in_seconds() -> None:
    async def story() -> float:
        world = SimWorld(1)
        while world.monotonic() < 30 * 86_400:
            await world.sleep(60)
        return world.monotonic()

    began = time.process_time()
    passed = run_virtual(story)

    assert passed == 30 * 86_400
    assert time.process_time() - began < 10


def test_sleepers_wake_in_the_order_of_their_time_not_of_their_start() -> None:
    woken: list[str] = []

    async def sleeper(world: World, name: str, seconds: float) -> None:
        await world.sleep(seconds)
        woken.append(name)

    async def story() -> None:
        world = SimWorld(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper, world, "late", 10.0)
            tasks.start_soon(sleeper, world, "early", 1.0)

    run_virtual(story)

    assert woken == ["early", "late"]


def test_a_deadlock_says_so_instead_of_hanging() -> None:
    async def story() -> None:
        await anyio.Event().wait()

    with pytest.raises(NothingWillHappenError, match="every task waits"):
        run_virtual(story)


def test_a_deadline_passes_in_virtual_time() -> None:
    async def story() -> float:
        with anyio.move_on_after(3600):
            await anyio.Event().wait()
        return SimWorld(1).monotonic()

    assert run_virtual(story) == 3600


def test_the_same_seed_gives_the_same_ids_secrets_and_jitter() -> None:
    first, again, other = (SimWorld(seed) for seed in (5, 5, 6))

    def drawn(world: SimWorld) -> tuple[str, str, float, str]:
        return new_id(world), new_secret(world), world.uniform(0, 1), world.boot_id()

    assert drawn(first) == drawn(again)
    assert not set(drawn(SimWorld(5))) & set(drawn(other))


def test_drawing_secrets_does_not_move_the_jitter() -> None:
    one, other = SimWorld(5), SimWorld(5)

    one.random_bytes(1000)

    assert one.uniform(0, 1) == other.uniform(0, 1)


def test_a_reboot_changes_the_boot_id_and_starts_the_monotonic_clock_again() -> None:
    async def story() -> None:
        device, server = SimWorld("device"), SimWorld("server")
        await device.sleep(100)
        boot, wall = device.boot_id(), device.now()

        device.reboot()
        await device.sleep(1)

        assert device.boot_id() != boot
        assert device.monotonic() == 1
        assert device.now() == wall + timedelta(seconds=1)
        assert server.monotonic() == 101, "another host on the same loop"

    run_virtual(story)


def test_the_wall_clock_may_start_in_1970_and_jump_while_the_monotonic_one_goes_on() -> None:
    async def story() -> None:
        world = SimWorld(1, wall=FACTORY_CLOCK)
        assert world.now() == datetime(1970, 1, 1, tzinfo=UTC)
        await world.sleep(10)

        world.set_clock(datetime(2026, 11, 23, tzinfo=UTC))
        assert world.now() == datetime(2026, 11, 23, tzinfo=UTC)
        world.jump(timedelta(days=-3650))

        await world.sleep(5)
        assert world.now().year == 2016
        assert world.monotonic() == 15

    run_virtual(story)


def test_a_boot_id_looks_like_the_kernel_s() -> None:
    parts = SimWorld(1).boot_id().split("-")

    assert [len(part) for part in parts] == [8, 4, 4, 4, 12]
