"""The desk: takes the orders of somebody with a shell on the device, and carries out reboots."""

from __future__ import annotations

import logging

import anyio.abc

from baserunner import orders
from baserunner.control import Control
from baserunner.drive import Alarm
from baserunner.problems import LeaseRefused
from baserunner.reboot import machine as reboot
from baserunner.reboot.steps import RebootSteps
from baserunner.shared import Shared
from baserunner.updates import Updates
from journal.problems import NoJournal, Parked
from journal.recall import recall
from journal.schema import FILE

log = logging.getLogger(__name__)

ORDERS_EVERY_S = 1.0
CHECK_WITHIN_S = 10.0
"""How long an order to heartbeat waits for what came of it; the CLI waits longer."""


class Desk:
    def __init__(self, shared: Shared, control: Control, updates: Updates) -> None:
        self._shared = shared
        self._control = control
        self._updates = updates
        self._rebooting = ""

    async def run(self, tasks: anyio.abc.TaskGroup) -> None:
        """Raises NoJournal when the journal's file is gone."""
        home, control = self._shared.settings.home, self._control
        before = control.join_token()
        self._resume_reboot(tasks)
        while True:
            for order_id, order in orders.take_orders(home):
                tasks.start_soon(self._take_order, order_id, order, tasks)
            token = control.join_token()
            if token != before:
                before = token
                self._shared.enroll_alarm.ring()
            self._stand_on_ground()
            await self._shared.near.world.sleep(ORDERS_EVERY_S)

    def _stand_on_ground(self) -> None:
        """SQLite goes on writing to a file that was deleted, and all of it is lost at the end of the process."""
        home = self._shared.settings.home
        if not (home / FILE).exists():
            raise NoJournal(
                f"write to the journal in {home}", "its file is gone", "mount the volume again"
            )

    async def _take_order(
        self, order_id: str, order: orders.Order, tasks: anyio.abc.TaskGroup
    ) -> None:
        log.info("order %s by %s", order.kind, order.by)
        done, said = await self._obey(order, tasks)
        answer = orders.OrderAnswer(done=done, said=said)
        orders.answer(self._shared.settings.home, order_id, answer)

    async def _obey(self, order: orders.Order, tasks: anyio.abc.TaskGroup) -> tuple[bool, str]:
        match order.kind:
            case orders.OrderKind.CHECK:
                problem = await self._control.beat_now(CHECK_WITHIN_S)
                return not problem, problem or self._updates.wanted_in_words()
            case orders.OrderKind.FORCE:
                return self._updates.force(order.by)
            case orders.OrderKind.BREAK_LOCK:
                return self._break_lock(order)
            case orders.OrderKind.REBOOT:
                if self._rebooting:
                    return False, f"{self._rebooting} is under way already"
                self._rebooting = self._shared.journal.next_stream_name("reboot")
                tasks.start_soon(self._reboot, self._rebooting, order.by)
                return True, self._rebooting

    def _break_lock(self, order: orders.Order) -> tuple[bool, str]:
        try:
            lock = self._shared.leases.break_(order.lock, by=order.by, reason=order.reason)
        except LeaseRefused as refused:
            return False, refused.words
        return (
            True,
            f"the update lock of {lock.owner} is broken; its holder hears of it when it renews",
        )

    async def _reboot(self, name: str, by: str) -> None:
        shared = self._shared
        try:
            stream = recall(shared.journal, name, reboot.MACHINE)
        except Parked as parked:
            log.error("a reboot is parked: %s", parked)  # noqa: TRY400 - one line
            return
        self._rebooting = name
        steps = RebootSteps(
            supervisor=shared.near.supervisor,
            lock=shared.near.lock,
            world=shared.near.world,
            by=by,
            why_not=self._updates.why_not_reboot,
            held_up=shared.leases.why_not,
        )
        await shared.driver(5.0).drive(stream, steps.steps, Alarm())
        self._rebooting = ""

    def _resume_reboot(self, tasks: anyio.abc.TaskGroup) -> None:
        for info in self._shared.journal.open_streams():
            if info.name.startswith("reboot/"):
                tasks.start_soon(self._reboot, info.name, "an earlier run")
