"""The charts: complete, spoken for, and pure."""

from __future__ import annotations

import pytest

from baserunner.machines import MACHINES
from baserunner.words import SENTENCES, sentence

CHARTS = [known.machine.chart for known in MACHINES.values()]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_fact_has_a_sentence(chart: object) -> None:
    kinds = {arrow.kind for arrow in chart.arrows}  # type: ignore[attr-defined]

    assert kinds <= set(SENTENCES)


def test_no_sentence_is_for_a_fact_that_cannot_happen() -> None:
    kinds = {arrow.kind for chart in CHARTS for arrow in chart.arrows}

    assert set(SENTENCES) - kinds == {
        "disk-full",
        "epoch-began",
        "heartbeats-summarised",
        "lines",
        "progressed",
        "salvaged",
        "stream-lost",
    }


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_state_that_is_not_final_has_a_known_owner(chart: object) -> None:
    owners = {waits.owner for waits in chart.waits.values()}  # type: ignore[attr-defined]

    assert owners <= {"us", "supervisor", "host", "cloudly", "onebox", "operator"}


@pytest.mark.parametrize("name", MACHINES)
def test_every_waiting_state_answers_how_long(name: str) -> None:
    known = MACHINES[name]

    for state in known.machine.chart.waits:
        limit = known.deadline_s(state, known.machine.start)
        assert limit is None or limit >= 0


def test_a_fact_of_a_newer_agent_is_shown_by_its_values() -> None:
    assert sentence("teleported", {"to": "mars"}) == "to=mars"


def test_a_fact_that_lacks_a_value_is_still_a_sentence() -> None:
    assert sentence("enrolled", {}) == "enrolled as node ?, node token generation ?"
