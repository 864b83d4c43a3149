"""What the page for operators says in figures and pictures is what the code does."""

from __future__ import annotations

from pathlib import Path

from cloudly.rollouts.evidence import Sample, failures_to_halt, judge
from cloudly.rollouts.machine import CHART
from cloudly.rollouts.plan import HaltPolicy, Plan

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rollouts.md").read_text(encoding="utf-8")


def test_the_diagram_is_the_chart() -> None:
    assert CHART.mermaid().strip() in PAGE


def test_the_table_of_failures_is_what_the_test_says() -> None:
    table = PAGE.partition("<!-- failures-to-halt")[2].partition("\n\n")[0].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    others = [int(cell) for cell in rows[0][1:]]

    assert len(rows) == 6
    for base, *cells in rows[2:]:
        policy = HaltPolicy(base_rate=float(base.removesuffix(" %")) / 100)
        assert [int(cell) for cell in cells] == [failures_to_halt(n, policy) for n in others]


def test_the_example_is_told_in_the_same_words() -> None:
    assert judge(Sample(7, 33), HaltPolicy()).why in PAGE.replace("\n", " ")


def test_the_defaults_are_those_of_the_code() -> None:
    plan = Plan()

    assert [phase.name for phase in plan.phases] == ["canary", "tenth", "half", "all"]
    assert (plan.concurrency, plan.node_deadline_s, plan.dark_after_s) == (1000, 6 * 3600, 3600)
    assert plan.deadline_s == 14 * 86_400
    assert (plan.halt.base_rate, plan.halt.alpha) == (0.02, 0.005)
    for said in ("1,000 nodes in flight", "6 h for each node, 14 days", "2 %, with 99.5 %"):
        assert said in PAGE
