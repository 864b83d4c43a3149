"""A dry run says of every node what would become of it, and tells what the rollout itself then does."""

from __future__ import annotations

from cloudly.rollouts.admission import No, Standing
from cloudly.rollouts.dry_run import Trial, dry_run
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import Plan
from cloudly.rollouts.selector import NodeView
from tests.rollouts.simulated import T0, Simulation, fleet

SALT = "5a17" * 8


def free(nodes: list[NodeView]) -> list[tuple[NodeView, Standing]]:
    return [(node, Standing()) for node in nodes]


def test_every_node_is_in_one_phase_or_left_out_or_beyond() -> None:
    plan = Plan(
        selector="label.site=lab",
        phases=(Phase(name="named", selector="node=a1"), Phase(name="half", share_bp=5000)),
    )
    nodes = [NodeView(node_id=f"a{number}", labels={"site": "lab"}) for number in range(100)]
    nodes += [NodeView(node_id="elsewhere", labels={"site": "home"})]

    told = dry_run(plan, free(nodes), salt=SALT, now_ms=T0)

    everybody = [node for phase in told.phases for node in phase.nodes]
    everybody += [*told.beyond, *(one.node_id for one in told.left_out)]
    assert sorted(everybody) == sorted(node.node_id for node in nodes)
    assert told.phases[0].nodes == ("a1",)
    assert 30 <= len(told.phases[1].nodes) <= 70
    assert told.soaks_s == 7200


def test_who_is_left_out_is_told_every_reason() -> None:
    nodes = [
        (NodeView(node_id="pinned", state="quarantined"), Standing(pinned="1.0 by ben")),
        (NodeView(node_id="done"), Standing(has_it=True)),
    ]

    told = dry_run(Plan(), nodes, salt=SALT, now_ms=T0)

    assert [(one.node_id, one.no) for one in told.left_out] == [
        ("done", (No.HAS_IT,)),
        ("pinned", (No.QUARANTINED, No.PINNED)),
    ]
    assert told.left_out[1].why == "it is quarantined; it is pinned: 1.0 by ben"


def test_who_comes_first_is_told_as_a_number() -> None:
    plan = Plan(
        phases=(
            Phase(name="ten", count=10),
            Phase(name="more", count=25),
            Phase(name="all", share_bp=10_000),
        )
    )

    told = dry_run(plan, free(fleet(30)), salt=SALT, now_ms=T0)

    assert [phase.of_any_place for phase in told.phases] == [10, 15, 0]
    assert len(told.phases[2].nodes) == 30


def test_one_percent_of_a_few_nodes_is_one_of_any_place() -> None:
    told = dry_run(Plan(), free(fleet(5)), salt=SALT, now_ms=T0)

    canary = told.phases[0]
    assert len(canary.nodes) + canary.of_any_place == 1


def test_it_says_how_many_failures_halt_each_phase_and_where_none_can() -> None:
    plan = Plan(phases=(Phase(name="two", count=2), Phase(name="all", share_bp=10_000)))

    told = dry_run(plan, free(fleet(1000)), salt=SALT, now_ms=T0)

    assert [phase.failures_to_halt for phase in told.phases] == [None, 40]


def test_the_rollout_then_does_what_was_told() -> None:
    run = Simulation(11, Plan(concurrency=50), fleet(300), 0.0)
    told = dry_run(run.plan, free(run.nodes), salt=run.salt, now_ms=T0)

    run.run()

    done: list[set[str]] = [set(), set(), set(), set()]
    for row in run.rows.values():
        done[row.phase].add(row.node)
    assert [set(phase.nodes) for phase in told.phases] == done
    assert [phase.of_any_place for phase in told.phases] == [0, 0, 0, 0]


def test_of_a_large_fleet_everybody_is_counted_and_some_are_named() -> None:
    plan = Plan(phases=(Phase(name="half", share_bp=5000),))
    nodes = free(fleet(100)) + [
        (NodeView(node_id=f"held{number}"), Standing(pinned="1.0 by ben", has_it=number < 3))
        for number in range(10)
    ]

    whole = dry_run(plan, nodes, salt=SALT, now_ms=T0)
    trial = Trial(plan, salt=SALT, now_ms=T0, named=4)
    for node, standing in nodes:
        trial.add(node, standing)
    short = trial.told()

    assert [len(one) for one in (short.phases[0].nodes, short.left_out, short.beyond)] == [4, 4, 4]
    assert whole.phases[0].by_place == short.phases[0].by_place == len(whole.phases[0].nodes)
    assert (short.left_out_nodes, short.beyond_nodes) == (len(whole.left_out), len(whole.beyond))
    assert short.left_out_for == {No.PINNED: 10, No.HAS_IT: 3}
    assert short.phases[0].failures_to_halt == whole.phases[0].failures_to_halt
    assert set(short.beyond) <= set(whole.beyond)
