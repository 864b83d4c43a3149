"""What a diagnosis does: look at each part of the device and say what is seen, and what to do about it.

Rules:
- It reads and changes nothing, and every look is bounded in time.
- What it found goes into the journal, so it is bounded and holds nothing that the log must not show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import anyio

from baserunner.diagnosis.machine import Diagnosis
from baserunner.drive import Happened, Step
from baserunner.finding import LITTLE_SPACE_BYTES, NO_SUPERVISOR, Finding, clock_finding
from baserunner.neighbours.supervisor import State, Supervisor
from baserunner.problems import LockProblem, NeighbourProblem
from baserunner.report import Seen
from baserunner.shared import Neighbours
from journal.facts import Lane
from journal.journal import Journal
from journal.recall import Stream

Attempt = Stream[Diagnosis]
LOOK_WITHIN_S = 30.0
HOT_C = 80.0
"""Where a Raspberry Pi begins to slow down."""
MAX_SEEN = 500
MAX_CONTAINERS = 50


class DiagnosisSteps:
    """The steps of one run of the agent."""

    def __init__(self, *, near: Neighbours, journal: Journal, seen: Seen, diagnosis: str) -> None:
        self._near = near
        self._journal = journal
        self._seen = seen
        self._diagnosis = diagnosis

    @property
    def steps(self) -> Mapping[str, Step[Diagnosis]]:
        return {"new": self.new, "looking": self.looking}

    async def new(self, _attempt: Attempt) -> Happened:
        return Happened("diagnosis-asked", {"diagnosis": self._diagnosis})

    async def looking(self, attempt: Attempt) -> Happened:
        findings = [
            self._space("disk", self._near.host.disk()),
            self._space("memory", self._near.host.memory()),
            self._temperature(),
            self._clock(),
            self._journal_found(),
            self._open_work(),
            self._lock(),
            *await self._supervisor(),
        ]
        told = [asdict(self._bounded(one)) for one in findings if one is not None]
        return Happened(
            "diagnosis-answered",
            {
                "diagnosis": attempt.believed.diagnosis,
                "said": in_short(told),
                "findings": told,
            },
        )

    def _bounded(self, finding: Finding) -> Finding:
        redact: Callable[[str], str] = self._near.redact
        return Finding(finding.verdict, finding.what, redact(finding.seen)[:MAX_SEEN], finding.todo)

    def _space(self, what: str, space: object) -> Finding | None:
        total, free = getattr(space, "total_bytes", None), getattr(space, "free_bytes", None)
        if total is None or free is None:
            return Finding("note", what, "cannot be read")
        seen = f"{free // 1_000_000} of {total // 1_000_000} MB free"
        if free < LITTLE_SPACE_BYTES:
            return Finding("bad", what, seen, "make room")
        return Finding("ok", what, seen)

    def _temperature(self) -> Finding | None:
        celsius = self._near.host.temperature_c()
        if celsius is None:
            return None
        hot = celsius >= HOT_C
        return Finding("note" if hot else "ok", "temperature", f"{celsius:.0f} °C")

    def _clock(self) -> Finding:
        skew_s = self._seen.skew_s
        if skew_s is None:
            return Finding("note", "clock", "Cloudly has not told the time since this boot")
        return clock_finding(-skew_s)

    def _journal_found(self) -> Finding:
        journal = self._journal
        unshipped = sum(journal.head(lane).seq - journal.acked(lane).seq for lane in Lane)
        seen = (
            f"epoch {journal.epoch}, {journal.used_bytes() // 1000} kB,"
            f" {unshipped} facts that Cloudly has not acknowledged"
        )
        return Finding("ok", "journal", seen)

    def _open_work(self) -> Finding:
        names = [f"{info.name} {info.state}" for info in self._journal.open_streams()]
        return Finding("ok", "under way", ", ".join(names[:20]) or "nothing")

    def _lock(self) -> Finding:
        try:
            held = "ours" if self._near.lock.is_ours() else "not ours"
            seen = held if self._near.lock.exists() else "nobody holds it"
        except LockProblem as problem:
            return Finding("bad", "update lock", str(problem), "look at the lock directory")
        return Finding("ok", "update lock", seen)

    async def _supervisor(self) -> list[Finding]:
        supervisor = self._near.supervisor
        if supervisor is None:
            return [Finding("note", "supervisor", "no address and key are set", NO_SUPERVISOR)]
        try:
            with anyio.fail_after(LOOK_WITHIN_S):
                return await _asked(supervisor)
        except (NeighbourProblem, TimeoutError) as problem:
            seen = str(problem) or "it did not answer in time"
            return [Finding("bad", "supervisor", seen, "check that the Supervisor runs")]


def in_short(findings: list[dict[str, str]]) -> str:
    """What is not well, in a line."""
    verdicts = {one["what"]: one["verdict"] for one in findings if one["verdict"] != "ok"}
    if not verdicts:
        return f"{len(findings)} parts, all well"
    return ", ".join(f"{what}: {verdict}" for what, verdict in verdicts.items())


async def _asked(supervisor: Supervisor) -> list[Finding]:
    device, state = await supervisor.device(), await supervisor.state()
    running = (
        f"version {device.supervisor_version}, {state.app_state}, release {state.release or 'none'}"
    )
    return [Finding("ok", "supervisor", running), *_containers(state)]


def _containers(state: State) -> list[Finding]:
    return [
        Finding(
            "ok" if one.status == "Running" else "bad",
            f"service {one.service}"[:100],
            one.status,
            "" if one.status == "Running" else "look at its logs: `cloudly node logs`",
        )
        for one in state.containers[:MAX_CONTAINERS]
    ]
