"""Recurring jobs: called again and again, one failure ends nothing, and what fails is seen."""

from __future__ import annotations

import logging

import anyio
import pytest

from cloudly.http.recurring import STUCK_S, Recurring
from simulators.world import SimWorld

pytestmark = pytest.mark.anyio


async def run_for(recurring: Recurring, world: SimWorld, seconds: float) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(recurring.run)
        await world.sleep(seconds)
        group.cancel_scope.cancel()


async def test_a_job_is_called_at_once_and_then_every_so_many_seconds() -> None:
    world, called = SimWorld(1), list[float]()
    recurring = Recurring(world)

    async def work() -> None:
        called.append(world.monotonic())

    recurring.add("job", 2.0, work)
    await run_for(recurring, world, 5)

    assert called == [0.0, 2.0, 4.0]


async def test_a_slow_job_never_overlaps_itself_and_holds_up_no_other() -> None:
    world, slow, quick = SimWorld(1), list[float](), list[float]()
    recurring = Recurring(world)

    async def take_long() -> None:
        slow.append(world.monotonic())
        await world.sleep(3)

    async def work() -> None:
        quick.append(world.monotonic())

    recurring.add("slow", 1.0, take_long)
    recurring.add("quick", 1.0, work)
    await run_for(recurring, world, 4.5)

    assert slow == [0.0, 4.0]
    assert quick == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_a_job_that_fails_is_logged_once_told_of_and_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, calls, heal = SimWorld(1), 0, False
    recurring = Recurring(world)

    async def work() -> None:
        nonlocal calls
        calls += 1
        if not heal:
            raise ValueError("no route")

    recurring.add("job", 1.0, work)
    with caplog.at_level(logging.INFO, "cloudly"):
        await run_for(recurring, world, 2.5)
        told = recurring.problems()
        heal = True
        await recurring.once("job")

    assert calls == 4
    assert told == {"job": "ValueError: no route"}
    assert recurring.problems() == {}
    assert [one.message for one in caplog.records] == [
        "recurring job failed",
        "recurring job works again",
    ]


async def test_a_job_that_does_not_come_back_is_told_of() -> None:
    world = SimWorld(1)
    recurring = Recurring(world)

    async def hang() -> None:
        await world.sleep(10 * STUCK_S)

    recurring.add("job", 1.0, hang)
    async with anyio.create_task_group() as group:
        group.start_soon(recurring.run)
        await world.sleep(STUCK_S - 1)
        before = recurring.problems()
        await world.sleep(2)
        after = recurring.problems()
        group.cancel_scope.cancel()

    assert before == {}
    assert "not come back" in after["job"]


async def test_at_the_end_each_job_may_give_back_what_it_holds_even_when_another_cannot() -> None:
    world, ended = SimWorld(1), list[str]()
    recurring = Recurring(world)

    async def work() -> None:
        return

    async def cannot() -> None:
        raise OSError("gone")

    async def hangs() -> None:
        await world.sleep(3600)

    async def gives_back() -> None:
        ended.append("lease")

    recurring.add("one", 1.0, work, at_end=cannot)
    recurring.add("two", 1.0, work, at_end=hangs)
    recurring.add("three", 1.0, work, at_end=gives_back)
    await run_for(recurring, world, 1)

    assert ended == ["lease"]
    assert world.monotonic() < 10


def test_two_jobs_of_one_name_are_refused() -> None:
    recurring = Recurring(SimWorld(1))

    async def work() -> None:
        return

    recurring.add("job", 1.0, work)

    with pytest.raises(ValueError, match="two recurring jobs"):
        recurring.add("job", 2.0, work)
