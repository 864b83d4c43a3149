"""What the page for operators says in figures and pictures is what the code does."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from cloudly.rollouts.evidence import Sample, failures_to_halt, judge, must_halt
from cloudly.rollouts.machine import CHART
from cloudly.rollouts.plan import HaltPolicy, Plan
from simulators.world import SimWorld

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rollouts.md").read_text(encoding="utf-8")


def test_the_diagram_is_the_chart() -> None:
    assert CHART.mermaid().strip() in PAGE


def table(name: str) -> list[list[str]]:
    lines = PAGE.partition(f"<!-- {name}:")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def share(cell: str) -> float:
    return float(cell.removesuffix(" %")) / 100


def test_the_table_of_failures_is_what_the_test_says() -> None:
    rows = table("failures-to-halt")
    others = [int(cell) for cell in rows[0][1:]]

    assert len(rows) == 6
    for base, *cells in rows[2:]:
        policy = HaltPolicy(base_rate=share(base))
        assert [int(cell) for cell in cells] == [failures_to_halt(n, policy) for n in others]


def exposed(rate: float, policy: HaltPolicy, in_flight: int, seed: int) -> int:
    """Nodes that were given the order when it halts, with always so many in flight."""
    world, failures, nodes = SimWorld(seed), 0, 0
    while not must_halt(Sample(failures, nodes - failures + in_flight), policy):
        nodes += 1
        failures += world.uniform(0.0, 1.0) < rate
    return nodes + in_flight


@pytest.mark.slow
def test_the_table_of_exposed_nodes_is_what_seeded_runs_show() -> None:
    rows = table("exposed")
    in_flight = [int(cell.removesuffix(" in flight")) for cell in rows[0][2:]]

    assert len(rows) == 8
    for base, rate, *cells in rows[2:]:
        policy = HaltPolicy(base_rate=share(base))
        for cell, many in zip(cells, in_flight, strict=True):
            assert int(cell) == median(
                exposed(share(rate), policy, many, seed) for seed in range(25)
            )


def test_the_example_is_told_in_the_same_words() -> None:
    assert judge(Sample(7, 33), HaltPolicy()).why in PAGE.replace("\n", " ")


def test_the_defaults_are_those_of_the_code() -> None:
    plan = Plan()

    assert [phase.name for phase in plan.phases] == ["canary", "tenth", "half", "all"]
    assert (plan.concurrency, plan.node_deadline_s, plan.dark_after_s) == (1000, 6 * 3600, 900)
    assert plan.deadline_s == 14 * 86_400
    assert (plan.halt.base_rate, plan.halt.alpha) == (0.02, 0.005)
    for said in (
        "1,000 nodes in flight",
        "6 h for each node, 14 days",
        "silent for 15 minutes",
        "2 %, with 99.5 %",
    ):
        assert said in PAGE
