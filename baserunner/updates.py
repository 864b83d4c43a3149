"""Updates: one attempt at a time, begun when Cloudly wants what was not attempted, driven to its end."""

from __future__ import annotations

import contextlib
import logging

from baserunner.app_update import machine as app_update
from baserunner.app_update.steps import AppUpdateSteps, offer
from baserunner.logs import Changes
from baserunner.problems import LockProblem
from baserunner.shared import Shared
from journal.problems import Malformed, Parked
from journal.recall import Stream, recall

log = logging.getLogger(__name__)

HOLD_EVERY_S = 60.0
"""How often to see that our update lock is still there, while there is nothing to update."""
LOCK_RELEASED_IN = frozenset({"applying", "unclear", "rolling-back"})
"""States of an update in which the Supervisor may act, so that our lock is not there."""
REMEMBERED_ATTEMPTS = 20
PROGRESS_STEP_PERCENT = 10


class Updates:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._attempted: set[str] = set()
        self._parked = ""
        self._unfit: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        """By commit, of those that were asked for; empty: no attempt that is remembered names it."""
        self._lock_trouble = Changes()
        self.current: Stream[app_update.AppUpdate] | None = None
        self.progress_percent: int | None = None

    async def run(self) -> None:
        """A stream that a newer agent wrote is parked: no update is driven, the rest of the agent goes on."""
        try:
            await self._drive()
        except Parked as parked:
            self._parked = f"updates are parked: {parked}"
            log.error("%s", self._parked)  # noqa: TRY400 - one line
        while True:
            open_streams = self._shared.journal.open_streams()
            if not any(info.state in LOCK_RELEASED_IN for info in open_streams):
                self._hold_lock()
            await self._shared.near.world.sleep(HOLD_EVERY_S)

    def troubles(self, release: str | None) -> tuple[str, ...]:
        """What keeps the device from what Cloudly wants, in words. `release`: what the Supervisor reports."""
        wanted = self._shared.desired.app if self._shared.desired else None
        given_up = ""
        attempted = wanted is not None and wanted.deployment in self._attempted
        if wanted and attempted and release not in {None, wanted.release}:
            given_up = (
                f"Cloudly wants release {wanted.version} by deployment {wanted.deployment}, which was attempted here "
                "and is over: set the release again"
            )
        unfit = self._unfit.get(wanted.deployment, "") if wanted else ""
        return tuple(why for why in (self._parked, unfit or given_up) if why)

    def force(self, by: str) -> tuple[bool, str]:
        """An operator's order to apply by force: whether it is taken, and what to say."""
        update = self.current
        if update is None or update.ended:
            return False, "no update is under way"
        if update.state != "applying":
            said = f"{update.name} is {update.state}: only an update that is applying can be forced"
            held_up = self._shared.leases.why_not()
            hint = f"; {held_up} (`baserunner locks break` ends one)" if held_up else ""
            return False, said + hint
        update.record("force-requested", {"deployment": update.believed.deployment, "by": by})
        self._shared.update_alarm.ring()
        return True, f"{update.name} is applied by force"

    def why_not_reboot(self) -> str:
        update = self.current
        if update is None or update.ended or update.state not in app_update.UNDISTURBED:
            return ""
        return f"{update.name} is {update.state}"

    def version_of(self, commit: str) -> str:
        """What a release is called, by what Cloudly wants or wanted; empty: it is unknown here."""
        wanted = self._shared.desired.app if self._shared.desired else None
        if wanted is not None:
            self._versions[wanted.release] = wanted.version
        if commit not in self._versions:
            self._versions[commit] = self._version_attempted(commit)
        return self._versions[commit]

    def _version_attempted(self, commit: str) -> str:
        for info in reversed(
            self._shared.journal.streams("app-update", newest=REMEMBERED_ATTEMPTS)
        ):
            with contextlib.suppress(Parked):
                believed = recall(self._shared.journal, info.name, app_update.MACHINE).believed
                for release in (believed.target, believed.rollback):
                    if release is not None and release.commit == commit:
                        return release.version
        return ""

    def wanted_in_words(self) -> str:
        wanted = self._shared.desired.app if self._shared.desired else None
        if wanted is None:
            return "Cloudly wants no release of this node"
        said = f"Cloudly wants release {wanted.version} ({wanted.release})"
        infos = self._shared.journal.streams("app-update", newest=1)
        return f"{said}; {infos[-1].name} is {infos[-1].state}" if infos else said

    async def _drive(self) -> None:
        shared = self._shared
        self._remember_attempts()
        found = self._open_update()
        steps = AppUpdateSteps(
            supervisor=shared.near.supervisor,
            lock=shared.near.lock,
            world=shared.near.world,
            desired=lambda: shared.desired,
            why_not=self._why_not,
            held_up=shared.leases.why_not,
            progressed=self._progressed,
            poll_s=shared.settings.supervisor_poll_s,
            found=found,
        )
        driver = shared.driver(shared.settings.supervisor_poll_s)
        while True:
            self.current, found = found or self._offered(), None
            if self.current is None:
                self._hold_lock()
                await shared.update_alarm.wait(HOLD_EVERY_S)
                continue
            if self.current.state not in LOCK_RELEASED_IN:
                self._hold_lock()
            await driver.drive(self.current, steps.steps, shared.update_alarm)
            self._attempted |= _deployments(self.current)
            self.progress_percent = None
            shared.want_beat()

    def _why_not(self) -> str:
        """A node that Cloudly does not know, or that another device speaks for, does nothing to its device."""
        return (
            ""
            if self._shared.node_token
            else "this node is not enrolled: see `baserunner why enrollment`"
        )

    def _open_update(self) -> Stream[app_update.AppUpdate] | None:
        for info in self._shared.journal.open_streams():
            if info.name.startswith("app-update/"):
                return recall(self._shared.journal, info.name, app_update.MACHINE)
        return None

    def _offered(self) -> Stream[app_update.AppUpdate] | None:
        """A new attempt, if what is wanted has not been attempted."""
        desired, journal = self._shared.desired, self._shared.journal
        if desired is None or desired.app is None:
            return None
        target = desired.app
        if target.deployment in self._attempted:
            return None
        stream = recall(journal, journal.next_stream_name("app-update"), app_update.MACHINE)
        try:
            stream.record("offered", offer(target, desired.generation))
        except Malformed as problem:  # nothing was written; it is no better the next time
            why = f"deployment {target.deployment} is not begun: {problem}"
            log.error("%s", why)  # noqa: TRY400 - one line
            self._unfit = {target.deployment: why}
            self._attempted.add(target.deployment)
            return None
        self._shared.ship_alarm.ring()
        return stream

    def _remember_attempts(self) -> None:
        """A deployment is attempted once: the last ones are remembered from the journal."""
        journal = self._shared.journal
        for info in journal.streams("app-update", newest=REMEMBERED_ATTEMPTS):
            if not info.ended:
                continue
            try:
                attempt = recall(journal, info.name, app_update.MACHINE)
            except Parked:  # a newer agent's, and over: only which deployment it was matters
                self._attempted |= self._named_in(info.name)
            else:
                self._attempted |= _deployments(attempt)

    def _named_in(self, stream: str) -> set[str]:
        facts = [fact.values for fact in self._shared.journal.facts(stream=stream)]
        names = ("deployment", "rollback_deployment")
        return {str(values[name]) for values in facts for name in names if name in values}

    def _hold_lock(self) -> None:
        """The Supervisor polls its target by itself too: without our lock it would apply before the journal says so."""
        if self._shared.near.supervisor is None:
            return
        try:
            self._shared.near.lock.take()
        except LockProblem as problem:
            self._lock_trouble.tell(logging.WARNING, log, str(problem))
        else:
            self._lock_trouble.tell(logging.INFO, log, "")

    def _progressed(self, stream: str, percent: int) -> None:
        before = self.progress_percent
        if before is not None and abs(percent - before) < PROGRESS_STEP_PERCENT and percent != 100:
            return
        if percent == before:
            return
        self.progress_percent = percent
        self._shared.attempt_log.progressed(stream, percent)
        self._shared.ship_alarm.ring()


def _deployments(stream: Stream[app_update.AppUpdate]) -> set[str]:
    believed = stream.believed
    return {believed.deployment, believed.rollback_deployment} - {""}
