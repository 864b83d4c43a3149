"""Outcomes are counted once per grant, and what comes later is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudly.rollouts.counts import BAD, NOTHING, Counts, Heard, Outcome, hear, together

REPORTED = sorted(set(Outcome) - {Outcome.RELAPSED})


@given(st.lists(st.sampled_from(REPORTED), max_size=30))
def test_a_grant_has_at_most_one_outcome_and_one_relapse(reports: list[Outcome]) -> None:
    counts, counted = Counts(granted=1), None

    for report in reports:
        heard = hear(report, counted=counted, is_final=False, phase_has_passed=False)
        if heard.counts_as is not None:
            counts, counted = counts.with_outcome(heard.counts_as), heard.counts_as

        assert counts.is_possible
        assert counts.settled + counts.in_flight == 1


@pytest.mark.parametrize("report", REPORTED)
def test_the_first_outcome_counts(report: Outcome) -> None:
    assert hear(report, counted=None, is_final=False, phase_has_passed=False) == Heard(report)


def test_the_same_again_says_nothing() -> None:
    heard = hear(Outcome.FAILED, counted=Outcome.FAILED, is_final=True, phase_has_passed=True)

    assert heard == Heard()


def test_a_success_after_it_counted_as_dark_is_late_and_changes_nothing() -> None:
    heard = hear(Outcome.SUCCEEDED, counted=Outcome.DARK, is_final=False, phase_has_passed=False)

    assert heard == Heard(is_late=True)


@pytest.mark.parametrize("report", BAD)
def test_a_node_that_succeeded_may_relapse_until_its_phase_has_passed(report: Outcome) -> None:
    before = hear(report, counted=Outcome.SUCCEEDED, is_final=False, phase_has_passed=False)
    after = hear(report, counted=Outcome.SUCCEEDED, is_final=False, phase_has_passed=True)

    assert before == Heard(Outcome.RELAPSED)
    assert after == Heard(is_late=True)


def test_finished_is_finished() -> None:
    heard = hear(Outcome.FAILED, counted=None, is_final=True, phase_has_passed=True)

    assert heard == Heard(is_late=True)


def test_what_supersedes_a_node_after_its_outcome_is_no_news() -> None:
    for counted in (Outcome.SUCCEEDED, Outcome.DARK):
        heard = hear(Outcome.SUPERSEDED, counted=counted, is_final=False, phase_has_passed=False)

        assert heard == Heard()


def test_differences_add_up() -> None:
    before = Counts(granted=5, succeeded=3)
    after = Counts(granted=6, succeeded=2, relapsed=1, dark=1)

    assert before.plus(after.less(before)) == after
    assert before.less(before) == {}
    assert together([before, after]).granted == 11
    assert together([]) == NOTHING


def test_a_count_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match="lost"):
        NOTHING.plus({"lost": 1})
