"""What the leading process writes, story by story."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cloudly.rollouts import orders
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import (
    MOST_NAMED,
    Bad,
    Decision,
    Grant,
    Observed,
    Sweep,
    late_outcome,
)
from cloudly.rollouts.counts import Counts, Outcome
from cloudly.rollouts.engine import foresee, next_facts
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.why import why
from journal.facts import MAX_DATA, canonical

T0 = 1_795_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR


class Leader:
    """A rollout that is led by hand: what is seen, and what was written."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.now_ms = T0
        self.rollout = Rollout()
        self.story: list[str] = []
        self.last: tuple[Decision, ...] = ()
        self.write(
            [
                orders.create(
                    self.plan, rollout="7", release="c0ffee", version="2", salt="5a17", by="anna"
                )
            ]
        )
        self.write([orders.start(self.rollout, self.plan, by="anna")])

    def write(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            self.rollout = foresee(self.rollout, decision, self.now_ms)
            self.story.append(decision.kind)

    def sees(
        self, *counts: Counts, after_ms: int = 0, to_come: int | None = None, **seen: Any
    ) -> list[str]:
        """The kinds that it writes. `to_come`: what a sweep found just now."""
        self.now_ms += after_ms
        known = counts or tuple(each.counts for each in self.rollout.slices)
        phase = self.rollout.phase
        sweep = (
            None if to_come is None else Sweep(phase, self.now_ms, known[phase].settled, to_come)
        )
        observed = Observed(counts=known, sweep=sweep, **({"watched_ms": self.now_ms} | seen))
        self.last = next_facts(self.rollout, self.plan, observed, self.now_ms)
        assert self.last == next_facts(self.rollout, self.plan, observed, self.now_ms)
        self.write(self.last)
        return [decision.kind for decision in self.last]


def one_phase(**said: Any) -> Plan:
    return Plan(phases=(Phase(name="all", share_bp=10_000),), **said)


def two_counts(**said: Any) -> Plan:
    return Plan(phases=(Phase(name="two", count=2), Phase(name="ten", count=10, **said)))


def test_a_good_rollout_opens_fills_settles_soaks_and_completes() -> None:
    leader = Leader(two_counts())

    assert leader.sees() == ["phase-opened"]
    assert leader.sees(Counts(granted=1)) == ["outcomes-counted"]
    assert leader.sees(Counts(granted=2)) == ["outcomes-counted", "phase-filled"]
    assert leader.sees(Counts(granted=2, succeeded=1)) == ["outcomes-counted"]
    assert leader.sees(Counts(granted=2, succeeded=2)) == ["outcomes-counted", "settled"]
    assert leader.sees(after_ms=HOUR - 1) == []
    assert leader.sees(after_ms=1) == ["soak-passed", "phase-opened"]
    assert leader.sees(Counts(granted=2, succeeded=2), Counts(granted=8)) == [
        "outcomes-counted",
        "phase-filled",
    ]
    assert leader.sees(Counts(granted=2, succeeded=2), Counts(granted=8, succeeded=8)) == [
        "outcomes-counted",
        "settled",
    ]
    assert leader.sees(after_ms=HOUR) == ["soak-passed", "completed"]
    assert leader.rollout.state == "completed"
    assert leader.sees(Counts(granted=99, failed=99)) == []


def test_a_phase_is_filled_when_a_sweep_of_this_phase_found_nobody_more() -> None:
    leader = Leader()
    leader.sees()
    good = Counts(granted=3, succeeded=3)

    assert leader.sees(good, to_come=4) == ["outcomes-counted"]
    assert leader.sees(good) == []
    earlier = Observed(counts=(good,), sweep=Sweep(-1, T0, settled=3, to_come=0))
    before_it_opened = Observed(counts=(good,), sweep=Sweep(0, T0 - 1, settled=3, to_come=0))
    for stale in (earlier, before_it_opened):
        assert next_facts(leader.rollout, leader.plan, stale, leader.now_ms) == ()
    assert leader.sees(good, to_come=0) == ["phase-filled", "settled"]


def test_an_empty_first_phase_waves_nothing_through() -> None:
    leader = Leader()
    leader.sees()

    assert leader.sees(to_come=0, after_ms=DAY) == ["phase-widened"]
    assert leader.sees(to_come=0, after_ms=DAY) == []
    answer = why(leader.rollout, leader.plan, leader.now_ms)
    assert answer is not None
    assert "no node of the phase has come yet" in answer.waits_for


def test_a_later_phase_that_adds_nobody_passes_after_its_soak() -> None:
    leader = Leader()
    leader.sees()
    leader.sees(Counts(granted=1, succeeded=1), to_come=0)
    leader.sees(after_ms=HOUR)
    assert leader.rollout.phase == 1

    assert leader.sees(to_come=0) == ["phase-widened"]
    assert leader.sees(to_come=0, after_ms=1) == ["phase-filled", "settled"]


def test_a_canary_that_fails_alone_is_followed_by_another_as_long_as_the_evidence_allows() -> None:
    leader = Leader()
    leader.sees()

    assert leader.sees(Counts(granted=1), to_come=0) == ["outcomes-counted"]
    assert leader.sees(Counts(granted=1, failed=1), to_come=0) == [
        "outcomes-counted",
        "phase-widened",
    ]
    assert leader.sees(to_come=19, after_ms=1) == []
    assert leader.sees(Counts(granted=2, failed=2), to_come=18) == ["outcomes-counted"]
    assert leader.sees(Counts(granted=3, failed=3), to_come=17) == ["outcomes-counted", "halted"]
    assert leader.rollout.reason.startswith("3 of 3 failed (100 %")


def test_a_sweep_from_before_a_failure_does_not_tell_that_nobody_is_left_to_try() -> None:
    leader = Leader()
    leader.sees()
    leader.sees(Counts(granted=1), to_come=0)
    failed = Counts(granted=1, failed=1)

    before = Observed(counts=(failed,), sweep=Sweep(0, T0, settled=0, to_come=0))

    decisions = next_facts(leader.rollout, leader.plan, before, leader.now_ms)
    assert [decision.kind for decision in decisions] == ["outcomes-counted"]
    assert leader.sees(failed, to_come=0) == ["outcomes-counted", "phase-widened"]


def test_a_sweep_from_before_a_phase_was_widened_does_not_fill_it() -> None:
    leader = Leader()
    leader.sees()
    leader.sees(Counts(granted=1, failed=1), to_come=0, after_ms=5)
    assert leader.rollout.present.widened_at_ms == T0 + 5

    before = Observed(sweep=Sweep(0, T0 + 5, settled=1, to_come=0))

    assert next_facts(leader.rollout, leader.plan, before, T0 + 6) == ()
    assert leader.sees(to_come=0, after_ms=1) == ["phase-filled", "phase-approval-asked"]


def test_a_phase_of_which_nobody_succeeded_asks_a_person() -> None:
    leader = Leader(two_counts())
    leader.sees()

    written = leader.sees(Counts(granted=2, failed=2))

    assert written == ["outcomes-counted", "phase-filled", "phase-approval-asked"]
    assert "none of the 2 nodes of phase 'two' succeeded" in leader.rollout.approval_reason
    assert leader.sees(after_ms=HOUR) == []
    leader.write([orders.approve_phase(leader.rollout, leader.plan, by="ben", note="known")])
    assert leader.sees() == ["phase-opened"]
    assert leader.rollout.phase == 1


def test_a_last_phase_of_which_nobody_succeeded_is_completed_only_by_a_persons_yes() -> None:
    leader = Leader(Plan(phases=(Phase(name="two", count=2),)))
    leader.sees()
    leader.sees(Counts(granted=2, failed=2))

    assert leader.rollout.state == "awaiting-phase-approval"
    leader.write([orders.approve_phase(leader.rollout, leader.plan, by="ben")])
    assert leader.sees() == ["completed"]


def test_a_phase_that_needs_a_yes_waits_for_it() -> None:
    leader = Leader(two_counts(needs_approval=True))
    leader.sees()
    leader.sees(Counts(granted=2, succeeded=2))

    assert leader.sees(after_ms=HOUR) == ["soak-passed", "phase-approval-asked"]
    leader.write([orders.pause(leader.rollout, by="ben", reason="lunch")])
    leader.write([orders.resume(leader.rollout, by="ben")])
    assert leader.sees() == ["phase-approval-asked"]
    leader.write([orders.approve_phase(leader.rollout, leader.plan, by="ben")])
    assert leader.sees() == ["phase-opened"]


def test_a_failure_that_is_known_comes_before_a_phase_that_would_pass() -> None:
    leader = Leader(two_counts())
    leader.sees()
    leader.sees(Counts(granted=2, succeeded=2))

    written = leader.sees(Counts(granted=2, relapsed=2), after_ms=HOUR)

    assert written == ["outcomes-counted", "soak-passed", "phase-opened"]  # 2 of 2: not enough
    leader = Leader(one_phase())
    leader.sees()
    leader.sees(Counts(granted=5, succeeded=5), to_come=0)
    assert leader.rollout.state == "soaking"
    assert leader.sees(Counts(granted=5, succeeded=1, relapsed=4), after_ms=HOUR) == [
        "outcomes-counted",
        "halted",
    ]


def test_evidence_halts_in_a_pause_too_because_what_is_in_flight_goes_on() -> None:
    leader = Leader(one_phase())
    leader.sees()
    leader.sees(Counts(granted=10))
    leader.write([orders.pause(leader.rollout, by="ben", reason="lunch")])

    assert leader.sees(Counts(granted=10, failed=9)) == ["outcomes-counted", "halted"]
    assert leader.sees(Counts(granted=10, failed=10)) == ["outcomes-counted"]
    assert leader.rollout.counts.failed == 10


def test_after_a_resume_the_evidence_starts_afresh() -> None:
    leader = Leader(one_phase())
    leader.sees()
    leader.sees(Counts(granted=10, failed=6))
    assert leader.rollout.state == "halted"

    leader.write([orders.resume(leader.rollout, by="ben", reason="a bad cable")])

    assert leader.sees() == ["phase-opened"]
    assert leader.sees(Counts(granted=10, failed=7)) == ["outcomes-counted"]
    assert leader.sees(Counts(granted=10, failed=10)) == ["outcomes-counted", "halted"]
    assert leader.rollout.halts == 2


def test_a_silent_node_is_dark_and_a_slow_one_overdue() -> None:
    leader = Leader(one_phase(node_deadline_s=7200, dark_after_s=3600))
    leader.sees()
    leader.sees(Counts(granted=3))
    quiet = (
        Grant("silent", 0, T0, T0),
        Grant("slow", 0, T0, T0 + 2 * HOUR - 1),
        Grant("fresh", 0, T0 + HOUR, T0 + 2 * HOUR - 1),
    )

    assert leader.sees(quiet=quiet[1:], after_ms=HOUR) == []
    leader.sees(quiet=quiet, after_ms=HOUR)

    [counted] = leader.last
    assert [(one.node_id, one.outcome) for one in counted.closes] == [
        ("silent", Outcome.DARK),
        ("slow", Outcome.OVERDUE),
    ]
    assert counted.closes[0].reason == "not heard of for 2 h 00 m"
    assert counted.closes[1].reason == "no outcome for 2 h 00 m"
    assert leader.rollout.counts == Counts(granted=3, dark=1, overdue=1)


def test_a_node_that_went_dark_in_its_soak_relapses_and_after_it_does_not() -> None:
    leader = Leader(two_counts().model_copy(update={"dark_after_s": 3600}))
    leader.sees()
    leader.sees(Counts(granted=2, succeeded=2))
    dark = (Grant("n1", 0, T0, T0, succeeded=True),)

    assert leader.sees(quiet=dark, after_ms=HOUR - 1) == []
    assert leader.sees(quiet=dark, after_ms=1) == [
        "outcomes-counted",
        "soak-passed",
        "phase-opened",
    ]
    assert leader.rollout.slices[0].counts == Counts(granted=2, succeeded=1, relapsed=1)
    assert leader.sees(quiet=(Grant("n2", 0, T0, T0, succeeded=True),)) == []


def test_a_soak_passes_only_after_everybody_was_looked_at_since_it_was_over() -> None:
    leader = Leader(two_counts())
    leader.sees()
    leader.sees(Counts(granted=2, succeeded=2))

    assert leader.sees(after_ms=HOUR, watched_ms=0) == []
    assert leader.sees(after_ms=5, watched_ms=T0 + HOUR - 1) == []
    assert leader.sees(after_ms=5, watched_ms=T0 + HOUR) == ["soak-passed", "phase-opened"]


def test_where_dark_does_not_count_silence_in_the_soak_is_nothing() -> None:
    plan = two_counts()
    plan = plan.model_copy(update={"halt": plan.halt.model_copy(update={"dark_counts": False})})
    leader = Leader(plan)
    leader.sees()
    leader.sees(Counts(granted=2, succeeded=2))

    leader.sees(quiet=(Grant("n1", 0, T0, T0, succeeded=True),), after_ms=HOUR)

    assert leader.rollout.slices[0].counts == Counts(granted=2, succeeded=2)


def test_the_deadline_halts_and_a_resume_gives_it_again() -> None:
    leader = Leader(one_phase(deadline_s=2 * 86_400))
    leader.sees()

    assert leader.sees(after_ms=2 * DAY - 1) == []
    assert leader.sees(after_ms=1) == ["halted"]
    assert leader.rollout.reason == "not done within 2 d 0 h"
    leader.write([orders.resume(leader.rollout, by="ben", reason="holidays are over")])
    assert leader.sees(after_ms=DAY) == ["phase-opened"]
    assert leader.sees(after_ms=DAY) == ["halted"]


def test_a_pause_has_no_deadline() -> None:
    leader = Leader(one_phase())
    leader.sees()
    leader.write([orders.pause(leader.rollout, by="ben", reason="holidays")])

    assert leader.sees(after_ms=100 * DAY) == []


def test_a_rollback_ends_when_everybody_is_back_or_the_time_is_up() -> None:
    for left, after_ms, written in (
        (None, 7 * HOUR, []),
        (3, 0, []),
        (0, 0, ["rolled-back"]),
        (3, 6 * HOUR, ["rolled-back"]),
    ):
        leader = Leader(one_phase())
        leader.sees()
        leader.write([orders.roll_back(leader.rollout, by="ben", reason="smoke")])

        assert leader.sees(to_turn_back=left, after_ms=after_ms) == written
        assert leader.rollout.left == (left or 0 if written else 0)


def test_one_fact_tells_of_any_number_of_outcomes_and_fits_a_fact() -> None:
    leader = Leader(one_phase())
    leader.sees()
    bad = tuple(
        Bad(f"{'n' * 58}{number:06}", Outcome.ROLLED_BACK, "x" * 500) for number in range(5000)
    )

    leader.sees(Counts(granted=1_000_000, succeeded=900_000, rolled_back=5000), bad=bad)

    fact = leader.last[0]
    assert fact.kind == "outcomes-counted"
    assert len(fact.data["failures"]) == MOST_NAMED
    assert fact.data["unnamed"] == 5000 - MOST_NAMED
    assert len(canonical(fact.data)) < MAX_DATA
    assert fact.data["phases"] == {
        "0": {"granted": 1_000_000, "succeeded": 900_000, "rolled_back": 5000}
    }


def test_a_late_outcome_is_a_note_and_changes_nothing() -> None:
    leader = Leader(one_phase())
    ended = replace(leader.rollout, state="completed")

    note = late_outcome("n1", Outcome.FAILED, counted=None)

    assert note.is_note
    assert foresee(ended, note, T0) == ended


def test_a_leader_that_dies_after_any_fact_is_taken_over_with_the_same_story() -> None:
    def seen(rollout: Rollout) -> Observed:
        return Observed(
            counts=(Counts(granted=2, succeeded=2), Counts(granted=8, succeeded=8))[
                : rollout.phase + 1
            ],
            watched_ms=T0,
        )

    plan = two_counts(soak_s=0)
    plan = plan.model_copy(
        update={"phases": tuple(phase.model_copy(update={"soak_s": 0}) for phase in plan.phases)}
    )
    whole = Leader(plan)
    while decisions := next_facts(whole.rollout, plan, seen(whole.rollout), T0):
        whole.write(decisions)
    cut = Leader(plan)
    while decisions := next_facts(cut.rollout, plan, seen(cut.rollout), T0):
        cut.write(decisions[:1])

    assert whole.rollout.state == "completed"
    assert cut.rollout == whole.rollout
    assert cut.story == whole.story
