"""What the tasks of one life share: the journal, the neighbours, what was learned, and the bells that wake them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from baserunner.attempt_log import AttemptLog
from baserunner.clock import Clock
from baserunner.drive import Alarm, Driver
from baserunner.locks import UpdateLock
from baserunner.locks.leases import Leases
from baserunner.locks.moments import why_no_lock
from baserunner.neighbours.cloudly import Cloudly
from baserunner.neighbours.host import Host
from baserunner.neighbours.supervisor import Supervisor
from baserunner.recent import RecentLines
from baserunner.report import Seen, SupervisorSight
from baserunner.settings import Settings
from interfaces.desired import DesiredState
from interfaces.world import World, new_id
from journal.journal import Journal
from journal.recall import Stream

OUTCOMES = frozenset({"rollback-needed", "succeeded", "rolled-back", "failed"})
"""States that Cloudly is told of at once."""


@dataclass(slots=True)
class Neighbours:
    """Who a life talks to."""

    world: World
    clock: Clock
    cloudly: Cloudly
    supervisor: Supervisor | None
    host: Host
    lock: UpdateLock
    recent: RecentLines
    redact: Callable[[str], str]
    """Replaces in a text what the log must never show."""
    points: Callable[[str], None] = lambda _: None
    hide: Callable[[str], None] = lambda _: None
    """Told each secret that the log must never show."""


@dataclass
class Shared:
    """Written by the one task that it belongs to, read by all."""

    settings: Settings
    journal: Journal
    near: Neighbours
    seen: Seen = field(default_factory=Seen)
    sight: SupervisorSight | None = None
    """The last look at the Supervisor; None: there was none yet."""
    desired: DesiredState | None = None
    """What Cloudly wants; None while it has not said so, or does not know this node."""
    diagnosis: str | None = None
    """The id of the diagnosis that Cloudly asks for, if it does."""
    node_token: SecretStr | None = None
    """While Cloudly knows this node."""
    want_beat: Callable[[], None] = lambda: None
    """The next heartbeat is due as soon as it may be."""
    hold: Callable[[], None] = lambda: None
    """How far the journal has come is held outside the data directory, too."""

    def __post_init__(self) -> None:
        self.writer = new_id(self.near.world)
        """This opening of the journal: Cloudly tells two that speak in turn apart by it."""
        near = self.near
        self.attempt_log = AttemptLog(
            journal=self.journal,
            world=near.world,
            supervisor=near.supervisor,
            host=near.host,
            recent=near.recent,
            redact=near.redact,
        )
        self.leases = Leases(
            self.journal,
            near.world,
            near.lock,
            home=self.settings.home,
            why_not_lock=lambda: why_no_lock(self.journal),
            changed=self._lease_changed,
        )
        self.update_alarm = Alarm()
        self.lease_alarm = Alarm()
        self.ship_alarm = Alarm()
        self.enroll_alarm = Alarm()
        self.diagnosis_alarm = Alarm()

    def driver(self, retry_s: float) -> Driver:
        return Driver(
            world=self.near.world,
            retry_s=retry_s,
            recorded=self.recorded,
            before=self.attempt_log.before,
            points=self.near.points,
        )

    def _lease_changed(self) -> None:
        """What waited for the last one goes on at once."""
        self.ship_alarm.ring()
        self.hold()
        self.lease_alarm.ring()
        if not self.leases.held():
            self.update_alarm.ring()

    def recorded(self, stream: Stream[Any]) -> None:
        """A transition was written: Cloudly gets it soon, and an outcome at once."""
        self.ship_alarm.ring()
        self.hold()
        if stream.state in OUTCOMES:
            self.want_beat()
