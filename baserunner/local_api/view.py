"""What the agent says of itself to a neighbour: from its journal and what it last learned, without asking anybody.

What is read from the journal is kept for a second: a neighbour that asks fast costs no more than one that asks slowly.
"""

from __future__ import annotations

from baserunner import __version__
from baserunner.control import Control
from baserunner.report import update_report, waiting
from baserunner.shared import Shared
from baserunner.updates import Updates
from baserunner.why import explain_all
from interfaces.local import PROTOCOL, Capability, Handshake, Lock, Running, RuntimeStatus

KEEP_S = 1.0


class AgentView:
    """Of one life of the agent."""

    def __init__(self, shared: Shared, control: Control, updates: Updates) -> None:
        self._shared = shared
        self._control = control
        self._updates = updates
        self._kept: RuntimeStatus | None = None
        self._kept_at = 0.0

    def handshake(self) -> Handshake:
        return Handshake(
            protocol=PROTOCOL,
            agent_version=__version__,
            node_id=self._node_id(),
            boot_id=self._shared.near.world.boot_id(),
            capabilities=tuple(Capability),
        )

    def status(self) -> RuntimeStatus:
        now_s = self._shared.near.world.monotonic()
        if self._kept is None or now_s - self._kept_at >= KEEP_S:
            self._kept, self._kept_at = self._look(), now_s
        locks = self._shared.leases.held()
        why_not = why_not_reboot(self._updates.why_not_reboot(), locks)
        return self._kept.model_copy(
            update={"locks": locks, "may_reboot": not why_not, "why_not_reboot": why_not}
        )

    def _look(self) -> RuntimeStatus:
        shared, update = self._shared, self._updates.current
        held = shared.leases.streams()
        open_update = update if update is not None and not update.ended else None
        return RuntimeStatus(
            node_id=self._node_id(),
            enrolled=shared.node_token is not None,
            enrollment=self._control.enrollment_in_words()[:2000],
            release=self._running(),
            update=update_report(open_update, self._updates.progress_percent),
            waiting=waiting(explain_all(shared.journal, besides="heartbeat", held=held)),
            locks=(),
            may_reboot=True,
            why_not_reboot=(),
        )

    def _node_id(self) -> str | None:
        identity = self._control.identity
        return identity.node_id if identity is not None and identity.node_token else None

    def _running(self) -> Running | None:
        commit = self._shared.sight.release if self._shared.sight is not None else None
        if commit is None:
            return None
        return Running(commit=commit, version=self._updates.version_of(commit))


def why_not_reboot(update: str, locks: tuple[Lock, ...]) -> tuple[str, ...]:
    """Why the device may not be rebooted now, each reason in words. `update`: what the update says of it."""
    held = tuple(f"{lock.owner} holds an update lock: {lock.reason}"[:2000] for lock in locks)
    return ((update[:2000],) if update else ()) + held
