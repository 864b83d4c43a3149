"""What time it is, and how far that can be trusted: the stamp of every fact.

Cloudly tells its time with every heartbeat's answer. From then on, until the next boot, the true time is known by the
monotonic clock, whatever happens to the wall clock meanwhile: it may start in 1970 and jump by years.
"""

from __future__ import annotations

from interfaces.world import World, now_ms
from journal.facts import Stamp

LAST_MS = 253_402_300_799_000
"""The end of the calendar: who says that it is later has no clock to believe."""


class Clock:
    def __init__(self, world: World) -> None:
        self._world = world
        self._boot_id = ""
        self._offset_ms = 0
        """Cloudly's time minus our monotonic clock."""

    def told(self, time_ms: int) -> None:
        """Cloudly has said what time it is now."""
        if not 0 <= time_ms <= LAST_MS:
            return
        self._boot_id = self._world.boot_id()
        self._offset_ms = time_ms - self._mono_ms()

    def skew_ms(self) -> int | None:
        """What to add to the wall clock for the true time; None: nobody has told the time since this boot."""
        return self.stamp().skew_ms

    def stamp(self) -> Stamp:
        at_ms, boot_id, mono_ms = now_ms(self._world), self._world.boot_id(), self._mono_ms()
        told = boot_id == self._boot_id
        return Stamp(at_ms, boot_id, mono_ms, mono_ms + self._offset_ms - at_ms if told else None)

    def _mono_ms(self) -> int:
        return round(self._world.monotonic() * 1000)
