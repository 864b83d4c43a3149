"""The device's tags: asked of the backend each time, and told to it when a program on the device sets some.

Rules:
- `PATCH /v2/device/tags` answers 202 at once; `PATCH /device/v3/tags` with what the backend has not taken yet follows,
  at most every 10 s, until it is taken. What it was told before is not told again.
- Tags that were not taken survive a restart.

Source: `device-api/{GET,PATCH}_v2_device_tags.json`, `backend/first-boot.json` row 9; the pace and the body
`{uuid: {tag: value}}`: (code).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from simulators.supervisor.back_off import hand_in
from simulators.supervisor.sources import Reported, TargetSource

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor


class Tags:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._reporting = False

    def wake_up(self) -> None:
        """The Supervisor starts: go on with what was not taken."""
        self._reporting = False
        self._go_on()

    def set(self, tags: Mapping[str, str]) -> None:
        """Tags that the backend is to have."""
        kept = self._supervisor.kept
        for name, value in tags.items():
            if name in kept.tags_wanted or kept.tags_reported.get(name) != value:
                kept.tags_wanted[name] = value
        self._supervisor.keep()
        self._go_on()

    def _go_on(self) -> None:
        if self._supervisor.kept.tags_wanted and not self._reporting:
            self._reporting = True
            self._supervisor.spawn(self._report)

    async def _report(self) -> None:
        source = self._supervisor.source
        while source is not None and self._supervisor.kept.tags_wanted:
            await hand_in(self._supervisor, "Device tags", lambda: self._attempt(source))
            await self._supervisor.engine.spend(self._supervisor.setup.timings.report_every_s)
        self._reporting = False

    async def _attempt(self, source: TargetSource) -> Reported | None:
        kept = self._supervisor.kept
        told = {
            name: value
            for name, value in kept.tags_wanted.items()
            if kept.tags_reported.get(name) != value
        }
        if not told:
            kept.tags_wanted.clear()
            return None
        answer = await source.report_tags(kept.identity, told)
        if answer.taken:
            kept.tags_reported |= told
            kept.tags_wanted = {
                name: value for name, value in kept.tags_wanted.items() if told.get(name) != value
            }
            self._supervisor.keep()
        return answer
