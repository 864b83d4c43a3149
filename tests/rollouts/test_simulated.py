"""The engine over a simulated fleet: it hardly ever halts a good release, and a bad one where it said it would."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudly.rollouts import orders
from cloudly.rollouts.admission import may_admit
from cloudly.rollouts.counts import Outcome
from cloudly.rollouts.evidence import failures_to_halt, must_halt, sample
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import HaltPolicy, Plan
from cloudly.rollouts.windows import is_open, window
from tests.rollouts.seeds import SMALL, false_halts
from tests.rollouts.simulated import T0, Simulation, fleet

LARGE = fleet(1000)
NORMAL_RUNS = range(1000)


def test_at_the_base_rate_fewer_than_one_run_in_a_hundred_is_halted() -> None:
    halts = false_halts(NORMAL_RUNS)

    assert halts < 10


def test_the_same_runs_with_more_failures_are_halted_so_the_test_can_fail() -> None:
    halts = false_halts(range(20), rate=0.5)

    assert halts == 20


@pytest.mark.parametrize(
    ("rate", "how", "base", "most_exposed"),
    [
        (0.03, Outcome.FAILED, 0.005, 0.6),
        (0.10, Outcome.FAILED, 0.02, 0.2),
        (0.10, Outcome.ROLLED_BACK, 0.005, 0.15),
        (0.50, Outcome.FAILED, 0.005, 0.07),
        (1.00, Outcome.FAILED, 0.005, 0.02),
        (1.00, Outcome.DARK, 0.005, 0.02),
        (1.00, Outcome.OVERDUE, 0.005, 0.02),
    ],
)
def test_a_bad_release_is_halted_with_the_predicted_failure(
    rate: float, how: Outcome, base: float, most_exposed: float
) -> None:
    plan = Plan(concurrency=50, halt=HaltPolicy(base_rate=base, worst_rate=0.1))
    exposed = []
    for seed in range(6):
        run = Simulation(seed, plan, LARGE, rate, how)

        ended = run.run()

        assert ended.state == "halted", f"seed {seed}: {ended}"
        seen = sample(ended.counts, plan.halt)
        predicted = failures_to_halt(ended.counts.succeeded, plan.halt, in_flight=ended.in_flight)
        assert must_halt(seen, plan.halt)
        assert predicted <= seen.failures <= predicted + _at_once(run), f"seed {seed}: {ended}"
        exposed.append(ended.granted / len(LARGE))
    assert median(exposed) <= most_exposed


def _at_once(run: Simulation) -> int:
    """How many failures the last fact counted beside the one that was enough."""
    counted = [fact for fact in run.facts if fact.kind == "outcomes-counted"][-1]
    return len(counted.values["failures"]) - 1


def test_nobody_is_forgotten_and_nobody_is_asked_twice() -> None:
    run = Simulation(7, Plan(concurrency=20), fleet(150), 0.02)

    ended = run.run()

    assert ended.state == "completed"
    assert len(run.rows) == ended.granted == 150
    assert all(row.outcome is not None for row in run.rows.values())
    by_outcome = [row.outcome for row in run.rows.values()]
    assert by_outcome.count(Outcome.SUCCEEDED) == ended.counts.succeeded
    assert by_outcome.count(Outcome.FAILED) == ended.counts.failed


def test_a_fleet_of_one_is_updated_too() -> None:
    ended = Simulation(1, Plan(), fleet(1), 0.0).run()

    assert ended.state == "completed"
    assert [each.counts.granted for each in ended.slices] == [1, 0, 0, 0]


def test_what_the_simulation_counts_as_still_to_come_is_what_a_sweep_finds() -> None:
    run = Simulation(3, Plan(concurrency=5), fleet(60), 0.0)

    for _ in range(200):
        run.tick()
        run.check_ins()
        if run.rollout.state == "admitting":
            assert (run.sweep() == 0) == (run._sweep is not None and run._sweep.to_come == 0)
        run.wait()
    assert run.rollout.state == "completed"


# What must hold in any story, with any plan and any operator.

phases = st.sampled_from(
    [
        Plan().phases,
        (Phase(name="few", count=3, soak_s=600), Phase(name="all", share_bp=10_000, soak_s=0)),
        (
            Phase(name="named", selector="node=node-000003|node-000005", soak_s=60),
            Phase(name="some", count=9),
            Phase(name="half", share_bp=5000, at_least=4),
        ),
    ]
)
plans = st.builds(
    Plan,
    phases=phases,
    concurrency=st.integers(1, 30),
    windows=st.sampled_from([(), (window("daily 22:00-04:00 Europe/Berlin"),)]),
)
turns = st.lists(st.sampled_from(["pause", "resume", "halt", "abort", "-", "-", "-"]), max_size=40)
hows = st.sampled_from([Outcome.FAILED, Outcome.ROLLED_BACK, Outcome.DARK, Outcome.OVERDUE])


def turn(run: Simulation, what: str) -> None:
    orders_by_name = {
        "pause": lambda: orders.pause(run.rollout, by="ben", reason="a turn"),
        "resume": lambda: orders.resume(run.rollout, by="ben", reason="a turn"),
        "halt": lambda: orders.halt(run.rollout, by="ben", reason="a turn"),
        "abort": lambda: orders.abort(run.rollout, by="ben", reason="a turn"),
    }
    if what in orders.possible(run.rollout):
        run.write(orders_by_name[what]())


@settings(max_examples=40, deadline=None)
@given(plans, turns, st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0]), hows)
def test_whatever_happens_the_story_holds_together(
    plan: Plan, steps: list[str], seed: int, rate: float, how: Outcome
) -> None:
    run = Simulation(seed, plan, SMALL, rate, how)

    for step in steps:
        phase, granted = run.rollout.phase, len(run.rows)
        run.tick()
        turn(run, step)
        state, window_is_open = run.rollout.state, is_open(plan.windows, run.now_ms)
        run.check_ins()

        assert run.rollout.phase >= phase
        assert all(each.is_possible for each in run.counts)
        assert all(each.counts.is_possible for each in run.rollout.slices)
        assert sum(each.in_flight for each in run.counts) <= plan.concurrency
        if state != "admitting" or not window_is_open:
            assert len(run.rows) == granted
        run.wait()
    assert run.refolded() == run.rollout
    ends = [fact for fact in run.facts if fact.dst in {"completed", "aborted"}]
    assert ends in ([], run.facts[-1:])


@settings(max_examples=25, deadline=None)
@given(plans, turns, st.integers(0, 2**32), st.data())
def test_a_tail_that_was_never_written_is_told_again_the_same(
    plan: Plan, steps: list[str], seed: int, data: st.DataObject
) -> None:
    """The leading process dies after some of its facts; the next one goes on from what was written."""
    whole = Simulation(seed, plan, SMALL, 0.1)
    cut = Simulation(seed, plan, SMALL, 0.1)

    for step in steps:
        whole.tick()
        cut.tick(write_at_most=data.draw(st.integers(0, 2), label="facts before it died"))
        cut.tick()
        for run in (whole, cut):
            turn(run, step)
            run.check_ins()
            run.wait()

    assert [(fact.kind, fact.data, fact.at_ms) for fact in cut.facts] == [
        (fact.kind, fact.data, fact.at_ms) for fact in whole.facts
    ]
    assert cut.rollout == whole.rollout


@pytest.mark.parametrize("step", range(0, 60, 6))
def test_a_story_cut_anywhere_and_recalled_goes_on_to_the_same_end(step: int) -> None:
    golden = Simulation(5, Plan(concurrency=20), SMALL, 0.02)
    golden.run()
    resumed = Simulation(5, Plan(concurrency=20), SMALL, 0.02)

    for _ in range(step):
        resumed.tick()
        resumed.check_ins()
        resumed.wait()
    resumed.rollout = resumed.refolded()
    resumed.run()

    assert resumed.facts == golden.facts
    assert resumed.rollout == golden.rollout


def test_nothing_is_admitted_once_it_has_ended() -> None:
    run = Simulation(2, Plan(concurrency=20), SMALL, 0.0)
    run.run()

    assert all(
        not may_admit(node, run.rollout, run.plan, T0).admitted for node in [*SMALL, *fleet(200)]
    )
