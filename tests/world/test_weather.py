"""Seeded storms: whatever fails, every order ends, Cloudly has the same story, and nobody is told twice in haste."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr

from baserunner import updates
from baserunner.app_update.machine import CHART
from baserunner.app_update.steps import AppUpdateSteps
from baserunner.neighbours.cloudly import HttpCloudly
from baserunner.problems import Unreachable
from baserunner.shipping import Shipper
from interfaces.journal import Ack, JournalAnswer, JournalBatch
from interfaces.world import RealWorld, new_id
from journal.facts import Fact, Lane
from simulators.weather import Fault
from simulators.world import run_virtual
from tests.world.kit import Place, a_place
from tests.world.storm import POLICY, Storm

FAST_SEEDS = {
    11: "",
    12: "downloading",
    13: "applying",
    14: "verifying",
    15: "rolling-back",
    16: "",
}
"""In which state of the second update each of them kills; without one it is any moment of the story."""
PLANTED_SEED = 21
FRESH_WORLDS, SHARES = 20, 6
"""In shares, so that cores divide them."""
FINAL = tuple(CHART.final)
LONG_S = 4000.0

# -- long storms -----------------------------------------------------------------------------------


def storm(
    root: Path,
    seed: int | str,
    days: float,
    *,
    crashes_a_day: float = 3.0,
    releases_a_day: float = 1.0,
) -> tuple[Storm, list[str], list[Fact]]:
    """Live through it; the storm, what is wrong, and the whole journal."""
    root.mkdir(parents=True, exist_ok=True)

    async def story() -> tuple[Storm, list[str], list[Fact]]:
        async with a_place(root, seed=seed, every_s=1800) as place:
            place.supervisor_poll_s = 5
            raging = Storm(
                place, seed, days, crashes_a_day=crashes_a_day, releases_a_day=releases_a_day
            )
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled", within_s=86_400, look_s=30)
            await raging.rage()
            return raging, raging.wrong(), raging.facts()

    return run_virtual(story)


def has_raged(seen: Storm, *, days: int) -> None:
    """Assert that the storm was one."""
    fired = seen.fired
    assert fired["crash"] + fired["power-cut"] >= days
    assert fired["clock-jump"] >= days
    assert sum(n for what, n in fired.items() if what.startswith("release")) >= days / 2
    assert fired["cloudly partition"] >= days / 2
    assert sum(n for what, n in fired.items() if what.startswith("cloudly")) >= 15 * days
    assert sum(n for what, n in fired.items() if what.startswith("supervisor")) >= days


@pytest.mark.usefixtures("unhurried")
def test_two_days_of_storm(tmp_path: Path) -> None:
    seen, wrong, _ = storm(tmp_path / "one", 2, 2, releases_a_day=4, crashes_a_day=8)

    assert wrong == []
    has_raged(seen, days=2)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_storm_that_nobody_has_seen_before(tmp_path: Path) -> None:
    seed = new_id(RealWorld())[:8]
    print(f"seed {seed}")  # noqa: T201 - a seed is printed
    seen, wrong, _ = storm(tmp_path / "one", seed, 10)

    assert wrong == []
    has_raged(seen, days=10)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_thirty_days_of_storm(tmp_path: Path) -> None:
    seen, wrong, facts = storm(tmp_path / "one", 30, 30)

    assert wrong == []
    has_raged(seen, days=30)
    every_fault = {f"cloudly {fault}" for fault in Fault}
    assert every_fault - set(seen.fired) == set()
    print(f"{len(facts)} facts, {dict(seen.fired)}")  # noqa: T201


# -- short worlds: one kill at a moment drawn from the seed ----------------------------------------


def a_short_world(
    root: Path, seed: int | str, *, kill_in: str = "", loss: float = 0.1
) -> tuple[list[str], list[Fact]]:
    """An update and a rollback with bad lines, a kill (or a power cut) on the way, then fine weather.

    The kill falls into that state of the second update, or at a moment drawn from the seed.

    What is wrong at the end, in words; and the whole journal.
    """
    root.mkdir(parents=True)

    async def story() -> tuple[list[str], list[Fact]]:
        async with a_place(root, seed=seed, every_s=20) as place:
            raging = Storm(place, seed, 0, loss=loss)
            place.start_agent()
            with anyio.move_on_after(LONG_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(kill_once, raging, kill_in)
                    await update_and_roll_back(place)
            await raging.clear_up(step_s=60)
            found = raging.wrong()
            if raging.fired["crash"] + raging.fired["power-cut"] != 1:
                found.append(f"seed {seed}: the kill did not fire")
            ends = [place.state(name) for name in ("app-update/1", "app-update/2")]
            if ends != ["succeeded", "rolled-back"]:
                found.append(f"seed {seed}: it ended as {ends}")
            return found, place.facts()

    return run_virtual(story)


async def update_and_roll_back(place: Place) -> None:
    await place.until_state("enrollment/1", "enrolled", within_s=2 * LONG_S, look_s=1)
    place.set_release("1.0.0", policy=POLICY)
    await place.until_state("app-update/1", *FINAL, within_s=2 * LONG_S, look_s=1)
    place.set_release("1.1.0", policy=POLICY, behaviour="crash-after-start")
    await place.until_state("app-update/2", *FINAL, within_s=2 * LONG_S, look_s=1)


async def kill_once(raging: Storm, kill_in: str) -> None:
    """Where in the story it falls is the seed's to say."""
    if kill_in:
        await raging.place.until_state("app-update/2", kill_in, within_s=LONG_S)
        await raging.place.world.sleep(raging.chance.uniform(0.0, 0.5))
    else:
        await raging.place.world.sleep(raging.chance.uniform(0.0, 150.0))
    await raging.crash()


def test_a_kill_is_survived_in_every_state_and_at_any_moment(tmp_path: Path) -> None:
    wrong: list[str] = []
    for seed, state in FAST_SEEDS.items():
        wrong += a_short_world(tmp_path / str(seed), seed, kill_in=state)[0]

    assert wrong == []


def test_the_same_seed_is_the_same_story_to_the_last_hash(tmp_path: Path) -> None:
    _, once = a_short_world(tmp_path / "once", "twice")
    _, again = a_short_world(tmp_path / "again", "twice")
    _, another = a_short_world(tmp_path / "another", "thrice")

    assert len(once) > 50
    assert once == again
    assert once != another


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_kill_at_many_random_moments_is_survived(tmp_path: Path, share: int) -> None:
    del share  # each draws seeds of its own
    first = int.from_bytes(RealWorld().random_bytes(4))
    seeds = range(first, first + FRESH_WORLDS)
    print(f"seeds {seeds}")  # noqa: T201 - a seed is printed
    wrong = []
    for seed in seeds:
        wrong += a_short_world(tmp_path / str(seed), seed)[0]
        shutil.rmtree(tmp_path / str(seed))

    assert wrong == []


# -- planted defects: a harness that stays green with them is worth nothing -------------------------


def tell_at_every_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AppUpdateSteps, "_should_tell", lambda *_, **__: True)


def take_no_answer_for_an_ack(patch: pytest.MonkeyPatch) -> None:
    """A shipper that believes a batch has arrived when it has heard nothing, and never looks back."""
    ship, acked = HttpCloudly.ship, Shipper.acked

    async def optimistic(self: HttpCloudly, batch: JournalBatch, token: SecretStr) -> JournalAnswer:
        try:
            return await ship(self, batch, token)
        except Unreachable:
            last = batch.events[-1]
            ack = Ack(epoch=batch.epoch, lane=batch.lane, seq=last.seq, hash=last.hash)
            return JournalAnswer(incarnation="none", ack=ack)

    def forward_only(self: Shipper, ack: Ack) -> None:
        if ack.seq > self.journal.acked(Lane(ack.lane.value)).seq:
            acked(self, ack)

    patch.setattr(HttpCloudly, "ship", optimistic)
    patch.setattr(Shipper, "acked", forward_only)


def call_a_kill_a_failure(patch: pytest.MonkeyPatch) -> None:
    """Mender's: whatever is found open at the start is ended as failed."""
    found = updates.Updates._open_update

    def ended(self: updates.Updates) -> None:
        stream = found(self)
        if stream is not None and stream.state == "downloading":
            stream.record("download-failed", {"deployment": "", "reason": "interrupted"})

    patch.setattr(updates.Updates, "_open_update", ended)


@pytest.mark.parametrize(
    ("plant", "kill_in", "loss", "symptom"),
    [
        (tell_at_every_look, "", 0.1, "told again too soon"),
        (take_no_answer_for_an_ack, "verifying", 0.4, "core facts"),
        (call_a_kill_a_failure, "downloading", 0.1, "it ended as"),
    ],
)
def test_a_planted_defect_turns_the_weather_red(
    tmp_path: Path,
    plant: Callable[[pytest.MonkeyPatch], None],
    kill_in: str,
    loss: float,
    symptom: str,
) -> None:
    """The same world is green without it."""
    well, _ = a_short_world(tmp_path / "well", PLANTED_SEED, kill_in=kill_in, loss=loss)
    assert well == []

    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        wrong, _ = a_short_world(tmp_path / "planted", PLANTED_SEED, kill_in=kill_in, loss=loss)
    assert any(symptom in fault for fault in wrong), f"it is green with it: {wrong}"
