"""Why something is not finished: what it waits for, who owns that, since when, until when, and what then.

`interfaces.why.lines` renders an answer as text: `baserunner why` prints it, and Cloudly too, of what was reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from baserunner.locks.machine import Lease
from baserunner.locks.told import MAX_REASON, holders, open_leases
from baserunner.machines import MACHINES
from baserunner.words import said
from interfaces.why import TRIED, when
from journal.facts import Fact, Stamp, StreamInfo
from journal.problems import Parked
from journal.recall import Stream, recall


@dataclass(frozen=True, slots=True)
class Why:
    """One open stream's answer, in words. Times in milliseconds since 1970, believable as far as they can be."""

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
    """The last three things that were tried, oldest first: sentences with their time."""


HELD_UP_IN = {("app-update", "staged"), ("app-update", "rollback-needed"), ("reboot", "waiting")}
"""Where the next fact is not written while a neighbour holds an update lock."""
_LOOK_BACK = 64
"""How many facts of its lane are looked at for what a stream did last; more, if these are others'."""


def explain(stream: Stream[Any]) -> Why:
    """The answer for one stream that has not ended."""
    known = MACHINES[stream.name.partition("/")[0]]
    waits = known.machine.chart.waits[stream.state]
    limit_s = known.deadline_s(stream.state, stream.believed)
    since_ms = believable_ms(stream.entered) if stream.entered else 0
    why = Why(
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
    return _held_by(why, stream.believed) if isinstance(stream.believed, Lease) else why


def _held_by(why: Why, lease: Lease) -> Why:
    """A lease's own answer names its holder, and what that said it needs it for."""
    return replace(
        why,
        waits_for=f"{lease.owner} to release it, or its time to end: {lease.holds_for[:MAX_REASON]}",
        until_ms=lease.until_ms,
    )


def _held_up(why: Why, leases: list[Lease]) -> Why:
    """What would be next, but for the update locks of neighbours: who holds them, why, since when, until when."""
    if not leases or (why.stream.partition("/")[0], why.state) not in HELD_UP_IN:
        return why
    also = f"; and {why.waits_for}" if why.state == "rollback-needed" else ""
    until_ms = max(lease.until_ms for lease in leases) if why.until_ms is None else why.until_ms
    return replace(
        why,
        waits_for=f"the update locks of neighbours to end: {holders(leases)}{also}",
        owner="onebox",
        until_ms=until_ms,
        then=f"{why.then}; an operator ends one sooner: `baserunner locks break`",
    )


def explain_all(
    journal: Any,
    machine: str | None = None,
    *,
    besides: str | None = None,
    held: Sequence[Stream[Lease]] | None = None,
) -> list[Why]:
    """The answers for all open streams, the oldest first. `journal`: a Journal or a Reader.

    `machine`: only this one, or only this stream. `besides`: all but this machine's. `held`: the update locks that are
    held, where they are known already.
    A stream that this agent cannot read on (a newer agent wrote it) is parked: that is its answer.
    """
    answers = []
    known = {stream.name: stream for stream in (open_leases(journal)[0] if held is None else held)}
    leases = [stream.believed for stream in known.values()]
    for info in journal.open_streams():
        name = info.name.partition("/")[0]
        if machine not in {None, name, info.name} or name == besides:
            continue
        if name not in MACHINES:
            answers.append(_parked(info.name, f"this agent knows no machine {name}"))
            continue
        try:
            stream = known.get(info.name) or recall(journal, info.name, MACHINES[name].machine)
        except Parked as parked:
            answers.append(_parked(info.name, str(parked)))
            continue
        if not stream.ended:
            why = _held_up(explain(stream), leases)
            answers.append(_with_tries(why, journal, info))
    return answers


def believable_ms(stamp: Stamp | Fact) -> int:
    """The device's time, corrected by what it knew of its error."""
    return stamp.at_ms + (stamp.skew_ms or 0)


def _with_tries(why: Why, journal: Any, info: StreamInfo) -> Why:
    return replace(why, tried=tuple(_tried(fact) for fact in _last_facts(journal, info)))


def _tried(fact: Fact) -> str:
    return f"{when(believable_ms(fact))}: {said(fact.kind, fact.data)}"


def _last_facts(journal: Any, info: StreamInfo) -> list[Fact]:
    """The newest transitions, without reading the whole stream: a run of heartbeats may be long."""
    if info.last is None:
        return []
    found: list[Fact] = []
    for after in _further_back(info.first_seq, info.last.seq):
        facts = journal.facts(lane=info.lane, stream=info.name, after=after)
        found = [fact for fact in facts if not fact.is_note][-TRIED:]
        if len(found) == TRIED:
            break
    return found


def _further_back(first: int, last: int) -> Iterator[int]:
    window = _LOOK_BACK
    while last - window >= first:
        yield last - window
        window *= 8
    yield first - 1


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
