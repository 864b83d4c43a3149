"""Building the reported state: what the agent can see of its device, at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from baserunner.locks.machine import Lease
from baserunner.neighbours.host import Host
from baserunner.neighbours.supervisor import Device, Supervisor
from baserunner.problems import NeighbourProblem
from baserunner.why import Why, explain_all
from interfaces.journal import Ack, Lane
from interfaces.reported import (
    ClockState,
    HeldLock,
    ReportedState,
    SupervisorReport,
    UpdateReport,
    Waiting,
)
from interfaces.world import World
from journal.facts import Lane as JournalLane
from journal.recall import Stream

SKEWED_S = 60.0
MAX_WORDS = 2000
"""What a sentence on the wire may hold (`interfaces.wire.Line`)."""


@dataclass(slots=True)
class Seen:
    """What this run has learned from Cloudly's answers; forgotten by a restart, learned again by the next answer."""

    skew_s: float | None = None
    """Cloudly's clock minus ours."""
    observed_generation: int = 0


def clock_state(skew_s: float | None) -> ClockState:
    if skew_s is None:
        return ClockState.UNKNOWN
    return ClockState.TRUSTED if abs(skew_s) <= SKEWED_S else ClockState.SKEWED


@dataclass(frozen=True, slots=True)
class SupervisorSight:
    """One look at the Supervisor."""

    report: SupervisorReport
    device: Device | None = None
    release: str | None = None


async def look_at_supervisor(supervisor: Supervisor | None) -> SupervisorSight:
    """What it says of itself; a problem is part of the answer."""
    if supervisor is None:
        return SupervisorSight(
            SupervisorReport(available=False, problem="no address and key are set")
        )
    try:
        device = await supervisor.device()
        state = await supervisor.state()
    except NeighbourProblem as problem:
        return SupervisorSight(SupervisorReport(available=False, problem=str(problem)[:2000]))
    version = device.supervisor_version
    return SupervisorSight(
        SupervisorReport(available=True, version=version), device=device, release=state.release
    )


def report(  # noqa: PLR0913 - a report has many sources, each once
    *,
    world: World,
    host: Host,
    sight: SupervisorSight,
    seen: Seen,
    journal: Any | None,
    update: Stream[Any] | None = None,
    progress_percent: int | None = None,
    degraded: tuple[str, ...] = (),
    held: Sequence[Stream[Lease]] = (),
) -> ReportedState:
    """The reported state. `journal`: None while it cannot be opened. `held`: the update locks that are live."""
    device = sight.device
    addresses = tuple(device.ip_address.split()) if device else host.addresses()
    return ReportedState(
        observed_generation=seen.observed_generation,
        release=sight.release,
        update=update_report(update, progress_percent),
        supervisor=sight.report,
        host_os_version=device.os_version if device else None,
        addresses=addresses[:32],
        boot_id=world.boot_id(),
        uptime_s=host.uptime_s(),
        disk=host.disk(),
        memory=host.memory(),
        temperature_c=host.temperature_c(),
        clock=clock_state(seen.skew_s),
        journal=() if journal is None else tuple(_head(journal, lane) for lane in JournalLane),
        degraded=tuple(reason[:2000] for reason in degraded[:20]),
        waiting=()
        if journal is None
        else waiting(explain_all(journal, besides="heartbeat", held=held)),
        locks=tuple(_lock(stream) for stream in held),
    )


def update_report(stream: Stream[Any] | None, progress_percent: int | None) -> UpdateReport | None:
    """None: there is no update."""
    if stream is None:
        return None
    believed = stream.believed
    return UpdateReport(
        stream=stream.name,
        deployment=believed.deployment,
        release=believed.target.commit,
        version=believed.target.version,
        state=stream.state,
        progress_percent=progress_percent if stream.state == "downloading" else None,
    )


def _lock(stream: Stream[Lease]) -> HeldLock:
    """Times of the wall clock, as far as its error is known."""
    lease = stream.believed
    return HeldLock(
        stream=stream.name,
        owner=lease.owner,
        reason=lease.holds_for,
        since_ms=lease.since_ms,
        until_ms=lease.until_ms,
    )


def _head(journal: Any, lane: JournalLane) -> Ack:
    head = journal.durable_head(lane)
    return Ack(epoch=journal.epoch, lane=Lane(lane.value), seq=head.seq, hash=head.hash.hex())


def waiting(answers: list[Why]) -> tuple[Waiting, ...]:
    return tuple(
        Waiting(
            stream=why.stream,
            state=why.state,
            waits_for=why.waits_for[:MAX_WORDS],
            owner=why.owner,
            since_ms=why.since_ms,
            until_ms=why.until_ms,
            then=why.then[:MAX_WORDS],
            resume=why.resume[:MAX_WORDS],
            reason=why.reason[:MAX_WORDS],
            tried=tuple(words[:MAX_WORDS] for words in why.tried),
        )
        for why in answers[:20]
    )
