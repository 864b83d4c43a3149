"""The chart of a rollout: complete, spoken for, and closed at its ends; and what an operator may order where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudly.problems import BadOrder
from cloudly.rollouts import orders
from cloudly.rollouts.belief import FINAL, Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.counts import Counts
from cloudly.rollouts.engine import foresee
from cloudly.rollouts.machine import CHART, COUNTING, MACHINE, OPEN
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.why import why
from cloudly.rollouts.words import SENTENCES, sentence
from interfaces.why import lines
from journal.problems import IllegalFact

T0 = 1_795_000_000_000


def created(plan: Plan | None = None) -> Rollout:
    plan = plan or Plan()
    return foresee(
        Rollout(),
        orders.create(plan, rollout="7", release="c0ffee", version="2.0", salt="5a17", by="anna"),
        T0,
    )


def after(rollout: Rollout, *decisions: Decision, now_ms: int = T0) -> Rollout:
    for decision in decisions:
        rollout = foresee(rollout, decision, now_ms)
    return rollout


def opened(phase: int = 0) -> Decision:
    return Decision("phase-opened", {"phase": phase, "name": "canary"})


def counted(phase: int, **more: int) -> Decision:
    return Decision(
        "outcomes-counted", {"phases": {str(phase): more}, "failures": [], "unnamed": 0}
    )


def admitting(plan: Plan | None = None) -> Rollout:
    plan = plan or Plan()
    rollout = created(plan)
    return after(rollout, orders.start(rollout, plan, by="anna"), opened())


def test_every_fact_has_a_sentence_and_no_sentence_is_for_nothing() -> None:
    kinds = {arrow.kind for arrow in CHART.arrows}

    assert set(SENTENCES) == kinds | {"late-outcome"}


def test_every_state_is_open_or_final() -> None:
    assert set(CHART.states) == {"new", *OPEN, *FINAL}


def test_nothing_follows_an_end() -> None:
    for state in FINAL:
        assert CHART.allowed(state) == ()


def test_outcomes_are_counted_wherever_nodes_may_be_in_flight() -> None:
    counting = {arrow.src for arrow in CHART.arrows if arrow.kind == "outcomes-counted"}

    assert counting == set(COUNTING)
    assert all(arrow.src == arrow.dst for arrow in CHART.arrows if arrow.kind == "outcomes-counted")


def test_only_an_opened_phase_leads_to_admitting() -> None:
    leading = {(arrow.src, arrow.kind) for arrow in CHART.arrows if arrow.dst == "admitting"}

    assert {src for src, _ in leading} == {"deciding", "admitting"}
    assert ("deciding", "phase-opened") in leading
    assert {kind for src, kind in leading if src == "deciding"} == {"phase-opened"}


def test_a_fact_that_the_chart_does_not_know_is_illegal() -> None:
    with pytest.raises(IllegalFact):
        foresee(created(), opened(), T0)


def test_a_phase_cannot_be_skipped() -> None:
    rollout = created()
    rollout = after(rollout, orders.start(rollout, Plan(), by="anna"))

    with pytest.raises(ValueError, match="phase 2 cannot follow phase -1"):
        after(rollout, opened(2))


def test_counts_below_zero_are_not_believed() -> None:
    rollout = after(admitting(), counted(0, granted=1))

    with pytest.raises(ValueError, match="cannot have counts"):
        after(rollout, counted(0, succeeded=2))


def test_a_belief_survives_as_text() -> None:
    rollout = after(admitting(), counted(0, granted=5, succeeded=2, dark=1))

    assert MACHINE.thaw(MACHINE.freeze(rollout)) == rollout


def test_a_pause_and_a_resume_open_the_same_phase_again_with_its_counts() -> None:
    rollout = after(admitting(), counted(0, granted=5, succeeded=2))

    paused = after(rollout, orders.pause(rollout, by="ben", reason="lunch"))
    again = after(paused, orders.resume(paused, by="ben"), opened(0), now_ms=T0 + 5)

    assert paused.state == "paused"
    assert (paused.by, paused.reason) == ("ben", "lunch")
    assert again.phase == 0
    assert again.present.counts == Counts(granted=5, succeeded=2)
    assert again.running_since_ms == T0 + 5
    assert again.set_aside == Counts()


def test_a_resume_after_a_halt_sets_the_evidence_aside() -> None:
    rollout = after(admitting(), counted(0, granted=9, succeeded=2, failed=4))
    halted = after(rollout, orders.halt(rollout, by="ben", reason="smoke"))

    resumed = after(halted, orders.resume(halted, by="ben", reason="it was the kettle"))

    assert halted.halts == 1
    assert resumed.set_aside == Counts(granted=9, succeeded=2, failed=4)


def test_a_halt_is_resumed_only_with_a_reason() -> None:
    rollout = admitting()
    halted = after(rollout, orders.halt(rollout, by="ben", reason="smoke"))

    with pytest.raises(BadOrder, match="say the reason"):
        orders.resume(halted, by="ben")


def test_a_plan_that_wants_approval_starts_only_with_it() -> None:
    plan = Plan(needs_approval=True)
    rollout = created(plan)

    with pytest.raises(BadOrder, match="ask for approval first"):
        orders.start(rollout, plan, by="anna")
    asked = after(rollout, orders.ask_approval(rollout, by="anna"))
    approved = after(asked, orders.approve(asked, plan, by="ben", note="looks good"))
    started = after(approved, orders.start(approved, plan, by="anna"))

    assert (asked.state, approved.state, started.state) == (
        "awaiting-approval",
        "approved",
        "deciding",
    )
    assert approved.approved_by == "ben"


def test_who_is_refused_gets_a_draft_back_with_the_reason() -> None:
    plan = Plan(needs_approval=True)
    rollout = created(plan)
    asked = after(rollout, orders.ask_approval(rollout, by="anna"))

    refused = after(asked, orders.refuse(asked, by="ben", reason="not on a Friday"))

    assert refused.state == "draft"
    answer = why(refused, plan, T0)
    assert answer is not None
    assert answer.reason == "ben: not on a Friday"


@pytest.mark.parametrize("by", ["anna", "Anna ", "ANNA"])
def test_where_a_second_person_is_wanted_nobody_approves_their_own(by: str) -> None:
    plan = Plan(needs_approval=True, second_person=True)
    rollout = created(plan)
    asked = after(rollout, orders.ask_approval(rollout, by="anna"))

    with pytest.raises(BadOrder, match="second person"):
        orders.approve(asked, plan, by=by)
    assert after(asked, orders.approve(asked, plan, by="ben")).state == "approved"


def test_an_order_that_the_state_does_not_allow_says_what_is_allowed() -> None:
    with pytest.raises(BadOrder) as caught:
        orders.pause(created(), by="ben", reason="lunch")

    assert (
        str(caught.value)
        == "pause rollout 7: it is draft; now one may: ask for approval, start, abort"
    )
    ended = replace(created(), state="completed")
    with pytest.raises(BadOrder, match="it is completed; now one may: nothing"):
        orders.roll_back(ended, by="ben", reason="regret")


def test_an_order_stands_where_the_same_person_gave_it_last_in_the_same_words() -> None:
    rollout = after(created(), orders.start(created(), Plan(), by="anna"))
    paused = after(rollout, orders.pause(rollout, by="ben", reason="lunch"))
    halted = after(paused, orders.halt(paused, by="ben", reason="lunch"))

    assert orders.stands(paused, "paused", by="ben", said="lunch")
    assert not orders.stands(paused, "paused", by="anna", said="lunch")
    assert not orders.stands(paused, "paused", by="ben", said="tea")
    assert not orders.stands(paused, "halted", by="ben", said="lunch")
    assert not orders.stands(halted, "paused", by="ben", said="lunch")
    assert not orders.stands(rollout, "started", by="anna", said="")


@pytest.mark.parametrize("order", [orders.pause, orders.halt, orders.roll_back, orders.abort])
def test_an_order_has_a_name_and_a_reason(order: Any) -> None:
    with pytest.raises(BadOrder, match="say the reason"):
        order(admitting(), by="ben", reason="  ")
    with pytest.raises(BadOrder, match="say who orders it"):
        order(admitting(), by="", reason="smoke")
    with pytest.raises(BadOrder, match="at most 500"):
        order(admitting(), by="ben", reason="x" * 501)


@pytest.mark.parametrize("state", [state for state in CHART.states if state not in FINAL])
def test_every_state_that_is_not_final_says_why(state: str) -> None:
    rollout = replace(admitting(), state=state)

    answer = why(rollout, Plan(), T0, tried=("then: something",))

    assert answer is not None
    text = lines(answer, now_ms=T0)
    assert text[0] == f"rollout/7 is {state}"
    assert any(line.strip().startswith("waits for") for line in text)


def test_a_rollout_that_has_ended_waits_for_nothing() -> None:
    rollout = admitting()

    assert why(after(rollout, orders.abort(rollout, by="ben", reason="no")), Plan(), T0) is None


def test_a_fact_is_told_with_its_phase_counted_from_one() -> None:
    data = {
        "phases": {"0": {"granted": 3, "rolled_back": 1}},
        "failures": [["n1", "rolled_back", "health check failed"]],
        "unnamed": 4,
    }

    assert sentence("phase-filled", {"phase": 0}) == "phase 1 is filled: nobody more is let in"
    assert sentence("outcomes-counted", data) == (
        "phase 1: 3 granted, 1 rolled back (node n1 rolled_back: health check failed; and 4 more)"
    )
    assert sentence("approved", {"by": "ben", "note": ""}) == "ben approved it"
    assert sentence("teleported", {"to": "mars"}) == "to=mars"
    assert sentence("halted", {}) == "? halted it (?): ?"
