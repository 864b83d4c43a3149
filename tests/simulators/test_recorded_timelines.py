"""The recorded timelines of real updates, replayed: the same states, in the same order, at about the same time.

The recorder looked every 100 to 300 ms, the test looks every 50 ms. So every recorded state must be found in the
simulated timeline, in order; and what is simulated but not recorded must be one of the moments that are over before
the recorder looked again, or one of the rows in `UNSEEN`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from simulators.world import run_virtual
from tests.simulators.lab import SHARED, Lab, a_lab, no_app, target
from tests.simulators.timelines import PATHS, Seen, Timeline, matched, recorded_timeline, watched

Story = Callable[[Lab], Awaitable[Timeline]]

MOMENTS: Final = ('"Downloading"', '"Installing"', '"Installed"', '"Starting"', '"Deleting"')

UNSEEN: Final = {
    ("apply_release1", "/v2/applications/1001/state"): 1,  # applying, and not yet downloading
    ("update_r1_to_r2", "/v2/state/status"): 1,  # applying, and not yet downloading
    ("update_r1_to_r2", "/v2/applications/state"): 1,  # the state before the update
    ("back_to_release1_uniquerepo", "/v2/applications/state"): 1,  # the target known, its image not
}
"""How many simulated states, other than moments, were not recorded."""

NOT_COMPARED: Final = {
    ("update_r2_to_r3_locked", "/v2/applications/state", 1.17): (
        "`updateStatus: done` beside a service that is Downloading 100: the recorded Supervisor read its tables"
        " while they changed; it is not a state"
    ),
}

TOLERANCE_S: Final = 2.5
LOOPS: Final = ("update_release2", "back_to_release1_uniquerepo")
"""Here the same two states alternate for ever, and the recorder missed most of them: only the order is compared."""


async def apply_release1(lab: Lab) -> Timeline:
    await no_app(lab)
    return await _to(lab, target(1, SHARED[1]), 12)


async def update_r1_to_r2(lab: Lab) -> Timeline:
    await lab.apply(target(1))
    return await _to(lab, target(2), 14)


async def update_release2(lab: Lab) -> Timeline:
    await lab.apply(target(1, SHARED[1]))
    return await _to(lab, target(2, SHARED[2]), 30)


async def back_to_release1_uniquerepo(lab: Lab) -> Timeline:
    await lab.apply(target(1, SHARED[1]))
    await _set(lab, target(2, SHARED[2]))
    await lab.pass_(30)
    await lab.until(lambda: lab.supervisor.applier.waits)
    return await _to(lab, target(1), 30)


async def update_r2_to_r3_locked(lab: Lab) -> Timeline:
    await lab.apply(target(2))
    lab.lock()
    return await _to(lab, target(3), 25)


async def update_r2_to_r3_force(lab: Lab) -> Timeline:
    await _locked_for_25_s(lab)
    return await watched(lab, {"force": True}, 28)


async def update_r2_to_r3_force_cancel(lab: Lab) -> Timeline:
    await _locked_for_25_s(lab)
    assert await lab.update(force=True) == 204
    await lab.pass_(28)
    return await watched(lab, {"force": True, "cancel": True}, 20)


async def _to(lab: Lab, body: object, seconds: float) -> Timeline:
    assert lab.source is not None
    lab.source.set_target(body)
    return await watched(lab, None, seconds)


async def _set(lab: Lab, body: object) -> None:
    assert lab.source is not None
    lab.source.set_target(body)
    assert await lab.update() == 204


async def _locked_for_25_s(lab: Lab) -> None:
    await lab.apply(target(2))
    lab.lock()
    await _set(lab, target(3))
    await lab.pass_(25)


STORIES: Final[tuple[Story, ...]] = (
    apply_release1,
    update_r1_to_r2,
    update_release2,
    back_to_release1_uniquerepo,
    update_r2_to_r3_locked,
    update_r2_to_r3_force,
    update_r2_to_r3_force_cancel,
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Story], Timeline]:
    """Each story is simulated once."""
    known: dict[str, Timeline] = {}

    async def tell(story: Story) -> Timeline:
        async with a_lab(tmp_path_factory.mktemp("lab")) as lab:
            return await story(lab)

    def get(story: Story) -> Timeline:
        name = story.__name__
        if name not in known:
            known[name] = run_virtual(tell, story)
        return known[name]

    return get


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
class TestAnUpdate:
    def test_goes_through_the_recorded_states_in_their_order(
        self, simulated: Callable[[Story], Timeline], story: Story, path: str
    ) -> None:
        name = story.__name__

        for recorded, ours in matched(_recorded(name, path), simulated(story).by_path[path]):
            assert ours is not None, f"not simulated: {recorded.at_s} s {recorded.state}"
            if name not in LOOPS:
                assert abs(recorded.at_s - ours.at_s) <= TOLERANCE_S, recorded.state

    def test_goes_through_no_state_that_could_have_been_recorded_and_was_not(
        self, simulated: Callable[[Story], Timeline], story: Story, path: str
    ) -> None:
        name = story.__name__
        known = {seen.state for seen in recorded_timeline(name).by_path[path]}

        unknown = [state for state in simulated(story).states(path) if state not in known]
        lasting = [state for state in unknown if not any(moment in state for moment in MOMENTS)]

        assert len(lasting) == UNSEEN.get((name, path), 0), lasting


def _recorded(name: str, path: str) -> list[Seen]:
    seen = recorded_timeline(name).by_path[path]
    return [row for row in seen if (name, path, row.at_s) not in NOT_COMPARED]


def test_every_recorded_timeline_is_replayed() -> None:
    from tests.simulators.lab import RECORDINGS

    files = (RECORDINGS / "device-api").glob("TIMELINE_*.json")

    assert {story.__name__ for story in STORIES} == {
        file.stem.removeprefix("TIMELINE_") for file in files
    }


def test_the_comparison_sees_a_state_in_the_wrong_place() -> None:
    seen = recorded_timeline("update_r1_to_r2").by_path["/v2/state/status"]
    swapped = [*seen[:3], seen[4], seen[3], *seen[5:]]

    pairs = matched(seen, swapped)

    assert pairs[-1][1] is None
