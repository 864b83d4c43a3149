"""The agent's heartbeats keep their rhythm whatever a neighbour does: the benchmark's figures, bounded."""

from __future__ import annotations

import os

import pytest

from benchmarks.bench_local_api import MOST_GAP_S, Told, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="the attackers have uids of their own"),
]

SECONDS = 3.0
PATIENCE = 2.0
"""A machine of tests is busier than one of measurements."""


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    return run(SECONDS)


def test_heartbeats_keep_their_rhythm_under_every_attack(told: dict[str, Told]) -> None:
    longest = {name: max(one.gaps) for name, one in told.items()}

    assert len(longest) == 7
    assert {name: gap for name, gap in longest.items() if gap > MOST_GAP_S * PATIENCE} == {}


def test_the_attacks_happened_and_were_refused_or_shed(told: dict[str, Told]) -> None:
    seen = {name: one.seen for name, one in told.items() if one.seen}

    assert sum(seen["no token"].values()) > 500 * SECONDS
    assert seen["no token"]["200"] == seen["an old token"]["200"] == 0
    assert min(seen["no token"]["401"], seen["an old token"]["401"]) > 0
    assert seen["another uid, with the token"]["200"] == 0
    assert seen["another uid, with the token"]["403"] > 0
    assert 0 < seen["a neighbour gone mad, with the token"]["200"] < 50 * SECONDS
    assert seen["bodies of 10 MB, with the token"]["413"] > 0


def test_a_neighbour_of_another_uid_is_served_all_the_while(told: dict[str, Told]) -> None:
    assert all(one.served for one in told.values())
