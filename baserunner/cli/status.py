"""The one-shot answer to "is all well?", from the journal and the lock alone: no network, no waiting."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baserunner.cli.show import barred
from baserunner.locks.told import in_words, open_leases
from baserunner.machines import MACHINES
from baserunner.words import said
from journal.facts import Lane
from journal.lock import holder
from journal.opening import check_tail
from journal.problems import Damaged, JournalProblem, NoJournal, Parked
from journal.reader import open_reader
from journal.recall import Stream, recall
from journal.verify import began

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
    update_version: str = ""
    """What the newest attempt was, or is, to bring."""
    update_state: str = ""
    locks: list[str] = field(default_factory=list)
    """Who holds updates up, in words, the oldest first."""
    epoch: str = ""
    epoch_began: str = ""
    """Why it follows another one, in words; empty: it is the device's first, or nothing can be read."""
    facts: int = 0
    unacked: int = 0
    """Facts that Cloudly has not yet acked; most are heartbeats and progress, which may wait some minutes."""
    damaged: bool = False
    """The journal cannot be read as a whole: what is not named here is unknown."""
    unacked_core: int = 0
    """Transitions among them: these are shipped at once."""


def status_of(home: Path) -> Status:
    """What the journal in `home` says."""
    seen = Status(healthy=False, problems=[])
    if reason := barred(home):
        seen.problems.append(reason)
        return seen
    seen.agent_pid = holder(home)
    if seen.agent_pid is None:
        seen.problems.append("the agent does not run: start `baserunner run`")
    try:
        with open_reader(home) as reader:
            _read(reader, seen)
            check(reader, home)
    except NoJournal:
        seen.problems.append(f"there is no journal in {home}: the agent makes it when it starts")
    except Damaged as problem:
        seen.damaged = True
        seen.problems.append(f"{problem} (`baserunner journal verify` says where)")
    except JournalProblem as problem:
        seen.problems.append(str(problem))
    seen.healthy = not seen.problems
    return seen


def check(reader: Any, where: Path) -> None:
    """Look at the newest facts as a writer would before it begins. Raises Damaged.

    Twice: between two questions the agent may have gone on.
    """
    try:
        check_tail(reader, where)
    except Damaged:
        check_tail(reader, where)


def _read(reader: Any, seen: Status) -> None:
    seen.epoch = reader.epoch
    if told := began(reader):
        seen.epoch_began = said("epoch-began", json.dumps(told))
    unacked = {lane: reader.head(lane).seq - reader.acked(lane).seq for lane in Lane}
    seen.facts = sum(reader.head(lane).seq for lane in Lane)
    seen.unacked, seen.unacked_core = sum(unacked.values()), unacked[Lane.CORE]
    _read_enrollment(_latest(reader, "enrollment", seen), seen)
    _read_heartbeat(_latest(reader, "heartbeat", seen), seen)
    _read_update(reader, seen)
    seen.locks = [in_words(stream.believed) for stream in open_leases(reader)[0]]


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
    seen.update_version = latest.believed.target.version
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
