"""Clocks that are wrong and jump, hosts that lose power, networks that are gone for days."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from journal.facts import Lane
from journal.reader import open_reader
from journal.verify import verify
from simulators.world import FACTORY_CLOCK, MORNING, run_virtual
from tests.world.kit import POLICY, Place, a_place

SPAN_S = 60.0
JUMPS = {
    "ten years back": timedelta(days=-3650),
    "three days on": timedelta(days=3),
    "ten years on": timedelta(days=3650),
}


def is_sound(place: Place) -> bool:
    with open_reader(place.home) as reader:
        return verify(reader).ok


# -- clocks ----------------------------------------------------------------------------------------


def test_a_device_that_boots_in_1970_enrolls_and_updates_and_its_clock_is_set_in_the_middle(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.world.set_clock(FACTORY_CLOCK)
            await place.runs("1.0.0")
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "applying")
            place.world.set_clock(MORNING)

            await place.until_state("app-update/2", "succeeded")
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())

            years = [fact.at_ms // 31_557_600_000 for fact in place.facts("app-update/2")]
            assert years[0] == 0
            assert years[-1] == 56
            assert is_sound(place)

    run_virtual(story)


@pytest.mark.parametrize("by", JUMPS.values(), ids=JUMPS.keys())
def test_a_clock_that_jumps_makes_no_deadline_early_or_late(tmp_path: Path, by: timedelta) -> None:
    """An apply that never ends, with a deadline of a minute: it lasts a minute."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            policy = POLICY.model_copy(update={"apply_deadline_s": SPAN_S})
            place.set_release("1.1.0", behaviour="never-starts", policy=policy)
            await place.until_state("app-update/2", "applying")
            began = place.world.monotonic()
            await place.world.sleep(SPAN_S / 3)
            place.world.jump(by)
            await place.until_state("app-update/2", "unclear")

            assert SPAN_S - 1 <= place.world.monotonic() - began <= SPAN_S + 5
            answered = place.kinds("heartbeat/1").count("heartbeat-answered")
            await place.world.sleep(600)
            more = place.kinds("heartbeat/1").count("heartbeat-answered") - answered
            assert 9 <= more <= 12

    run_virtual(story)


@pytest.mark.parametrize("state", ["downloading", "applying", "verifying"])
def test_a_clock_that_jumps_in_mid_update_changes_nothing(tmp_path: Path, state: str) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.set_release("1.1.0")
            await place.until_state("app-update/2", state)
            for by in JUMPS.values():
                place.world.jump(by)
                await place.world.sleep(1)

            await place.until_state("app-update/2", "succeeded")
            assert is_sound(place)

    run_virtual(story)


# -- power -----------------------------------------------------------------------------------------

ON_THE_WAY = {
    "app-update/2": (
        "offered",
        "admitted",
        "download-requested",
        "staged",
        "apply-requested",
        "applied",
        "health-passed",
    ),
    "app-update/3": (
        "offered",
        "staged",
        "apply-requested",
        "applied",
        "health-failed",
        "rollback-requested",
        "rolled-back",
    ),
}
QUICK = {"download-requested", "apply-requested", "applied", "rollback-requested"}
"""Where most is at stake; `make check` goes through all of them."""
CUTS = [
    pytest.param(stream, kind, marks=() if kind in QUICK else pytest.mark.slow)
    for stream, kinds in ON_THE_WAY.items()
    for kind in kinds
]


def cut_power_after(place: Place, stream: str, kind: str) -> list[str]:
    """The host loses power right after that fact was written; the list tells that it has happened."""
    fired: list[str] = []

    def point(name: str) -> None:
        if fired or name != f"after-commit:{kind}" or place.facts(stream)[-1:] == []:
            return
        if place.facts(stream)[-1].kind == kind:
            fired.append(kind)
            place.supervisor.power_cut(5.0)
            place.agent_scope.cancel()

    place.points = point
    return fired


@pytest.mark.parametrize(("stream", "kind"), CUTS)
def test_a_host_that_loses_power_in_any_state_of_an_update_ends_it_right(
    tmp_path: Path, stream: str, kind: str
) -> None:
    """The locks are in a tmpfs and vanish; the Supervisor may apply before the agent has started."""

    async def story() -> None:
        async with a_place(tmp_path, every_s=20) as place:
            await place.enrolled()
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")
            await place.stop_agent()
            fired = cut_power_after(place, stream, kind)
            place.start_agent()
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "succeeded")
            last = place.set_release("1.2.0", behaviour="crash-after-start")
            await place.until_state("app-update/3", "rolled-back", within_s=1200)

            assert fired == [kind]
            assert place.world.boots == 2
            assert place.kinds(stream).count(kind) == 1
            assert is_sound(place)
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())
            await place.until(lambda: place.node().release != last)

    run_virtual(story)


# -- offline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unhurried")
def test_days_offline_lose_nothing(tmp_path: Path, days: int) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "applying")
            place.to_cloudly.plugged = False
            await place.until_state("app-update/2", "succeeded")
            await place.world.sleep(days * 86_400)
            told = len(place.supervisor.told)
            assert len(place.core_on_device()) > len(place.core_at_cloudly())
            assert place.node().state == "offline"

            place.to_cloudly.plugged = True
            place.set_release("1.2.0")
            await place.until_state("app-update/3", "succeeded", within_s=1200)
            await place.until(lambda: place.core_at_cloudly() == place.core_on_device())

            assert len(place.supervisor.told) <= told + 2
            assert is_sound(place)
            with open_reader(place.home) as reader:
                await place.world.sleep(900)
                assert reader.acked(Lane.LOG).seq >= reader.head(Lane.LOG).seq - 20

    run_virtual(story)


def test_a_power_cut_at_the_same_moment_twice_is_survived(tmp_path: Path) -> None:
    """Cut while it applies, and again while it wakes up."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            place.set_release("1.1.0")
            await place.until_state("app-update/2", "applying")
            for _ in range(3):
                await place.reboot_host(off_s=1)
                await place.world.sleep(0.3)

            await place.until_state("app-update/2", "succeeded")
            assert place.world.boots == 4
            assert is_sound(place)

    run_virtual(story)
