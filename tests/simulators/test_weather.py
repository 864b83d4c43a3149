"""Weather in memory: each fault fires, is counted, and comes from the seed."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime

import anyio
import httpx
import pytest

from simulators.weather import (
    ClockJumps,
    Fault,
    Forecast,
    FullDisk,
    Weather,
    WeatherTransport,
    clock_jumps,
)
from simulators.world import SimWorld, run_virtual

BEFORE = {
    Fault.REQUEST_LOST,
    Fault.RESET_BEFORE,
    Fault.SERVER_ERROR,
    Fault.BUSY_SECONDS,
    Fault.BUSY_DATE,
    Fault.BUSY_GARBAGE,
    Fault.CAPTIVE_PORTAL,
    Fault.CAPTIVE_REDIRECT,
    Fault.PARTITION,
}
"""Faults after which the server has not seen the request."""


@dataclass
class Server(httpx.AsyncBaseTransport):
    """Answers everything with the number of requests it has executed."""

    executed: int = 0
    asked: list[httpx.Request] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.executed += 1
        self.asked.append(request)
        return httpx.Response(200, json={"executed": self.executed, "padding": "x" * 40})


@dataclass
class Sky:
    weather: Weather
    server: Server
    world: SimWorld
    client: httpx.AsyncClient

    async def ask(self, *, within_s: float = 30) -> httpx.Response:
        with anyio.fail_after(within_s):
            return await self.client.get("http://cloudly/heartbeat")


def under(weather: Weather, story: Callable[[Sky], Awaitable[None]]) -> None:
    async def tell() -> None:
        world, server = SimWorld(weather.seed), Server()
        transport = WeatherTransport(server, weather, world)
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            await story(Sky(weather, server, world, client))

    run_virtual(tell)


async def _outcome(sky: Sky) -> str:
    """What a caller with 30 s and a reader of 1 MB sees."""
    try:
        with anyio.fail_after(30):
            async with sky.client.stream("GET", "http://cloudly/heartbeat") as answer:
                size = 0
                async for piece in answer.aiter_bytes():
                    size += len(piece)
                    if size > 1_000_000:
                        return "too much"
            return str(answer.status_code)
    except TimeoutError:
        return "too slow"
    except httpx.TransportError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.LATENCY, "200"),
        (Fault.REQUEST_LOST, "ConnectTimeout"),
        (Fault.RESPONSE_LOST, "ReadTimeout"),
        (Fault.RESET_BEFORE, "ConnectError"),
        (Fault.RESET_AFTER, "ReadError"),
        (Fault.SERVER_ERROR, "5xx"),
        (Fault.BUSY_SECONDS, "429"),
        (Fault.BUSY_DATE, "429"),
        (Fault.BUSY_GARBAGE, "429"),
        (Fault.CAPTIVE_PORTAL, "200"),
        (Fault.CAPTIVE_REDIRECT, "302"),
        (Fault.TRUNCATED, "200"),
        (Fault.NEVER_ENDING, "too slow"),
        (Fault.DRIPPING, "too slow"),
        (Fault.HUGE, "too much"),
        (Fault.PARTITION, "ConnectTimeout"),
    ],
)
def test_a_fault_fires_is_counted_and_looks_like_itself(fault: Fault, outcome: str) -> None:
    async def story(sky: Sky) -> None:
        sky.weather.next_will_be(fault)

        seen = await _outcome(sky)

        assert seen == outcome or (outcome == "5xx" and seen in {"500", "502", "503", "504"})
        assert sky.weather.fired == {fault: 1}
        assert sky.server.executed == (0 if fault in BEFORE else 1)

    under(Weather(1), story)


def test_every_fault_has_its_row_in_that_table() -> None:
    mark = test_a_fault_fires_is_counted_and_looks_like_itself.pytestmark[0]  # type: ignore[attr-defined]  # pytest's

    assert {row[0] for row in mark.args[1]} == set(Fault)


def test_fine_weather_changes_nothing_and_counts_nothing() -> None:
    async def story(sky: Sky) -> None:
        for _ in range(50):
            assert (await sky.ask()).status_code == 200

        assert not sky.weather.fired
        assert sky.world.monotonic() == 0

    under(Weather(1), story)


def test_a_truncated_body_is_no_json() -> None:
    async def story(sky: Sky) -> None:
        sky.weather.next_will_be(Fault.TRUNCATED)

        answer = await sky.ask()

        with pytest.raises(json.JSONDecodeError):
            answer.json()

    under(Weather(1), story)


def test_retry_after_comes_in_seconds_as_a_date_and_as_nonsense() -> None:
    async def story(sky: Sky) -> None:
        sky.weather.next_will_be(Fault.BUSY_SECONDS, Fault.BUSY_DATE, Fault.BUSY_GARBAGE)

        seconds, date, garbage = [(await sky.ask()).headers["retry-after"] for _ in range(3)]

        assert 1 <= int(seconds) <= 30
        until = parsedate_to_datetime(date) - sky.world.now()
        assert timedelta(0) < until <= timedelta(seconds=30)
        assert not garbage.isdigit()

    under(Weather(1), story)


def test_a_late_answer_is_a_timeout_for_who_is_impatient() -> None:
    async def story(sky: Sky) -> None:
        sky.weather.next_will_be(Fault.LATENCY)

        with pytest.raises(httpx.ReadTimeout):
            await sky.client.get("http://cloudly/heartbeat", timeout=0.5)

        assert sky.world.monotonic() == 0.5

    under(Weather(1, Forecast(latency_s=(5, 6))), story)


def test_a_partition_begins_and_ends_by_the_clock() -> None:
    async def story(sky: Sky) -> None:
        assert await _outcome(sky) == "200"
        await sky.world.sleep(100)
        assert await _outcome(sky) == "ConnectTimeout"
        await sky.world.sleep(100)
        assert await _outcome(sky) == "200"

        assert sky.weather.fired == {Fault.PARTITION: 1}

    under(Weather(1, Forecast(partitions=((100, 200),))), story)


def _a_stormy_day(seed: int) -> tuple[list[tuple[int, Fault, str]], list[str], float]:
    weather = Weather(seed, Forecast.evenly(0.5))
    outcomes: list[str] = []
    ended: list[float] = []

    async def story(sky: Sky) -> None:
        outcomes.extend([await _outcome(sky) for _ in range(300)])
        ended.append(sky.world.monotonic())

    under(weather, story)
    return weather.log, outcomes, ended[0]


def test_the_same_seed_gives_the_same_faults_at_the_same_time_and_another_seed_others() -> None:
    assert _a_stormy_day(11) == _a_stormy_day(11)
    assert _a_stormy_day(11) != _a_stormy_day(12)


def test_a_long_storm_brings_every_fault_at_about_its_chance() -> None:
    log, outcomes, _ = _a_stormy_day(13)

    fired = {fault for _, fault, _ in log}
    assert fired == set(Fault) - {Fault.PARTITION}
    assert 100 < len(log) < 200, "half of 300"
    assert outcomes.count("200") >= 100


def test_a_fault_that_was_called_for_does_not_shift_the_chance_of_the_others() -> None:
    calm, called = (Weather(4, Forecast.evenly(0.5)) for _ in range(2))
    called.next_will_be(None, None)

    drawn = [calm.draw() for _ in range(50)]
    after_calls = [called.draw() for _ in range(50)]

    assert after_calls[2:] == drawn[2:]


def test_after_it_has_cleared_up_nothing_fires() -> None:
    async def story(sky: Sky) -> None:
        sky.weather.clear_up()

        assert [await _outcome(sky) for _ in range(100)] == ["200"] * 100
        assert not sky.weather.fired

    under(Weather(1, Forecast.evenly(1.0)), story)


def test_chances_beyond_certainty_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Forecast(chances={Fault.LATENCY: 0.8, Fault.HUGE: 0.3})


def test_the_seed_is_in_the_repr() -> None:
    assert repr(Weather(4711)).startswith("Weather(seed=4711")


def test_clock_jumps_are_counted_and_come_from_the_seed() -> None:
    async def a_day(seed: int) -> list[timedelta]:
        world, seen = SimWorld(1), ClockJumps()
        with anyio.move_on_after(86_400):
            await clock_jumps(world, seed, every_s=(600, 7200), seen=seen)
        assert seen.fired == len(seen.by) > 5
        passed = timedelta(seconds=world.monotonic())
        assert world.now() - SimWorld(1).now() == sum(seen.by, timedelta(0))
        assert passed == timedelta(days=1)
        return seen.by

    assert run_virtual(a_day, 1) == run_virtual(a_day, 1) != run_virtual(a_day, 2)


def test_a_full_disk_fails_every_commit_until_it_has_room_again() -> None:
    disk = FullDisk()
    disk.point("before-commit:staged")

    disk.fill()
    with pytest.raises(OSError, match="No space left") as failure:
        disk.point("before-commit:staged")
    disk.point("after-commit:staged")
    disk.free()
    disk.point("before-commit:staged")

    assert failure.value.errno == errno.ENOSPC
    assert disk.fired == 1
