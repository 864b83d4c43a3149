"""The main story, end to end in virtual time."""

from __future__ import annotations

from pathlib import Path

from simulators.world import run_virtual
from tests.world.kit import a_place, commit_of


def test_a_device_enrolls_updates_and_cloudly_has_the_same_story(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")

            place.set_release("1.1.0")
            await place.until_state("app-update/2", "succeeded")

            assert place.kinds("app-update/2") == [
                "offered",
                "admitted",
                "download-requested",
                "staged",
                "apply-requested",
                "applied",
                "health-passed",
            ]
            assert place.cancels() <= 2

    run_virtual(story)


def test_a_release_that_crashes_is_rolled_back_to_the_last_good_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")

            place.set_release("1.1.0", behaviour="crash-after-start")
            await place.until_state("app-update/2", "rolled-back")

            last = place.facts("app-update/2")[-1]
            assert last.values["release"] == commit_of("1.0.0")
            assert place.kinds("app-update/2")[-3:] == [
                "health-failed",
                "rollback-requested",
                "rolled-back",
            ]

    run_virtual(story)
