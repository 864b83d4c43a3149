"""One life of the agent: from an open journal until it is stopped, the journal fails, or its epoch is over.

Six tasks share the journal, and a seventh where there is a local API; all in one event loop, each call to it
synchronous: control (enroll, then heartbeat), updates, the keeper of leases, shipping, diagnoses, the desk (orders),
and what a neighbour asks. What a task must not forget is in the journal; what is here may be forgotten.
"""

from __future__ import annotations

import contextlib

import anyio

from baserunner import orders
from baserunner.anchor import Anchor
from baserunner.control import Control
from baserunner.desk import Desk
from baserunner.diagnoses import Diagnoses
from baserunner.identity import Identity, keep_private
from baserunner.locks.keeper import keep
from baserunner.locks.leases import Leases
from baserunner.settings import Settings
from baserunner.shared import Neighbours, Shared
from baserunner.shipping import Shipping
from baserunner.updates import Updates
from journal.journal import Journal


class Life:
    def __init__(self, settings: Settings, journal: Journal, near: Neighbours) -> None:
        self._shared = Shared(settings, journal, near)
        self._anchor = Anchor(settings.anchor_dir)
        self._shared.hold = lambda: self._anchor.hold(journal)
        self._shipping = Shipping(self._shared)
        self._updates = Updates(self._shared)
        self._control = Control(self._shared, self._shipping, self._updates)
        self._diagnoses = Diagnoses(self._shared)
        self._desk = Desk(self._shared, self._control, self._updates)

    @property
    def identity(self) -> Identity | None:
        """Who we are, once enrolled."""
        return self._control.identity

    @property
    def leases(self) -> Leases:
        """The update locks of neighbours."""
        return self._shared.leases

    async def run(self) -> None:
        """Live; who we are is read before anything is begun.

        Raises (also in a group) JournalProblem or IdentityProblem when a truth cannot be read or written, and EpochOver
        when this journal can no longer be continued.
        """
        home, control = self._shared.settings.home, self._control
        self._anchor.check(self._shared.journal)
        self._shared.leases.expire()  # before anything may be begun that one of them stood in the way of
        control.end_runs("interrupted")
        keep_private(home)
        with contextlib.suppress(OSError):
            orders.prepare(home)
        control.read_identity()
        control.latest_enrollment()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(control.run)
                tasks.start_soon(self._updates.run)
                tasks.start_soon(keep, self._shared.leases, self._shared.lease_alarm)
                tasks.start_soon(self._shipping.run)
                tasks.start_soon(self._diagnoses.run)
                tasks.start_soon(self._desk.run, tasks)
                tasks.start_soon(self._serve_neighbours)
        finally:
            control.end_runs_if_possible("stopped")
            self._shared.hold()

    async def _serve_neighbours(self) -> None:
        """What it needs is imported only where there is a local API: it is a tenth of the agent's memory."""
        shared = self._shared
        if shared.settings.local_api is None:
            return
        from baserunner.local_api.serve import Serving
        from baserunner.local_api.view import AgentView

        view = AgentView(shared, self._control, self._updates)
        await Serving(shared.settings.local_api, shared.near, view, shared.leases).run()

    async def enroll(self, *, stop_when_refused: bool = False) -> Identity | None:
        """Enroll only, without a task beside it: what `baserunner enroll` does where no agent runs."""
        return await self._control.enroll(stop_when_refused=stop_when_refused)

    def enrollment_in_words(self) -> str:
        return self._control.enrollment_in_words()
