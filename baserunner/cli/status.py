"""The one-shot answer to "is all well?", from the journal and the lock alone: no network, no waiting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baserunner.machines import MACHINES
from journal.facts import Lane
from journal.lock import holder
from journal.problems import JournalProblem, Parked
from journal.reader import open_reader
from journal.recall import Stream, recall

BAD_UPDATES = frozenset({"failed", "rollback-needed", "unclear"})
MISSES_TOLERATED = 3


@dataclass(slots=True)
class Status:
    """Times in milliseconds since 1970 by the device's clock."""

    healthy: bool
    problems: list[str]
    agent_pid: int | None = None
    node_id: str = ""
    enrollment: str = ""
    heartbeat: str = ""
    last_answer_ms: int | None = None
    release: str = ""
    """The release of the last attempt that succeeded or was rolled back to."""
    update: str = ""
    update_state: str = ""
    epoch: str = ""
    facts: int = 0
    unacked: int = 0


def status_of(home: Path) -> Status:
    """What the journal in `home` says."""
    seen = Status(healthy=False, problems=[])
    seen.agent_pid = holder(home)
    if seen.agent_pid is None:
        seen.problems.append("the agent does not run")
    try:
        with open_reader(home) as reader:
            _read(reader, seen)
    except JournalProblem as problem:
        seen.problems.append(str(problem))
    seen.healthy = not seen.problems
    return seen


def _read(reader: Any, seen: Status) -> None:
    seen.epoch = reader.epoch
    heads = {lane: reader.head(lane) for lane in Lane}
    seen.facts = sum(head.seq for head in heads.values())
    seen.unacked = sum(heads[lane].seq - reader.acked(lane).seq for lane in Lane)
    _read_enrollment(_latest(reader, "enrollment", seen), seen)
    _read_heartbeat(_latest(reader, "heartbeat", seen), seen)
    _read_update(reader, seen)


def _read_enrollment(stream: Stream[Any] | None, seen: Status) -> None:
    if stream is None:
        seen.problems.append("no enrollment has begun")
        return
    seen.enrollment = stream.state
    seen.node_id = stream.believed.node_id
    if not stream.ended:
        reason = f": {stream.believed.reason}" if stream.believed.reason else ""
        seen.problems.append(f"not enrolled: {stream.state}{reason}")


def _read_heartbeat(stream: Stream[Any] | None, seen: Status) -> None:
    if stream is None:
        return
    seen.heartbeat = stream.state
    seen.last_answer_ms = stream.believed.answered_at_ms
    if stream.believed.misses > MISSES_TOLERATED:
        seen.problems.append(
            f"{stream.believed.misses} heartbeats in a row without an answer: {stream.believed.reason}"
        )


def _read_update(reader: Any, seen: Status) -> None:
    latest = _latest(reader, "app-update", seen)
    if latest is None:
        return
    seen.update, seen.update_state = latest.name, latest.state
    if latest.state in BAD_UPDATES:
        seen.problems.append(f"{latest.name} is {latest.state}: {latest.believed.reason}")
    for info in reversed(reader.streams("app-update")):
        if info.state == "succeeded":
            believed = recall(reader, info.name, MACHINES["app-update"].machine).believed
            seen.release = f"{believed.target.version} ({believed.target.commit})"
            return
        if info.state == "rolled-back":
            believed = recall(reader, info.name, MACHINES["app-update"].machine).believed
            seen.release = f"{believed.rollback.version} ({believed.rollback.commit})"
            return


def _latest(reader: Any, machine: str, seen: Status) -> Stream[Any] | None:
    infos = reader.streams(machine)
    if not infos:
        return None
    try:
        return recall(reader, infos[-1].name, MACHINES[machine].machine)
    except Parked as parked:
        seen.problems.append(str(parked))
        return None
