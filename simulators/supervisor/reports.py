"""When the Supervisor reports its state: at a change, at most every 10 s; metrics alone every 300 s.

Rules:
- A change is reported at once, unless the last report that was taken is not 10 s old: then at the next stroke of a
  10 s clock that started with the first report, or at a change after those 10 s. So 10 to 20 s lie between two.
- The first report says what was true a second before it goes out: that is how long the first metrics take.
- While a report waits to be taken, no other is made; each attempt says what is true then.
- The last report that was taken survives a restart of the Supervisor, not a reboot of the host.

Source: the times of the PATCHes in `backend/first-boot.json` and `backend/updates.json`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import anyio

from simulators.supervisor.back_off import hand_in
from simulators.supervisor.report_body import difference, full_report
from simulators.supervisor.sources import Reported, TargetSource

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor


A_HAIR: Final = 1e-6


class Reports:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._changed = anyio.Event()
        self._first: dict[str, Any] | None = None
        self._deferred = False
        self._began_s = 0.0
        self._taken_s: float | None = None

    def something_changed(self) -> None:
        """There may be something to report."""
        self._changed.set()

    async def run(self, source: TargetSource) -> None:
        """Report for ever."""
        supervisor, timings = self._supervisor, self._supervisor.setup.timings
        self._taken_s, self._changed = None, anyio.Event()
        self._first = full_report(supervisor, supervisor.kept.reported)
        await supervisor.engine.spend(timings.first_report_s)
        self._began_s = self._now_s()
        while True:
            await hand_in(supervisor, "Device state", lambda: self._attempt(source))
            self._deferred = self._changed.is_set()
            await self._next_occasion()
            self._changed = anyio.Event()

    async def _attempt(self, source: TargetSource) -> Reported | None:
        """How the difference was taken; None when there is none worth a report."""
        kept = self._supervisor.kept
        last: dict[str, Any] = kept.reported
        now = self._first or full_report(self._supervisor, last)
        self._first = None
        differs = difference(last, now)
        if differs is None or (differs.is_metrics_alone and not self._metrics_are_due()):
            return None
        answer = await source.report(kept.identity, {kept.identity.uuid: differs.told})
        if answer.taken:
            kept.reported, self._taken_s = now, self._now_s()
            self._supervisor.save()
        return answer

    async def _next_occasion(self) -> None:
        """Wait for a change that may be reported, or for the clock."""
        while True:
            if self._deferred and self._changed.is_set():
                self._changed = anyio.Event()
            with anyio.move_on_after(self._until_stroke_s() / self._supervisor.engine.speed):
                await self._changed.wait()
            came = self._changed.is_set()
            if self._is_free() and (came or self._deferred or self._metrics_are_due()):
                return
            if came:
                self._deferred, self._changed = True, anyio.Event()

    def _until_stroke_s(self) -> float:
        """Until the clock strikes next at a time that matters; infinite when nothing is waited for."""
        timings, taken_s = self._supervisor.setup.timings, self._taken_s
        every_s, now_s = timings.report_every_s, self._now_s()
        if self._deferred:
            wanted_s = now_s if taken_s is None else max(now_s, taken_s + every_s)
        elif self._supervisor.setup.moving_metrics:
            wanted_s = now_s if taken_s is None else max(now_s, taken_s + timings.metrics_every_s)
        else:
            return math.inf
        strokes = max(
            math.ceil((wanted_s - self._began_s) / every_s - A_HAIR),
            math.floor((now_s - self._began_s) / every_s + A_HAIR) + 1,
        )
        return self._began_s + strokes * every_s - now_s

    def _is_free(self) -> bool:
        every_s = self._supervisor.setup.timings.report_every_s
        return self._taken_s is None or self._now_s() - self._taken_s >= every_s - A_HAIR

    def _metrics_are_due(self) -> bool:
        every_s = self._supervisor.setup.timings.metrics_every_s
        return self._taken_s is None or self._now_s() - self._taken_s >= every_s - A_HAIR

    def _now_s(self) -> float:
        """The monotonic clock in the Supervisor's own seconds."""
        return self._supervisor.world.monotonic() * self._supervisor.engine.speed
