"""What a Supervisor is made with, and what it noted of what it was told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from simulators.supervisor.engine import ContainerEvent
from simulators.supervisor.host_journal import KEPT
from simulators.supervisor.locks import LockDirectory
from simulators.supervisor.registry import Registry
from simulators.supervisor.state import Container, HostFacts
from simulators.supervisor.timings import Timings


class After(Enum):
    """What follows the end of one life of the Supervisor."""

    NOTHING = auto()
    RESTART = auto()
    BOOT = auto()
    POWER_ON = auto()


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that the Supervisor was told to do, or did to somebody else."""

    what: str
    """`update`, `reboot`, `shutdown`, `restart`, `purge`, `lock-deleted`, `power-cut`."""
    at_ms: int
    boot_id: str
    mono_s: float
    body: Any = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What a Supervisor is made with."""

    lock_directory: LockDirectory
    uuid: str | None = None
    """Drawn when None."""
    api_key: str | None = field(default=None, repr=False)
    """The key that opens everything; drawn when None."""
    state_directory: Path | None = None
    """Where what is kept survives this process; None: it does not."""
    host: HostFacts = field(default_factory=HostFacts)
    timings: Timings = field(default_factory=Timings)
    speed: float = 1.0
    api_endpoint: str = "https://127.0.0.1:8443"
    """What `GET /v2/local/target-state` shows as the source of apps."""
    on_reboot: Callable[[], Awaitable[None]] | None = None
    """Called when the host goes down, before it boots again: kill your agent here."""
    on_container: Callable[[ContainerEvent, Container], None] | None = None
    registry: Registry | None = None
    """Whom the engine asks before it pulls; None: images come from nowhere, at once."""
    poll_interval_s: float = 60.0
    """`appUpdatePollInterval` of config.json: until a target says otherwise."""
    journal_lines: int = KEPT
    """How much of the host's journal is kept."""
    moving_metrics: bool = False
    """Whether CPU and memory go up and down, and are reported every 300 s."""
    chatter_s: float = 0.0
    """How often every container prints two lines; 0: only what it prints at its start and its end."""
    lock_owner: Callable[[Path], int] | None = None
    """Who owns a lock file; None: the file system says."""
