"""Plans: careful where nobody said anything, and refused where they cannot work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from cloudly.problems import BadOrder
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.engine import foresee
from cloudly.rollouts.orders import create
from cloudly.rollouts.phases import Phase, phase
from cloudly.rollouts.plan import SEEN_LATE_S, HaltPolicy, Plan, made, read
from cloudly.rollouts.windows import window


def test_with_nothing_said_a_plan_is_a_canary_then_tenth_half_and_all() -> None:
    plan = Plan()

    assert [each.size for each in plan.phases] == ["1 %", "10 %", "50 %", "100 %"]
    assert all(each.soak_s == 3600 and each.at_least == 1 for each in plan.phases)
    assert plan.covers_all
    assert plan.halt.dark_counts


def test_a_plan_reads_back_as_it_was() -> None:
    plan = made(
        selector=" label.site = lab ",
        phases=(phase("lab:label.rack=1|2", 1), phase("25", 2), phase("canary:0.5%", 3)),
        windows=(window("mon-fri 22:00-04:00 Europe/Berlin"),),
    )

    again = read(plan.text())

    assert again == plan
    assert again.selector == "label.site=lab"
    assert [each.name for each in again.phases] == ["lab", "phase-2", "canary"]
    assert again.phases[2].share_bp == 50
    assert not again.covers_all


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ({"phases": []}, "phases:"),
        ({"phases": [{"name": "a", "share_bp": 500}, {"name": "b", "share_bp": 400}]}, "'b' (4 %) must be larger"),
        ({"phases": [{"name": "a", "share_bp": 500}, {"name": "b", "share_bp": 500}]}, "must be larger"),
        ({"phases": [{"name": "a", "count": 50}, {"name": "b", "count": 5}]}, "'b' (5 nodes) must be larger"),
        ({"phases": [{"name": "a", "share_bp": 500}, {"name": "b", "count": 5}]}, "selectors come first"),
        ({"phases": [{"name": "a", "count": 5}, {"name": "b", "selector": "fleet=x"}]}, "selectors come first"),
        ({"phases": [{"name": "a", "selector": "node=x"}, {"name": "b", "selector": "node = x"}]}, "an earlier"),
        ({"phases": [{"name": "a", "count": 5}, {"name": "a", "count": 6}]}, "two phases are named 'a'"),
        ({"phases": [{"name": "a", "count": 0}]}, "phases.0.count"),
        ({"phases": [{"name": "a", "share_bp": 0}]}, "phases.0.share_bp"),
        ({"phases": [{"name": "a", "share_bp": 10_001}]}, "phases.0.share_bp"),
        ({"phases": [{"name": "a"}]}, "either a share, or a count, or a selector"),
        ({"phases": [{"name": "a", "count": 1, "share_bp": 1}]}, "either a share, or a count, or a selector"),
        ({"phases": [{"name": "a", "selector": ""}]}, "all nodes are 100 %"),
        ({"phases": [{"name": "a", "selector": "site=x"}]}, "column 1"),
        ({"phases": [{"name": "a b", "count": 1}]}, "phases.0.name"),
        ({"selector": "fleet="}, "column 7"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurency": 5}, "concurency"),
        ({"concurrency": "5"}, "concurrency"),
        ({"dark_after_s": 7200, "node_deadline_s": 3600}, "overdue before it is dark"),
        ({"deadline_s": 3600}, "the soaks alone last 14400 s"),
        ({"windows": [{"days": [], "start": "01:00", "end": "02:00"}]}, "never opens"),
        ({"windows": [{"days": ["mon"], "start": "01:00", "end": "01:00"}]}, "never opens"),
        ({"windows": [{"days": ["mon"], "start": "25:00", "end": "01:00"}]}, "HH:MM"),
        ({"windows": [{"days": ["mon"], "start": "01:00", "end": "02:00", "zone": "Mars/Base"}]}, "time zone"),
        ({"halt": {"base_rate": 0.0}}, "halt.base_rate"),
        ({"halt": {"base_rate": 0.2, "worst_rate": 0.1}}, "worst_rate must be above base_rate"),
        ({"halt": {"min_failures": 5, "most_failures": 3}}, "most_failures must be at least min_failures"),
        ({"halt": {"alpha": 0.5}}, "halt.alpha"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_its_place(said: dict[str, Any], about: str) -> None:
    with pytest.raises(BadOrder) as caught:
        read(json.dumps(said))

    assert about in str(caught.value)
    assert "nothing was changed" in str(caught.value)


def test_a_plan_that_would_not_fit_into_a_fact_is_refused() -> None:
    names = "|".join(f"node-{number:018}" for number in range(80))
    phases = [{"name": f"p{number}", "selector": f"node={number}|{names}"} for number in range(30)]

    with pytest.raises(BadOrder, match="characters long"):
        read(json.dumps({"phases": phases}))
    fits = read(json.dumps({"phases": phases[:15]}))
    order = create(fits, rollout="7", release="c0ffee", version="2", salt="5a17" * 8, by="anna")
    assert foresee(Rollout(), order, 0).state == "draft"


def test_what_is_refused_is_not_echoed() -> None:
    with pytest.raises(BadOrder) as caught:
        read('{"concurrency": "canary-secret-0815"}')

    assert "canary-secret" not in str(caught.value)


def test_a_plan_never_changes() -> None:
    with pytest.raises(ValidationError):
        Plan().concurrency = 5  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "0%", "101%", "canary:", "0", "0.001%", "site=lab"])
def test_a_phase_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadOrder):
        phase(text, 1)


def test_with_nothing_said_a_node_that_dies_in_a_soak_is_seen_in_it() -> None:
    plan = Plan()

    assert all(each.soak_s > plan.dark_after_s + SEEN_LATE_S for each in plan.phases)
    assert plan.warnings() == ()


@pytest.mark.parametrize(
    ("soak_s", "halt", "warns"),
    [
        (960, HaltPolicy(), True),
        (961, HaltPolicy(), False),
        (0, HaltPolicy(), False),
        (60, HaltPolicy(dark_counts=False), False),
    ],
)
def test_a_soak_in_which_nobody_can_go_dark_is_warned_of(
    soak_s: int, halt: HaltPolicy, *, warns: bool
) -> None:
    plan = Plan(phases=(Phase(name="all", share_bp=10_000, soak_s=soak_s),), halt=halt)

    told = plan.warnings()

    assert len(told) == warns
    assert all("soak of all is not seen" in one and "--dark-after" in one for one in told)
    assert read(plan.text()) == plan
