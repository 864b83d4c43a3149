"""`cloudly rollout`, beside a control plane that serves devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloudly.cli import app
from cloudly.problems import BadOrder
from cloudly.rollouts import orders
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import read
from cloudly.store import fleets
from cloudly.store.audit import By
from cloudly.store.governance import channels, following
from tests.cloudly.given import Plane
from tests.cloudly.rolling import Rolling, canary_first, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]


class Operator:
    """Somebody at a terminal of the machine that serves."""

    def __init__(self, plane: Plane) -> None:
        self._directory = str(plane.directory)

    def says(self, *words: str) -> str:
        done = self._run(*words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    def json(self, *words: str) -> Any:
        return json.loads(self.says(*words, "--json"))

    def errs(self, *words: str) -> str:
        """Wrong usage: what is said about it, without the box around it."""
        done = self._run(*words)
        assert done.exit_code == 2, done.output
        return " ".join(done.stderr.replace("│", " ").split())

    def _run(self, *words: str) -> Any:
        env = {"CLOUDLY_DATA_DIR": self._directory, "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
        return CliRunner().invoke(app, ["rollout", *words], env=env)


async def test_a_rollout_is_planned_tried_started_and_followed_to_its_halt(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 4)
    rolling.define()
    operator = Operator(plane)

    made = operator.json(
        "create", "2.0.0", "--phase", "one:1:soak=1m", "--phase", "100%", "--by", "anna",
        "--most-failures", "2",
    )  # fmt: skip
    tried = operator.json("dry-run", str(made["rollout"]))
    started = operator.says("start", str(made["rollout"]), "--by", "bert")
    rolling.number = made["rollout"]
    await plane.world.sleep(1)
    await rolling.tick()
    await rolling.all_beat()
    [canary] = rolling.has_it()
    await rolling.succeeds(canary)
    await rolling.tick()
    await rolling.tick()
    await rolling.wait(70)
    await rolling.all_beat()
    broken = [one for one in rolling.devices if one is not canary]
    for device in broken[:2]:
        await rolling.fails(device, "no space left")
    await rolling.tick()

    told = operator.json("show", "1")
    shown = operator.says("show", "1")
    assert (made["state"], made["created_by"]) == ("draft", "anna")
    assert [phase["of_any_place"] for phase in tried["phases"]] == [1, 0]
    assert len(tried["phases"][1]["nodes"]) == 4
    assert "deciding" in started
    assert told["state"] == "halted"
    assert [(one["name"], one["state"], one["granted"]) for one in told["phases"]] == [
        ("one", "passed", 1),
        ("phase-2", "halted", 3),
    ]
    assert [(one["outcome"], one["reason"], one["nodes"]) for one in told["failures"]] == [
        ("rolled_back", "no space left", 2)
    ]
    assert told["why"]["owner"] == "operator"
    for words in ("no space left", "2 of 4 failed", "somebody to look", "resume", "rolled_back"):
        assert words in shown
    assert operator.json("list")[0]["state"] == "halted"
    assert {row["outcome"] for row in operator.json("nodes", "1")} == {
        "succeeded",
        "rolled_back",
        None,
    }


async def test_replay_ends_where_the_rollout_is_and_tells_what_each_fact_changed(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 2, canary_first())
    await rolling.all_beat()
    await rolling.tick()
    operator = Operator(plane)

    steps, told = operator.json("replay", "1"), operator.json("show", "1")
    events = operator.json("events", "1")

    assert steps[-1]["state"] == told["state"] == rolling.believed.state
    assert [step["kind"] for step in steps] == rolling.kinds
    counted = next(step for step in steps if step["kind"] == "outcomes-counted")
    assert counted["changed"]["phase 1 granted"] == 1
    assert [one["to"] for one in events["events"]] == [step["state"] for step in steps]
    assert events["first_broken"] is None
    assert "phase 1 (one) is open" in operator.says("events", "1")
    assert "phase 1 granted = 1" in operator.says("replay", "1")


async def test_a_story_that_was_changed_by_hand_is_told(plane: Plane) -> None:
    await Rolling.begin(plane, 1, canary_first())
    plane.store.write_now(
        lambda db: db.execute("UPDATE rollout_event SET at_ms=at_ms-1 WHERE seq=2").rowcount
    )

    with pytest.raises(BadOrder, match="broken at fact 2"):
        Operator(plane).says("events", "1")


async def test_every_order_is_told_with_who_gave_it_and_why(plane: Plane) -> None:
    await Rolling.begin(plane, 1, canary_first())
    operator = Operator(plane)

    assert "paused" in operator.says("pause", "1", "--reason", "lunch", "--by", "anna")
    assert "deciding" in operator.says("resume", "rollout/1", "--by", "bert")
    assert operator.json("halt", "1", "--reason", "smoke", "--by", "anna")["state"] == "halted"
    assert "anna: smoke" in operator.says("why", "1")
    assert "aborted" in operator.says("abort", "1", "--reason", "enough", "--by", "anna")

    assert "has ended" in operator.says("why", "1")
    said = [one["says"] for one in operator.json("events", "1")["events"]]
    assert said[-4:] == [
        "anna paused it: lunch",
        "bert resumed it",
        "anna halted it (order): smoke",
        "anna aborted it: enough",
    ]


async def test_an_approval_by_who_created_it_is_refused_where_a_second_person_is_wanted(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 0)
    rolling.define()
    operator = Operator(plane)
    operator.says("create", "2.0.0", "--needs-approval", "--second-person", "--by", "anna")

    with pytest.raises(BadOrder, match="ask for approval first"):
        operator.says("start", "1", "--by", "anna")
    operator.says("ask-approval", "1", "--by", "anna")
    with pytest.raises(BadOrder, match="second person"):
        operator.says("approve", "1", "--by", "Anna")
    operator.says("refuse", "1", "--reason", "not on friday", "--by", "bert")
    operator.says("ask-approval", "1", "--by", "anna")
    operator.says("approve", "1", "--by", "bert", "--note", "fine")

    assert operator.json("start", "1")["approved_by"] == "bert"


async def test_the_options_of_a_plan_are_the_plan_and_a_file_says_the_same(
    plane: Plane, tmp_path: Path
) -> None:
    rolling = await Rolling.begin(plane, 0)
    rolling.define()
    operator = Operator(plane)

    made = operator.json(
        "create", "2.0.0", "--select", "fleet=default, !label.demo", "--soak", "10m",
        "--phase", "lab:label.site=lab", "--phase", "25:soak=0", "--phase", "all:100%:at-least=3:approval",
        "--window", "mon-fri 22:00-04:00 Europe/Berlin", "--deadline", "7d", "--node-deadline", "2h",
        "--dark-after", "30m", "--concurrency", "50", "--base-rate", "0.5%", "--worst-rate", "5%",
        "--min-failures", "3", "--most-failures", "9", "--dark-does-not-count",
    )  # fmt: skip
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(made["plan"]))
    again = operator.json("create", "2.0.0", "--plan", str(file))

    assert again["plan"] == made["plan"]
    plan = read(json.dumps(made["plan"]))
    assert [(one.name, one.size, one.soak_s) for one in plan.phases] == [
        ("lab", "label.site=lab", 600),
        ("phase-2", "25 nodes", 0),
        ("all", "100 %", 600),
    ]
    assert (plan.phases[2].at_least, plan.phases[2].needs_approval) == (3, True)
    assert (plan.deadline_s, plan.node_deadline_s, plan.dark_after_s) == (604_800, 7200, 1800)
    assert plan.selector == "fleet=default,!label.demo"
    assert str(plan.windows[0]) == "mon-fri 22:00-04:00 Europe/Berlin"
    halt = plan.halt
    assert (halt.base_rate, halt.worst_rate, halt.min_failures) == (0.005, 0.05, 3)
    assert (halt.most_failures, halt.dark_counts, plan.concurrency) == (9, False, 50)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "9.9.9"), "no release '9.9.9'"),
        (("create", "2.0.0", "--phase", "10%", "--phase", "5%"), "must be larger"),
        (("create", "2.0.0", "--phase", "25:at-least=2"), "at-least is of a share"),
        (("create", "2.0.0", "--base-rate", "60%"), "base_rate"),
        (("create", "2.0.0", "--window", "always"), "no window"),
        (("create", "2.0.0", "--window", "mon 10:00-10:00"), "no window"),
        (("create", "2.0.0", "--select", "size=3"), "nothing to select by"),
        (("show", "7"), "no rollout 7"),
        (("events", "7"), "no rollout 7"),
        (("nodes", "7"), "no rollout 7"),
        (("replay", "7"), "no rollout 7"),
        (("why", "7"), "no rollout 7"),
        (("dry-run", "7"), "no rollout 7"),
        (("pause", "7", "--reason", "x"), "no rollout 7"),
    ],
)
async def test_what_cannot_be_is_told_and_nothing_is_written(
    plane: Plane, words: tuple[str, ...], says: str
) -> None:
    rolling = await Rolling.begin(plane, 0)
    rolling.define()

    with pytest.raises(BadOrder, match=says):
        Operator(plane).says(*words)

    assert plane.rows("rollout") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "seven"), "is no rollout"),
        (("create", "2.0.0", "--soak", "4"), "is no duration"),
        (("create", "2.0.0", "--deadline", "never"), "must end some time"),
        (("create", "2.0.0", "--base-rate", "0.02"), "is no share"),
        (("create", "2.0.0", "--plan", "/etc/hostname", "--soak", "1h"), "--plan says everything"),
        (("pause", "1"), "--reason"),
    ],
)
async def test_wrong_usage_is_told_with_an_example(
    plane: Plane, words: tuple[str, ...], says: str
) -> None:
    assert says in Operator(plane).errs(*words)


async def test_a_soak_too_short_to_see_a_node_die_is_warned_of_when_planned_and_when_tried(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1)
    rolling.define()
    operator = Operator(plane)

    short = operator.says("create", "2.0.0", "--phase", "100%:soak=10m", "--by", "anna")
    tried = operator.says("dry-run", "1")
    careful = operator.says("create", "2.0.0", "--by", "anna")

    assert "warning: a node that dies in the soak of phase-1 is not seen in it" in short
    assert "warning: a node that dies in the soak of phase-1" in tried
    assert "warning" not in careful


async def test_a_dry_run_tells_who_is_left_out_and_why_and_writes_nothing(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 3)
    number = plane.node(rolling.devices[0].node_id)["id"]
    plane.store.write_now(
        lambda db: db.execute("UPDATE node SET quarantined_at_ms=5 WHERE id=?", (number,)).rowcount
    )
    rolling.create(canary_first())
    before = plane.rows("rollout_event"), plane.rows("deployment")

    tried = Operator(plane).json("dry-run", "1")
    told = Operator(plane).says("dry-run", "1")

    assert [(one["node_id"], one["no"]) for one in tried["left_out"]] == [
        (rolling.devices[0].node_id, ["quarantined"])
    ]
    assert sum(len(one["nodes"]) for one in tried["phases"]) == 2
    assert "it is quarantined" in told
    assert (plane.rows("rollout_event"), plane.rows("deployment")) == before


@pytest.mark.parametrize("selector", ["", "fleet=lab", "fleet=lab,label.site=a"])
async def test_who_looks_at_a_completed_rollout_is_told_where_new_nodes_get_something_else(
    plane: Plane, selector: str
) -> None:
    """Of each fleet that it covered whole; not where a channel says what new nodes get."""
    rolling = await Rolling.begin(plane, 1)
    operator = Operator(plane)
    now = rolling.now_ms
    for fleet in ("lab", "follows"):
        plane.store.write_now(lambda db, fleet=fleet: fleets.create(db, fleet, now))  # type: ignore[misc]
    by = By("anna", now)

    def govern(db: Any) -> None:
        channels.create(db, "stable", by, approvals_needed=0, second_person=False)
        following.follow(db, fleets.find(db, "follows"), channels.find(db, "stable"), by)

    plane.store.write_now(govern)
    rolling.create(plan(Phase(name="all", share_bp=10_000, soak_s=0), selector=selector))
    if selector:
        moved = 'UPDATE node SET fleet=2, labels=\'{"site": "a"}\''
        plane.store.write_now(lambda db: db.execute(moved).rowcount)
    rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await rolling.tick()
    running = operator.json("show", str(rolling.number))["new_nodes_elsewhere"]
    await rolling.succeeds(rolling.devices[0])
    await rolling.wait(400)

    told = operator.json("show", str(rolling.number))
    said = operator.says("show", str(rolling.number))

    assert told["state"] == "completed"
    assert running == []
    meant = {"": ["default", "lab"], "fleet=lab": ["lab"]}.get(selector, [])
    assert [one["fleet"] for one in told["new_nodes_elsewhere"]] == meant
    assert ("cloudly release set 2.0.0 --fleet lab" in said) is bool(meant)
    assert "follows" not in said
