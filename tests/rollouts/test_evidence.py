"""The halting test: exact where a sum can be exact, and its promise kept by every order of arrival."""

from __future__ import annotations

from itertools import product
from math import exp, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudly.rollouts.counts import Counts
from cloudly.rollouts.evidence import (
    Sample,
    failures_of,
    failures_to_halt,
    judge,
    log_e_value,
    lower_bound,
    must_halt,
    sample,
)
from cloudly.rollouts.plan import HaltPolicy
from simulators.world import SimWorld

POLICY = HaltPolicy()


@given(st.integers(0, 40), st.integers(0, 400), st.floats(0.001, 0.4))
def test_it_is_a_martingale_at_its_own_rate(failures: int, others: int, rate: float) -> None:
    now = exp(log_e_value(Sample(failures, others), rate, POLICY))
    after_failure = exp(log_e_value(Sample(failures + 1, others), rate, POLICY))
    after_success = exp(log_e_value(Sample(failures, others + 1), rate, POLICY))

    assert isclose(rate * after_failure + (1 - rate) * after_success, now, rel_tol=1e-9)
    assert log_e_value(Sample(), rate, POLICY) == 0.0


def test_the_chance_of_ever_halting_at_the_base_rate_is_at_most_alpha_computed_exactly() -> None:
    policy = HaltPolicy(base_rate=0.1, worst_rate=0.5, alpha=0.05, min_failures=1)

    alive, halted = {0: 1.0}, 0.0  # failures -> probability, over all sequences of nodes
    for nodes in range(1, 601):
        step: dict[int, float] = {}
        for failures, chance in alive.items():
            step[failures] = step.get(failures, 0.0) + chance * 0.9
            step[failures + 1] = step.get(failures + 1, 0.0) + chance * 0.1
        stops = {
            failures for failures in step if must_halt(Sample(failures, nodes - failures), policy)
        }
        halted += sum(step.pop(failures) for failures in stops)
        alive = step

    assert 0.01 < halted <= 0.05
    assert isclose(halted + sum(alive.values()), 1.0, rel_tol=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(0, 2**7 - 1))
def test_nodes_in_flight_can_only_delay_a_halt(failed: list[bool], known: int) -> None:
    """Whatever is known so far of so many nodes, the verdict is no harsher than with all of them known."""
    policy = HaltPolicy(base_rate=0.02, min_failures=1)
    failures = sum(bad for number, bad in enumerate(failed) if known >> number & 1)

    so_far = must_halt(Sample(failures, len(failed) - failures), policy)
    in_the_end = must_halt(Sample(sum(failed), len(failed) - sum(failed)), policy)

    assert in_the_end or not so_far


def test_judged_in_the_order_of_arrival_good_releases_would_be_halted() -> None:
    """The negative control: failures are reported sooner, so leaving out who is in flight breaks the promise."""
    arrived_first = Sample(failures=4, others=0)  # 4 of 200, the base rate; 196 are still in flight

    assert must_halt(arrived_first, POLICY)
    assert not must_halt(Sample(failures=4, others=196), POLICY)


@pytest.mark.parametrize("seed", range(20))
def test_the_lower_bound_holds_at_all_times_at_once(seed: int) -> None:
    world, rate = SimWorld(seed), 0.08
    failures = others = 0

    for _ in range(400):
        if world.uniform(0.0, 1.0) < rate:
            failures += 1
        else:
            others += 1

        assert lower_bound(Sample(failures, others), POLICY) <= rate


def test_halting_and_a_bound_above_the_base_rate_are_the_same() -> None:
    for failures, others in product(range(2, 30), (0, 1, 5, 20, 80, 300)):
        seen = Sample(failures, others)

        assert must_halt(seen, POLICY) == (lower_bound(seen, POLICY) > POLICY.base_rate)


def test_the_bound_is_where_the_e_value_is_one_in_alpha() -> None:
    seen = Sample(7, 33)

    bound = lower_bound(seen, POLICY)

    assert isclose(log_e_value(seen, bound, POLICY), -log(POLICY.alpha), rel_tol=1e-6)
    assert lower_bound(Sample(0, 50), POLICY) == 0.0


def test_the_verdict_is_told_in_words() -> None:
    verdict = judge(Sample(7, 33), POLICY)

    assert verdict.halt
    assert verdict.e_value > 200
    assert verdict.why == (
        "7 of 40 failed (17.5 %, at least 3.2 % with 99.5 % confidence); the base rate is 2 %"
    )
    assert judge(Sample(0, 40), POLICY).why == "0 of 40 failed; the base rate is 2 %"
    assert judge(Sample(), POLICY).why == "no node has been given the order yet"
    assert judge(Sample(500, 0), POLICY).e_value == float("inf")


KEEN = HaltPolicy(base_rate=0.005, min_failures=1)


@given(st.integers(0, 3000), st.integers(0, 300), st.sampled_from([POLICY, KEEN]))
def test_the_prediction_is_the_first_number_that_halts(
    successes: int, in_flight: int, policy: HaltPolicy
) -> None:
    predicted = failures_to_halt(successes, policy, in_flight=in_flight)

    assert must_halt(Sample(predicted, successes + in_flight), policy)
    assert not must_halt(Sample(predicted - 1, successes + in_flight), policy)


def test_more_successes_never_halt_sooner() -> None:
    predicted = [failures_to_halt(successes, POLICY) for successes in range(0, 2000, 10)]

    assert predicted == sorted(predicted)
    assert predicted[0] == 3


def test_of_so_many_nodes_it_says_how_many_must_fail() -> None:
    assert failures_of(2, POLICY) is None
    assert failures_of(3, POLICY) == 3
    assert failures_of(1000, POLICY) == failures_to_halt(1000 - 40, POLICY) == 40


def test_one_failure_alone_does_not_halt_by_default() -> None:
    keen = HaltPolicy(base_rate=0.001, worst_rate=0.5, alpha=0.1)

    assert not must_halt(Sample(1, 0), keen)
    assert must_halt(Sample(2, 0), keen)


def test_an_operators_own_bound_halts_whatever_the_evidence() -> None:
    policy = HaltPolicy(most_failures=5)

    assert not must_halt(Sample(4, 100_000), policy)
    assert must_halt(Sample(5, 100_000), policy)
    assert "the most that its operator allows" in judge(Sample(5, 100_000), policy).why


def test_what_was_set_aside_at_a_resume_is_not_counted_again_and_what_was_in_flight_is() -> None:
    then = Counts(granted=20, succeeded=10, failed=4, superseded=1)  # 5 in flight
    now = Counts(granted=22, succeeded=11, failed=7, superseded=1)

    seen = sample(now, POLICY, set_aside=then)

    assert seen == Sample(failures=3, others=1 + 3)


def test_dark_counts_as_failed_or_as_nothing() -> None:
    counts = Counts(granted=10, succeeded=5, failed=1, dark=2, superseded=1)

    assert sample(counts, POLICY) == Sample(failures=3, others=6)
    assert sample(counts, HaltPolicy(dark_counts=False)) == Sample(failures=1, others=6)
