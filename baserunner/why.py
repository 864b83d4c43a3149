"""Why something is not finished: what it waits for, who owns that, since when, until when, and what then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from baserunner.machines import MACHINES
from journal.problems import Parked
from journal.recall import Stream, recall


@dataclass(frozen=True, slots=True)
class Why:
    """One open stream's answer. Times in milliseconds since 1970 by the device's clock."""

    stream: str
    state: str
    waits_for: str
    owner: str
    since_ms: int
    until_ms: int | None
    then: str
    resume: str
    reason: str
    """The last problem, in words; empty if there was none."""
    tried: tuple[str, ...]
    """The last three facts, oldest first."""


def explain(stream: Stream[Any]) -> Why:
    """The answer for one stream that has not ended."""
    known = MACHINES[stream.name.partition("/")[0]]
    waits = known.machine.chart.waits[stream.state]
    limit_s = known.deadline_s(stream.state, stream.believed)
    since_ms = stream.entered.at_ms if stream.entered else 0
    return Why(
        stream=stream.name,
        state=stream.state,
        waits_for=waits.waits_for,
        owner=waits.owner,
        since_ms=since_ms,
        until_ms=None if limit_s is None else since_ms + round(limit_s * 1000),
        then=waits.then,
        resume=waits.resume,
        reason=getattr(stream.believed, "reason", ""),
        tried=(),
    )


def explain_all(
    journal: Any, machine: str | None = None, *, besides: str | None = None
) -> list[Why]:
    """The answers for all open streams, the oldest first. `journal`: a Journal or a Reader.

    `machine`: only this one, or only this stream. `besides`: all but this machine's.
    A stream that this agent cannot read on (a newer agent wrote it) is parked: that is its answer.
    """
    answers = []
    for info in journal.open_streams():
        name = info.name.partition("/")[0]
        if machine not in {None, name, info.name} or name == besides:
            continue
        if name not in MACHINES:
            answers.append(_parked(info.name, f"this agent knows no machine {name}"))
            continue
        try:
            stream = recall(journal, info.name, MACHINES[name].machine)
        except Parked as parked:
            answers.append(_parked(info.name, str(parked)))
            continue
        if not stream.ended:
            answers.append(_with_tries(explain(stream), journal))
    return answers


def _with_tries(why: Why, journal: Any) -> Why:
    facts = journal.facts(stream=why.stream)[-3:]
    tried = tuple(f"{fact.kind} ({fact.src} -> {fact.dst})" for fact in facts)
    return Why(**{**{name: getattr(why, name) for name in why.__slots__}, "tried": tried})


def _parked(stream: str, reason: str) -> Why:
    return Why(
        stream=stream,
        state="parked",
        waits_for="an agent that can read it",
        owner="operator",
        since_ms=0,
        until_ms=None,
        then="nothing is done with it; nothing of it is lost",
        resume="install the agent that wrote it",
        reason=reason,
        tried=(),
    )
