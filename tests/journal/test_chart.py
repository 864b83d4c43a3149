"""A chart is checked when it is written down, and is one map for recording, recalling and drawing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from journal import draw
from journal.chart import Arrow, Chart, Waits
from journal.problems import IllegalFact, Malformed
from tests.journal.given import BEAT, CHART

WAITS = Waits("us", "x", None, "y", "z")
ARROWS = (Arrow("go", "a", "b"), Arrow("back", "b", "a"), Arrow("end", "b", "c"))
SMALL: dict[str, Any] = {
    "name": "small",
    "initial": "a",
    "arrows": ARROWS,
    "waits": {"a": WAITS, "b": WAITS},
    "final": frozenset({"c"}),
}


def waits(states: str) -> dict[str, Waits]:
    return dict.fromkeys(states, WAITS)


# fmt: off
FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "an arrow twice":        ({"arrows": (*ARROWS, Arrow("go", "a", "c"))},  "a --go--> is drawn 2 times"),
    "unreachable":           ({"arrows": (*ARROWS, Arrow("end", "x", "c")),
                               "waits": waits("abx")},                       "'x' cannot be reached"),
    "nobody acts":           ({"waits": waits("a")},                         "who acts in 'b'"),
    "a way out of the end":  ({"arrows": (*ARROWS, Arrow("go", "c", "a"))},  "'c' is final and has a way out"),
    "no way out":            ({"final": frozenset(), "waits": waits("abc")}, "'c' is not final and has no way out"),
    "waits nowhere":         ({"waits": waits("abx")},                       "'x' has no arrow"),
    "waits at the end":      ({"waits": waits("abc")},                       "'c' is final and waits"),
    "an end without arrow":  ({"final": frozenset({"c", "d"})},              "'d' has no arrow"),
}
# fmt: on


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_in_a_chart_is_named_when_it_is_written_down(flaw: str) -> None:
    changes, said = FLAWS[flaw]

    Chart(**SMALL)
    with pytest.raises(Malformed) as caught:
        Chart(**{**SMALL, **changes})

    assert said in str(caught.value)


@pytest.mark.parametrize("chart", [CHART, BEAT], ids=lambda chart: chart.name)
def test_the_machine_allows_the_arrows_of_the_table_and_nothing_else(chart: Chart) -> None:
    drawn = {(arrow.src, arrow.kind): arrow.dst for arrow in chart.arrows}

    for state in chart.states:
        for kind in {arrow.kind for arrow in chart.arrows} | {"to_" + state, "nonsense"}:
            if (state, kind) in drawn:
                assert chart.next(state, kind) == drawn[state, kind]
            else:
                with pytest.raises(IllegalFact):
                    chart.next(state, kind)
    assert set(chart.machine.states) == set(chart.states)
    assert not chart.machine.models


def test_what_may_not_follow_says_what_may() -> None:
    with pytest.raises(IllegalFact) as caught:
        CHART.next("offered", "succeeded")

    assert caught.value.allowed == ("staged", "failed")
    with pytest.raises(IllegalFact, match="where only nothing may follow"):
        CHART.next("succeeded", "offered")
    with pytest.raises(IllegalFact):
        CHART.next("no such state", "offered")


GOLDEN = """\
stateDiagram-v2
    state "new (us)" as new
    state "offered (us)" as offered
    state "staged (us)" as staged
    state "applying (us)" as applying
    state "succeeded" as succeeded
    state "failed" as failed
    [*] --> new
    new --> offered: offered
    offered --> staged: staged
    offered --> failed: failed
    staged --> applying: apply-requested
    applying --> applying: asked-again
    applying --> succeeded: succeeded
    applying --> failed: failed
    succeeded --> [*]
    failed --> [*]
"""


def test_the_diagram_is_the_chart() -> None:
    assert CHART.mermaid() == GOLDEN
    assert set(draw.arrows(CHART)) == set(CHART.arrows)


def test_a_changed_arrow_changes_the_diagram() -> None:
    arrows = (*CHART.arrows[:-1], Arrow("failed", "staged", "failed"))

    assert replace(CHART, arrows=arrows).mermaid() != GOLDEN


def test_states_that_mermaid_cannot_name_get_an_alias() -> None:
    chart = Chart(
        name="x",
        initial="backing-off",
        arrows=(Arrow("go", "backing-off", "at rest"),),
        waits={"backing-off": WAITS},
        final=frozenset({"at rest"}),
    )

    assert 'state "backing-off (us)" as backing_off' in chart.mermaid()
    assert "backing_off --> at_rest: go" in chart.mermaid()


def test_the_text_for_terminals_has_a_line_for_each_arrow() -> None:
    lines = draw.text(CHART).splitlines()

    assert lines[0].split() == ["new", "--offered---------->", "offered"]
    assert len(lines) == len(CHART.arrows)
    assert len({line.index("-->") for line in lines}) == 1


def test_reading_and_writing_a_journal_loads_no_slow_library() -> None:
    program = (
        "import sys, journal.journal, journal.recall, journal.reader, journal.verify, journal.export\n"
        "print(*sorted({'transitions', 'sqlite_utils', 'pydantic', 'httpx'} & set(sys.modules)))\n"
        "from journal.chart import Arrow, Chart, Waits\n"
        "c = Chart('x', 'a', (Arrow('k', 'a', 'b'),), {'a': Waits('us', '', None, '', '')}, frozenset('b'))\n"
        "print('transitions' in sys.modules); c.mermaid(); print('transitions' in sys.modules)\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert run.stdout.split("\n") == ["", "False", "True", ""]
