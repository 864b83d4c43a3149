"""A bounded share of the power cuts and kills (`make power-cuts`, `make kills`: 200 each), and what turns them red."""

from __future__ import annotations

import random  # noqa: TID251 - the seed is printed
from pathlib import Path

import pytest

from tests.kill.run_ordeals import NotHere, in_words, many

pytestmark = pytest.mark.slow

TIMES = 12


def ordeal(place: Path, how: str, times: int, plant: str = "") -> tuple[list[str], str]:
    """What is wrong, and the figures. Without root or a loop device nothing is cut, and pytest's summary says so."""
    seed = random.SystemRandom().randrange(1_000_000)
    try:
        outcomes = many(place, how, times, seed, plant)
    except NotHere as problem:
        pytest.skip(f"no power was cut: {NotHere.__doc__} {problem}")
    said = in_words(how, seed, outcomes)
    assert sum(outcome.interruptions for outcome in outcomes) == times, said
    assert sum(outcome.acknowledged for outcome in outcomes) > 0, said
    return [what for outcome in outcomes for what in outcome.wrong], said


@pytest.mark.parametrize("how", ["power", "kill"])
def test_after_any_interruption_all_acknowledged_facts_are_there_and_the_story_goes_on(
    tmp_path: Path, how: str
) -> None:
    wrong, said = ordeal(tmp_path, how, TIMES)

    print(said)  # noqa: T201 - the seed and the figures
    assert not wrong, said


@pytest.mark.parametrize(
    ("how", "plant"), [("power", "nothing-is-synced"), ("kill", "told-too-early")]
)
def test_a_planted_defect_turns_an_ordeal_red(tmp_path: Path, how: str, plant: str) -> None:
    wrong, said = ordeal(tmp_path, how, 6, plant)

    assert any("acknowledged facts were lost" in what for what in wrong), said
