"""What a reboot does: release the lock, ask, and look at the boot id."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from baserunner.drive import Happened, Later, Step, elapsed_s
from baserunner.locks import UpdateLock
from baserunner.neighbours.supervisor import Supervisor
from baserunner.problems import Locked, NeighbourProblem
from baserunner.reboot.machine import Reboot, deadline_s
from interfaces.world import World
from journal.recall import Stream

Attempt = Stream[Reboot]
Outcome = Happened | Later
LOOK_S = 5.0


class RebootSteps:
    """The steps of one run of the agent."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        supervisor: Supervisor | None,
        lock: UpdateLock,
        world: World,
        by: str,
        why_not: Callable[[], str],
        held_up: Callable[[], str],
    ) -> None:
        """`held_up`: which update locks of neighbours are held."""
        self._supervisor = supervisor
        self._lock = lock
        self._world = world
        self._by = by
        self._why_not = why_not
        self._held_up = held_up
        self._run_started = world.monotonic()
        self._asked = False

    @property
    def steps(self) -> Mapping[str, Step[Reboot]]:
        return {"new": self.new, "waiting": self.waiting, "rebooting": self.rebooting}

    async def new(self, _attempt: Attempt) -> Outcome:
        held_up = "" if self._refusal() else self._held_up()
        if held_up:
            return Happened("reboot-postponed", {"by": self._by, "reason": held_up})
        return self._judged(self._by)

    async def waiting(self, attempt: Attempt) -> Outcome:
        by, limit_s = attempt.believed.by, deadline_s(attempt.state, attempt.believed)
        held_up = self._held_up()
        if limit_s is not None and elapsed_s(attempt, self._world, self._run_started) >= limit_s:
            why = f"it has waited for {limit_s / 60:g} minutes: {held_up}"
            return Happened("reboot-refused", {"by": by, "reason": why})
        return Later(LOOK_S, held_up) if held_up else self._judged(by)

    def _judged(self, by: str) -> Happened:
        if refusal := self._refusal():
            return Happened("reboot-refused", {"by": by, "reason": refusal})
        return Happened("reboot-requested", {"by": by}, unless=self._held_up)

    def _refusal(self) -> str:
        return self._why_not() or ("" if self._supervisor else "there is no Supervisor to ask")

    async def rebooting(self, attempt: Attempt) -> Outcome:
        if self._world.boot_id() != attempt.believed.boot_id:
            self._lock.take()
            return Happened("rebooted")
        limit_s = deadline_s(attempt.state, attempt.believed)
        if limit_s is not None and elapsed_s(attempt, self._world, self._run_started) >= limit_s:
            self._lock.take()
            return Happened("reboot-failed", {"reason": "the host did not boot again in time"})
        if not self._asked and self._supervisor is not None:
            if why_not := self._why_not():
                return Happened("reboot-refused", {"by": self._by, "reason": why_not})
            self._lock.release()
            try:
                await self._supervisor.reboot()
            except Locked as locked:
                self._lock.take()
                return Happened("reboot-refused", {"by": self._by, "reason": str(locked)})
            except NeighbourProblem:
                self._lock.take()
                raise
            self._asked = True
        return Later(LOOK_S, "the Supervisor was asked")
