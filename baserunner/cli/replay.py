"""`journal replay`: state and belief after each fact of an attempt, by the machine's own fold.

What the agent would know if it had been killed right there; a fact that it could not read parks the replay too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any

from baserunner.cli import asked, pages, show
from baserunner.cli.clock import Clock
from baserunner.machines import MACHINES
from baserunner.words import said
from interfaces.why import printable

if TYPE_CHECKING:
    from journal.facts import Fact
    from journal.survey import Survey

Step = tuple["Fact", str, dict[str, Any]]
"""A fact, the state after it, and what was believed then."""


def print_replay(  # noqa: PLR0913 - the options of a command
    survey: Survey, name: str, until: int | None, limit: int | None, *, pager: bool, as_json: bool
) -> None:
    """Exits 1 if there is no such stream, if its machine is unknown, or if it parks on the way."""
    machine = show.machine_of(asked.stream_name(name))
    if survey.stream(name) is None:
        show.fail(f"there is no stream {name}: see `baserunner journal list`", 1)
    steps, trouble = _steps(survey, name, machine)
    lane = MACHINES[machine].machine.chart.lane
    shown = islice((step for step in steps if until is None or step[0].seq <= until), limit)
    if as_json:
        pages.out(map(_json, shown))
    elif steps:
        pages.out(_lines(shown, Clock(survey)), pager=pager)
    if trouble and (until is None or not steps or steps[-1][0].seq < until):
        show.fail(trouble, 1)
    if not steps or (until is not None and until < steps[0][0].seq):
        show.fail(
            f"{name} has no fact up to there: its first is {lane.value} {steps[0][0].seq if steps else '-'}",
            1,
        )


def _steps(survey: Survey, name: str, machine: str) -> tuple[list[Step], str]:
    """Recalls the attempt and listens to the fold. The second: why it parked, if it did."""
    from journal.problems import Parked
    from journal.recall import recall

    known, steps = MACHINES[machine].machine, []

    def fold(believed: Any, fact: Fact) -> Any:
        after = known.fold(believed, fact)
        steps.append((fact, fact.dst, plainly(after)))
        return after

    try:
        recall(survey, name, replace(known, fold=fold))
    except Parked as parked:
        return steps, str(parked)
    return steps, ""


def _lines(steps: Iterator[Step], clock: Clock) -> Iterator[str]:
    before: dict[str, Any] = {}
    for fact, state, belief in steps:
        colour = show.STATE_COLOURS.get(state)
        at = clock.at(fact).day_and_time
        yield f"{fact.lane.value} {fact.seq}  {at}  {printable(fact.kind)}: {said(fact.kind, fact.data)}"
        yield "  " + show.paint(f"state {printable(fact.src)} -> {state}", colour)
        for key, value in flat(belief).items():
            old = before.get(key, "")
            if old != value:
                yield f"    {key}: {printable(old) + ' -> ' if old else ''}{printable(value) or 'nothing'}"
        before = flat(belief)


def _json(step: Step) -> str:
    fact, state, belief = step
    told = {
        "lane": fact.lane.value,
        "seq": fact.seq,
        "n": fact.n,
        "kind": fact.kind,
        "src": fact.src,
        "state": state,
        "belief": belief,
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def plainly(believed: Any) -> Any:
    """A belief as JSON could hold it."""
    if is_dataclass(believed):
        return {field.name: plainly(getattr(believed, field.name)) for field in fields(believed)}
    if isinstance(believed, dict):
        return {str(key): plainly(value) for key, value in believed.items()}
    if isinstance(believed, list | tuple | set | frozenset):
        return [plainly(value) for value in believed]
    if isinstance(believed, Enum):
        return believed.value
    return believed if isinstance(believed, str | int | float | bool | None) else str(believed)


def flat(belief: Any, path: str = "") -> dict[str, str]:
    """`policy.health_soak_s: 2.0`, one entry a value; what is empty is left out of sight."""
    if isinstance(belief, dict):
        found: dict[str, str] = {}
        for key, value in belief.items():
            found.update(flat(value, f"{path}.{key}" if path else str(key)))
        return found
    return {path: "" if belief in ("", None, []) else json.dumps(belief, ensure_ascii=False)}
