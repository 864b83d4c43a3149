"""Reported state: what a node says it is. Every part may be unknown; unknown is None, never a guess."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from interfaces.journal import Ack
from interfaces.why import TRIED
from interfaces.wire import Id, Line, Wire


class ClockState(StrEnum):
    """How far the device's wall clock can be believed."""

    TRUSTED = "trusted"
    """Within a minute of Cloudly's clock at the last answer."""
    SKEWED = "skewed"
    UNKNOWN = "unknown"
    """Cloudly has not answered since this boot."""


class Space(Wire):
    total_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0)


class SupervisorReport(Wire):
    available: bool
    version: str | None = Field(default=None, max_length=100)
    problem: Line | None = None


def _last_three(tried: Any) -> Any:
    return tried[-TRIED:] if isinstance(tried, list | tuple) else tried


class Waiting(Wire):
    """Why something is not finished: the answer of `baserunner why`, machine by machine."""

    stream: str = Field(max_length=100)
    state: str = Field(max_length=100)
    waits_for: Line
    owner: str = Field(max_length=50)
    """us, supervisor, host, cloudly, onebox or operator."""
    since_ms: int
    until_ms: int | None = None
    then: Line = ""
    """What happens when `until_ms` passes."""
    resume: Line = ""
    """What is done first after a restart."""
    reason: Line = ""
    """The last problem; empty: there was none."""
    tried: Annotated[tuple[Line, ...], BeforeValidator(_last_three)] = Field(
        default=(), max_length=TRIED
    )
    """The last things that were tried, the oldest first: sentences. Of more than three the last three are kept."""


class UpdateReport(Wire):
    """Where the update to a release stands."""

    stream: str = Field(max_length=100)
    deployment: Id
    release: Id
    version: str = Field(max_length=200)
    state: str = Field(max_length=100)
    progress_percent: int | None = Field(default=None, ge=0, le=100)


class HeldLock(Wire):
    """An update lock that a neighbour on the device holds: updates wait for it."""

    stream: str = Field(max_length=100)
    """As the device's journal and its operator's commands name it."""
    owner: str = Field(max_length=64)
    reason: Line
    since_ms: int
    until_ms: int
    """Unless it is renewed."""


class ReportedState(Wire):
    """What is."""

    observed_generation: int = Field(default=0, ge=0, le=2**53)
    release: Id | None = None
    """The release that the Supervisor says is running."""
    update: UpdateReport | None = None
    supervisor: SupervisorReport
    host_os_version: str | None = Field(default=None, max_length=200)
    addresses: tuple[str, ...] = Field(default=(), max_length=32)
    boot_id: str = Field(max_length=64)
    uptime_s: float = Field(ge=0)
    disk: Space | None = None
    memory: Space | None = None
    temperature_c: float | None = None
    clock: ClockState = ClockState.UNKNOWN
    journal: tuple[Ack, ...] = Field(default=(), max_length=2)
    """The head of each lane on the device."""
    degraded: tuple[Line, ...] = Field(default=(), max_length=20)
    """Why the agent does nothing to the device; empty when all is well."""
    waiting: tuple[Waiting, ...] = Field(default=(), max_length=20)
    locks: tuple[HeldLock, ...] = Field(default=(), max_length=64)
