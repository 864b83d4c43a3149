"""The decision of one check-in: yes, or a no with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cloudly.rollouts.admission import (
    Bounds,
    No,
    Standing,
    bounds,
    is_to_come,
    may_admit,
    objections,
)
from cloudly.rollouts.belief import Rollout, Slice, granting, with_counts
from cloudly.rollouts.counts import Counts
from cloudly.rollouts.membership import place
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView
from cloudly.rollouts.windows import window

T0 = 1_795_000_000_000
SALT = "5a17" * 8
ALL = Plan(phases=(Phase(name="all", share_bp=10_000),))
NODE = NodeView(node_id="n1", fleet="berlin")


def admitting(*counts: Counts, plan: Plan = ALL) -> Rollout:
    """In the last of so many phases, with these counts."""
    slices = tuple(
        Slice(name=phase.name, opened_at_ms=T0, counts=each)
        for phase, each in zip(plan.phases, counts or (Counts(),), strict=False)
    )
    return Rollout(state="admitting", rollout="7", salt=SALT, slices=slices)


def noes(found: Sequence[object]) -> list[object]:
    return [one.no for one in found]  # type: ignore[attr-defined]


def by_place(*, below_bp: int | None = None, from_bp: int = 0) -> NodeView:
    for number in range(10_000):
        at = place(SALT, f"n{number}")
        if from_bp <= at < (below_bp or 10_000):
            return NodeView(node_id=f"n{number}")
    raise AssertionError


def test_a_free_node_of_the_phase_is_admitted() -> None:
    said = may_admit(NODE, admitting(), ALL, T0)

    assert said.admitted
    assert said.phase == 0
    assert said.why == ""


@pytest.mark.parametrize(
    ("standing", "no", "about"),
    [
        (Standing(has_it=True), No.HAS_IT, "runs this release already"),
        (Standing(granted=True), No.GIVEN_ALREADY, "a node is asked once"),
        (Standing(granted=True, has_it=True), No.GIVEN_ALREADY, "a node is asked once"),
        (Standing(pinned="1.3.0 by ben"), No.PINNED, "1.3.0 by ben"),
        (Standing(never_again="rolled back"), No.NEVER_AGAIN, "rolled back"),
        (Standing(banned="release 2.0.0: eats flash"), No.BANNED, "never again anywhere: release"),
        (Standing(unpublished="2.0.0 is not in stable"), No.UNPUBLISHED, "2.0.0 is not in stable"),
        (Standing(below_floor="1.0.0"), No.BELOW_FLOOR, "it must run 1.0.0 first"),
    ],
)
def test_a_node_that_stands_aside_is_told_why(standing: Standing, no: No, about: str) -> None:
    said = may_admit(NODE, admitting(), ALL, T0, standing)

    assert said.no is no
    assert about in said.why
    assert not is_to_come(NODE, admitting(), ALL, T0, standing)


def test_a_node_that_is_not_selected_is_told_so() -> None:
    plan = ALL.model_copy(update={"selector": "fleet=paris"})

    said = may_admit(NODE, admitting(), plan, T0)

    assert said.no is No.NOT_SELECTED
    assert said.why == "it is not among fleet=paris"


@pytest.mark.parametrize(
    ("state", "no", "comes"),
    [("quarantined", No.QUARANTINED, False), ("updating", No.UPDATING, True)],
)
def test_a_node_in_such_a_state_has_to_wait(state: str, no: No, comes: bool) -> None:  # noqa: FBT001
    node = replace(NODE, state=state)

    assert may_admit(node, admitting(), ALL, T0).no is no
    assert is_to_come(node, admitting(), ALL, T0) is comes


@pytest.mark.parametrize(
    ("state", "no"),
    [
        ("draft", No.NOT_STARTED),
        ("awaiting-approval", No.NOT_STARTED),
        ("approved", No.NOT_STARTED),
        ("deciding", No.BETWEEN_PHASES),
        ("settling", No.BETWEEN_PHASES),
        ("soaking", No.BETWEEN_PHASES),
        ("awaiting-phase-approval", No.BETWEEN_PHASES),
        ("paused", No.PAUSED),
        ("halted", No.HALTED),
        ("rolling-back", No.HALTED),
        ("completed", No.FINISHED),
        ("rolled-back", No.FINISHED),
        ("aborted", No.FINISHED),
    ],
)
def test_nobody_is_admitted_in_any_other_state(state: str, no: No) -> None:
    rollout = replace(admitting(), state=state, by="ben", reason="smoke")

    said = may_admit(NODE, rollout, ALL, T0)

    assert said.no is no
    assert said.why
    assert said.phase == -1
    assert not is_to_come(NODE, rollout, ALL, T0)


def test_a_node_of_a_later_phase_is_told_which() -> None:
    plan = Plan()
    rollout = admitting(Counts(granted=1), plan=plan)

    said = may_admit(by_place(from_bp=1000, below_bp=5000), rollout, plan, T0)

    assert said.no is No.NOT_IN_PHASE
    assert "phase 'canary' is 1 %" in said.why
    assert "it comes with 'half'" in said.why
    assert may_admit(by_place(below_bp=100), rollout, plan, T0).admitted


def test_a_widened_phase_lets_a_node_of_any_place_in_and_then_no_other() -> None:
    plan = Plan()
    outsider = by_place(from_bp=5000)

    def widened(counts: Counts) -> Rollout:
        rollout = admitting(counts, plan=plan)
        return replace(rollout, slices=(replace(rollout.present, widened_at_ms=T0),))

    assert may_admit(outsider, admitting(plan=plan), plan, T0).no is No.NOT_IN_PHASE
    assert may_admit(outsider, widened(Counts()), plan, T0).admitted
    one_in_flight = widened(Counts(granted=1))
    assert may_admit(outsider, one_in_flight, plan, T0).no is No.NOT_IN_PHASE
    it_failed = widened(Counts(granted=1, failed=1))
    assert may_admit(outsider, it_failed, plan, T0).admitted
    it_succeeded = widened(Counts(granted=1, succeeded=1))
    assert may_admit(outsider, it_succeeded, plan, T0).no is No.NOT_IN_PHASE


def test_a_count_phase_is_full_with_its_count_those_of_earlier_phases_included() -> None:
    plan = Plan(
        phases=(
            Phase(name="lab", selector="label.site=lab"),
            Phase(name="ten", count=10),
            Phase(name="all", share_bp=10_000),
        )
    )
    nine = admitting(Counts(granted=4, succeeded=4), Counts(granted=5), plan=plan)

    assert may_admit(NODE, nine, plan, T0).admitted
    said = may_admit(NODE, granting(nine), plan, T0)
    assert said.no is No.PHASE_FULL
    assert said.why == "phase 'ten' has its 10 nodes"
    assert bounds(nine, plan) == Bounds(in_flight=1000, granted=10)


def test_in_a_selector_phase_only_who_is_selected_comes() -> None:
    plan = Plan(phases=(Phase(name="lab", selector="label.site=lab"),))
    lab = replace(NODE, labels={"site": "lab"})

    assert may_admit(lab, admitting(plan=plan), plan, T0).admitted
    said = may_admit(NODE, admitting(plan=plan), plan, T0)
    assert said.no is No.NOT_IN_PHASE
    assert "no phase takes it" in said.why


def test_a_closed_window_says_until_when() -> None:
    plan = ALL.model_copy(update={"windows": (window("daily 22:00-04:00 UTC"),)})
    morning = 1_795_420_800_000  # 2026-11-23 08:00 UTC

    said = may_admit(NODE, admitting(), plan, morning)

    assert said.no is No.WINDOW_CLOSED
    assert said.until_ms == morning + 14 * 3_600_000
    assert said.why == "no maintenance window is open until 2026-11-23 22:00:00 UTC"
    assert is_to_come(NODE, admitting(), plan, morning)
    assert may_admit(NODE, admitting(), plan, said.until_ms).admitted


def test_not_more_are_in_flight_than_the_plan_says() -> None:
    plan = ALL.model_copy(update={"concurrency": 3})
    rollout = admitting(Counts(granted=2))

    assert may_admit(NODE, rollout, plan, T0).admitted
    said = may_admit(NODE, granting(rollout), plan, T0)
    assert said.no is No.CONCURRENCY
    assert "3 nodes are in flight" in said.why


def test_the_very_failure_that_is_enough_stops_admission_before_the_halt_is_written() -> None:
    believed = admitting(Counts(granted=10, succeeded=2, failed=2))
    live = with_counts(believed, [Counts(granted=10, succeeded=2, failed=5)])

    assert may_admit(NODE, believed, ALL, T0).admitted
    said = may_admit(NODE, live, ALL, T0)
    assert said.no is No.EVIDENCE
    assert "5 of 10 failed" in said.why


def test_people_are_told_every_objection() -> None:
    plan = Plan(selector="fleet=paris", concurrency=1, windows=(window("sun 01:00-02:00 UTC"),))
    rollout = admitting(Counts(granted=1), plan=plan)
    outsider = replace(by_place(from_bp=5000), state="quarantined")

    told = list(objections(outsider, rollout, plan, T0, Standing(pinned="old")))

    assert noes(told) == [
        No.NOT_SELECTED,
        No.QUARANTINED,
        No.PINNED,
        No.NOT_IN_PHASE,
        No.CONCURRENCY,
        No.WINDOW_CLOSED,
    ]
    assert may_admit(outsider, rollout, plan, T0, Standing(pinned="old")) == told[0]
