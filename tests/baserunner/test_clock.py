"""What a stamp says of the time, and how far that can be trusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from baserunner.clock import Clock
from interfaces.world import now_ms
from simulators.world import SimWorld, run_virtual


def test_nobody_has_told_the_time_until_cloudly_does() -> None:
    world = SimWorld("clock")
    clock = Clock(world)

    async def story() -> None:
        assert clock.stamp().skew_ms is None

        clock.told(now_ms(world) + 5_000)

        assert clock.stamp().skew_ms == 5_000

    run_virtual(story)


def test_after_a_jump_of_the_wall_clock_the_true_time_is_still_known() -> None:
    world = SimWorld("jump")
    clock = Clock(world)

    async def story() -> None:
        true_ms = now_ms(world) + 1_000
        clock.told(true_ms)
        world.jump(timedelta(days=-30 * 366))
        await world.sleep(60)

        stamp = clock.stamp()

        assert stamp.skew_ms is not None
        assert stamp.at_ms + stamp.skew_ms == true_ms + 60_000

    run_virtual(story)


def test_a_boot_forgets_what_it_was_told() -> None:
    world = SimWorld("boot")
    clock = Clock(world)

    async def story() -> None:
        clock.told(now_ms(world))
        world.reboot()

        assert clock.stamp().skew_ms is None

    run_virtual(story)


def test_a_time_beyond_the_calendar_is_nobodys_time_and_facts_still_fit_the_wire() -> None:
    world = SimWorld("absurd", wall=datetime(1950, 1, 1, tzinfo=UTC))
    clock = Clock(world)

    async def story() -> None:
        clock.told(2**53)  # the greatest that a heartbeat's answer may say

        assert abs(clock.stamp().skew_ms or 0) <= 2**53  # the greatest that a fact may say

    run_virtual(story)
