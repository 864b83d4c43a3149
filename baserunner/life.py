"""One life of the agent: from an open journal until it is stopped or the journal fails.

Four tasks share the journal, all in one event loop, each call to it synchronous: control (enroll, then heartbeat),
updates, shipping, orders. What a task must not forget is in the journal; what is here may be forgotten.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from pydantic import SecretStr

from baserunner import __version__, orders
from baserunner.app_update import machine as app_update
from baserunner.app_update.steps import AppUpdateSteps, offer
from baserunner.drive import Alarm, Driver
from baserunner.enrollment import machine as enrollment
from baserunner.enrollment.steps import EnrollmentSteps
from baserunner.heartbeat import machine as heartbeat
from baserunner.heartbeat.steps import NODE_GONE, HeartbeatSteps
from baserunner.identity import Identity, fingerprint, keep_private, read_identity
from baserunner.locks import UpdateLock
from baserunner.logs import Changes
from baserunner.neighbours.cloudly import Cloudly
from baserunner.neighbours.host import Host
from baserunner.neighbours.supervisor import Supervisor
from baserunner.pace import retry_s
from baserunner.problems import (
    IdentityDamaged,
    IdentityProblem,
    LockProblem,
    NeighbourProblem,
    Refused,
    Unreachable,
)
from baserunner.reboot import machine as reboot
from baserunner.reboot.steps import RebootSteps
from baserunner.report import Seen, look_at_supervisor, report
from baserunner.settings import Settings
from baserunner.shipping import Shipper
from interfaces.desired import DesiredState
from interfaces.heartbeat import HeartbeatRequest
from interfaces.world import World, now_ms
from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.problems import JournalProblem, Malformed, NoJournal, Parked
from journal.recall import Stream, recall
from journal.schema import FILE

log = logging.getLogger(__name__)

SHIP_EVERY_S = 300.0
"""How long heartbeats and progress lines may wait; transitions are shipped at once."""
ORDERS_EVERY_S = 1.0
CHECK_WITHIN_S = 10.0
"""How long an order to heartbeat waits for what came of it; the CLI waits longer."""
HOLD_EVERY_S = 60.0
"""How often to see that our update lock is still there, while there is nothing to update."""
KEEP_LOG_FACTS = 2000
"""Acked heartbeats and progress lines kept on the device: a day's worth, for whoever debugs there."""
WORTH_SAYING = 5
"""So many tries in a row without an answer are said in the report; fewer are weather."""
LOCK_RELEASED_IN = frozenset({"applying", "unclear", "rolling-back"})
"""States of an update in which the Supervisor may act, so that our lock is not there."""
REMEMBERED_ATTEMPTS = 20
PROGRESS_STEP_PERCENT = 10


@dataclass(slots=True)
class Neighbours:
    """Who a life talks to."""

    world: World
    cloudly: Cloudly
    supervisor: Supervisor | None
    host: Host
    lock: UpdateLock
    points: Callable[[str], None] = lambda _: None
    hide: Callable[[str], None] = lambda _: None
    """Told each secret that the log must never show."""


@dataclass
class Life:
    settings: Settings
    journal: Journal
    near: Neighbours
    seen: Seen = field(default_factory=Seen)
    desired: DesiredState | None = None
    update: Stream[app_update.AppUpdate] | None = None
    progress_percent: int | None = None
    identity: Identity | None = None
    """Who we are, once enrolled."""
    _node_token: SecretStr | None = None
    _beats: HeartbeatSteps | None = None
    _rejection: Fact | None = None

    def __post_init__(self) -> None:
        self._shipper = Shipper(self.journal, self.near.cloudly)
        self._attempted: set[str] = set()
        self._beat_alarm = Alarm()
        self._update_alarm = Alarm()
        self._ship_alarm = Alarm()
        self._enroll_alarm = Alarm()
        self._rebooting = ""
        self._parked, self._not_shipped = "", ""
        self._beaten, self._beat_reason = anyio.Event(), ""
        self._unfit: dict[str, str] = {}
        self._lock_trouble, self._ship_trouble = Changes(), Changes()

    async def run(self) -> None:
        """Live. Raises JournalProblem or IdentityProblem (also in a group) when a truth cannot be read or written.

        Who we are is read before anything is begun: without that, nothing may be done.
        """
        self._end_runs("interrupted")
        keep_private(self.settings.home)
        with contextlib.suppress(OSError):
            orders.prepare(self.settings.home)
        self._identity()
        self._latest_enrollment()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._control)
                tasks.start_soon(self._updates_unless_parked)
                tasks.start_soon(self._shipping)
                tasks.start_soon(self._orders, tasks)
                self._resume_reboot(tasks)
        finally:
            with contextlib.suppress(JournalProblem):
                self._end_runs("stopped")

    # -- control: enroll, then heartbeat ---------------------------------------------------------

    async def _control(self) -> None:
        while True:
            identity = await self.enroll()
            assert identity is not None  # noqa: S101 - not told to stop
            await self._beat(identity)
            self._begin_again(identity)

    async def enroll(self, *, stop_when_refused: bool = False) -> Identity | None:
        """The identity, with its node token: at once, or when enrollment has led there.

        None: it was refused, and this was told to stop then.
        """
        identity = self._identity()
        attempt = self._latest_enrollment()
        if attempt is None or attempt.ended:
            if attempt is not None and identity is not None and identity.node_token is not None:
                return identity
            attempt = recall(
                self.journal, self.journal.next_stream_name("enrollment"), enrollment.MACHINE
            )
        if stop_when_refused and attempt.state == "refused" and not self._is_new_token(attempt):
            return None
        await self._driver(5.0).drive(
            attempt,
            self._enrollment_steps().steps,
            self._enroll_alarm,
            stop_in=frozenset({"refused"}) if stop_when_refused else frozenset(),
        )
        if not attempt.ended:
            return None
        with contextlib.suppress(OSError):
            (self.settings.home / orders.TOKEN_FILE).unlink(missing_ok=True)
        identity = read_identity(self.settings.home)
        if identity is None or identity.node_token is None:
            raise IdentityProblem("state.json lost its node token right after enrollment")
        return identity

    def enrollment_in_words(self) -> str:
        """Where the enrollment stands, for a person."""
        attempt = self._latest_enrollment()
        if attempt is None:
            return "no enrollment has begun"
        reason = attempt.believed.reason
        return f"{attempt.name} is {attempt.state}" + (f": {reason}" if reason else "")

    def _is_new_token(self, attempt: Stream[enrollment.Enrollment]) -> bool:
        token = self._join_token()
        return token is not None and fingerprint(token) != attempt.believed.token_fingerprint

    def _enrollment_steps(self) -> EnrollmentSteps:
        return EnrollmentSteps(
            home=self.settings.home,
            cloudly=self.near.cloudly,
            world=self.near.world,
            join_token=self._join_token,
            known_node_id=self._known_node_id,
            device_uuid=self.settings.device_uuid,
            epoch=self.journal.epoch,
            hostname=self.near.host.hostname(),
            points=self.near.points,
        )

    async def _beat(self, identity: Identity) -> None:
        """Heartbeat until Cloudly says that it does not know this node (any more)."""
        assert identity.node_token is not None  # noqa: S101 - enrolled
        self.identity, self._node_token = identity, identity.node_token
        self.near.hide(identity.node_token.get_secret_value())
        self.near.hide(identity.enrollment_secret.get_secret_value())
        run = recall(self.journal, self.journal.next_stream_name("heartbeat"), heartbeat.MACHINE)
        run.record("run-started", {"agent_version": __version__}, soon=True)
        self._beats = HeartbeatSteps(
            cloudly=self.near.cloudly,
            world=self.near.world,
            node_token=identity.node_token,
            report=lambda: self._request(identity.node_id),
            min_s=self.settings.heartbeat_min_s,
        )
        self._ship_alarm.ring()
        driver = Driver(
            world=self.near.world,
            retry_s=5.0,
            recorded=self._beat_recorded,
            points=self.near.points,
        )
        await driver.drive(run, self._beats.steps, self._beat_alarm)
        self._rejection = run.last
        self._node_token, self._beats = None, None
        self.desired = (
            None  # what it wanted of a node that it no longer knows is not begun any more
        )

    def _beat_recorded(self, run: Stream[heartbeat.Heartbeat]) -> None:
        answer = self._beats.answer if self._beats else None
        if run.state != "sending":
            self._beat_reason = run.believed.reason
            self._beaten.set()
        if run.last is None or run.last.kind != "heartbeat-answered" or answer is None:
            return
        self.seen.skew_s = (answer.server_time_ms - now_ms(self.near.world)) / 1000
        self.seen.observed_generation = answer.desired.generation
        for ack in answer.acks:
            self._shipper.acked(ack)
        if answer.desired != self.desired:
            self.desired = answer.desired
            self._update_alarm.ring()
        if self._shipper.pending(Lane.CORE):
            self._ship_alarm.ring()

    def _begin_again(self, identity: Identity) -> None:
        """Cloudly no longer knows this node: a new enrollment begins, in `refused`, until a new token is given."""
        before = self._latest_enrollment()
        used = before.believed.token_fingerprint if before is not None else ""
        stream = recall(
            self.journal, self.journal.next_stream_name("enrollment"), enrollment.MACHINE
        )
        reason = (
            self._rejection.values["reason"] if self._rejection else "the node token was rejected"
        )
        stream.record(
            "node-token-rejected",
            {"node_id": identity.node_id, "reason": reason, "token_fingerprint": used},
        )

    async def _request(self, node_id: str) -> HeartbeatRequest:
        sight = await look_at_supervisor(self.near.supervisor)
        update = self.update if self.update is not None and not self.update.ended else None
        return HeartbeatRequest(
            node_id=node_id,
            epoch=self.journal.epoch,
            agent_version=__version__,
            sent_at_ms=now_ms(self.near.world),
            reported=report(
                world=self.near.world,
                host=self.near.host,
                sight=sight,
                seen=self.seen,
                journal=self.journal,
                update=update,
                progress_percent=self.progress_percent,
                degraded=self._why_little_is_done(sight.release),
            ),
        )

    # -- updates ---------------------------------------------------------------------------------

    async def _updates(self) -> None:
        self._remember_attempts()
        found = self._open_update()
        steps = AppUpdateSteps(
            supervisor=self.near.supervisor,
            lock=self.near.lock,
            world=self.near.world,
            desired=lambda: self.desired,
            why_not_admit=lambda: self._shipper.stopped.get(Lane.CORE, ""),
            progressed=self._progressed,
            poll_s=self.settings.supervisor_poll_s,
            found=found,
        )
        driver = self._driver(self.settings.supervisor_poll_s)
        while True:
            self.update, found = found or self._offered(), None
            if self.update is None:
                self._hold_lock()
                await self._update_alarm.wait(HOLD_EVERY_S)
                continue
            if self.update.state not in LOCK_RELEASED_IN:
                self._hold_lock()
            await driver.drive(self.update, steps.steps, self._update_alarm)
            self._attempted |= _deployments(self.update)
            self.progress_percent = None
            self._want_beat()

    def _open_update(self) -> Stream[app_update.AppUpdate] | None:
        for info in self.journal.open_streams():
            if info.name.startswith("app-update/"):
                return recall(self.journal, info.name, app_update.MACHINE)
        return None

    async def _updates_unless_parked(self) -> None:
        """A stream that a newer agent wrote is parked: no update is driven, the rest of the agent goes on."""
        try:
            await self._updates()
        except Parked as parked:
            self._parked = f"updates are parked: {parked}"
            log.error("%s", self._parked)  # noqa: TRY400 - one line
        while True:
            if not any(info.state in LOCK_RELEASED_IN for info in self.journal.open_streams()):
                self._hold_lock()
            await self.near.world.sleep(HOLD_EVERY_S)

    def _offered(self) -> Stream[app_update.AppUpdate] | None:
        """A new attempt, if what is wanted has not been attempted."""
        if self.desired is None or self.desired.app is None:
            return None
        target = self.desired.app
        if target.deployment in self._attempted:
            return None
        stream = recall(
            self.journal, self.journal.next_stream_name("app-update"), app_update.MACHINE
        )
        try:
            stream.record("offered", offer(target, self.desired.generation))
        except Malformed as problem:  # nothing was written; it is no better the next time
            why = f"deployment {target.deployment} is not begun: {problem}"
            log.error("%s", why)  # noqa: TRY400 - one line
            self._unfit = {target.deployment: why}
            self._attempted.add(target.deployment)
            return None
        self._ship_alarm.ring()
        return stream

    def _remember_attempts(self) -> None:
        """A deployment is attempted once: the last ones are remembered from the journal."""
        for info in self.journal.streams("app-update")[-REMEMBERED_ATTEMPTS:]:
            if not info.ended:
                continue
            try:
                attempt = recall(self.journal, info.name, app_update.MACHINE)
            except Parked:  # a newer agent's, and over: only which deployment it was matters
                self._attempted |= self._named_in(info.name)
            else:
                self._attempted |= _deployments(attempt)

    def _named_in(self, stream: str) -> set[str]:
        facts = [fact.values for fact in self.journal.facts(stream=stream)]
        names = ("deployment", "rollback_deployment")
        return {str(values[name]) for values in facts for name in names if name in values}

    def _hold_lock(self) -> None:
        """The Supervisor polls its target by itself too: without our lock it would apply before the journal says so."""
        if self.near.supervisor is None:
            return
        try:
            self.near.lock.take()
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
        self.journal.note(stream, "progressed", {"percent": percent})
        self._ship_alarm.ring()

    # -- shipping --------------------------------------------------------------------------------

    async def _shipping(self) -> None:
        misses = 0
        while True:
            await self._ship_alarm.wait(SHIP_EVERY_S)
            if self._node_token is None:
                continue
            try:
                rest_s = await self._shipper.ship(self._node_token)
                self._ship_trouble.tell(logging.INFO, log, "")
                misses, self._not_shipped = 0, ""
                self.journal.trim(keep=KEEP_LOG_FACTS)
            except NeighbourProblem as problem:
                misses += 1
                rest_s = self._ship_problem(problem, misses)
            if rest_s > 0:
                self._ship_alarm.ring()
                await self.near.world.sleep(rest_s)

    def _ship_problem(self, problem: NeighbourProblem, misses: int) -> float:
        why = f"the journal is not shipped for now: {problem}"
        self._ship_trouble.tell(logging.WARNING, log, why)
        if isinstance(problem, Refused) or misses >= WORTH_SAYING:
            self._not_shipped = why
        if isinstance(problem, Refused) and problem.code in NODE_GONE:
            self._want_beat()
        asked_s = problem.retry_after_s if isinstance(problem, Unreachable) else None
        return retry_s(misses, self.near.world, asked_s=asked_s)

    # -- orders ----------------------------------------------------------------------------------

    async def _orders(self, tasks: anyio.abc.TaskGroup) -> None:
        before = self._join_token()
        while True:
            for order_id, order in orders.take_orders(self.settings.home):
                tasks.start_soon(self._take_order, order_id, order, tasks)
            token = self._join_token()
            if token != before:
                before = token
                self._enroll_alarm.ring()
            self._stand_on_ground()
            await self.near.world.sleep(ORDERS_EVERY_S)

    def _why_little_is_done(self, release: str | None) -> tuple[str, ...]:
        """What keeps the agent from what Cloudly wants, in words. `release`: what the Supervisor reports."""
        lanes = [f"{lane} lane: {why}" for lane, why in self._shipper.stopped.items()]
        wanted = self.desired.app if self.desired else None
        given_up = ""
        if (
            wanted
            and wanted.deployment in self._attempted
            and release not in {None, wanted.release}
        ):
            given_up = (
                f"Cloudly wants release {wanted.version} by deployment {wanted.deployment}, which was attempted here "
                "and is over: set the release again"
            )
        unfit = self._unfit.get(wanted.deployment, "") if wanted else ""
        reasons = (*lanes, self._parked, self._not_shipped, unfit or given_up)
        return tuple(why for why in reasons if why)

    def _stand_on_ground(self) -> None:
        """SQLite goes on writing to a file that was deleted, and all of it is lost at the end of the process."""
        home = self.settings.home
        if not (home / FILE).exists():
            raise NoJournal(
                f"write to the journal in {home}", "its file is gone", "mount the volume again"
            )

    async def _take_order(
        self, order_id: str, order: orders.Order, tasks: anyio.abc.TaskGroup
    ) -> None:
        log.info("order %s by %s", order.kind, order.by)
        said = await self._obey(order, tasks)
        orders.answer(self.settings.home, order_id, said)

    async def _obey(self, order: orders.Order, tasks: anyio.abc.TaskGroup) -> orders.OrderAnswer:
        match order.kind:
            case orders.OrderKind.CHECK:
                return await self._check()
            case orders.OrderKind.FORCE:
                return self._force(order)
            case orders.OrderKind.REBOOT:
                if self._rebooting:
                    return orders.OrderAnswer(
                        done=False, said=f"{self._rebooting} is under way already"
                    )
                self._rebooting = self.journal.next_stream_name("reboot")
                tasks.start_soon(self._reboot, self._rebooting, order.by)
                return orders.OrderAnswer(done=True, said=self._rebooting)

    async def _check(self) -> orders.OrderAnswer:
        """Heartbeat now, and say what Cloudly wants."""
        if self._beats is None:
            return orders.OrderAnswer(done=False, said="the node is not enrolled")
        self._beaten, self._beat_reason = anyio.Event(), "no answer yet"
        self._want_beat()
        with anyio.move_on_after(CHECK_WITHIN_S):
            await self._beaten.wait()
        if self._beat_reason:
            return orders.OrderAnswer(done=False, said=f"Cloudly does not say: {self._beat_reason}")
        return orders.OrderAnswer(done=True, said=self._wanted_in_words())

    def _wanted_in_words(self) -> str:
        wanted = self.desired.app if self.desired else None
        if wanted is None:
            return "Cloudly wants no release of this node"
        said = f"Cloudly wants release {wanted.version} ({wanted.release})"
        infos = self.journal.streams("app-update")
        return f"{said}; {infos[-1].name} is {infos[-1].state}" if infos else said

    def _force(self, order: orders.Order) -> orders.OrderAnswer:
        update = self.update
        if update is None or update.ended:
            return orders.OrderAnswer(done=False, said="no update is under way")
        if update.state != "applying":
            return orders.OrderAnswer(
                done=False,
                said=f"{update.name} is {update.state}: only an update that is applying can be forced",
            )
        update.record("force-requested", {"deployment": update.believed.deployment, "by": order.by})
        self._update_alarm.ring()
        return orders.OrderAnswer(done=True, said=f"{update.name} is applied by force")

    async def _reboot(self, name: str, by: str) -> None:
        try:
            stream = recall(self.journal, name, reboot.MACHINE)
        except Parked as parked:
            log.error("a reboot is parked: %s", parked)  # noqa: TRY400 - one line
            return
        self._rebooting = name
        steps = RebootSteps(
            supervisor=self.near.supervisor,
            lock=self.near.lock,
            world=self.near.world,
            by=by,
            why_not=self._why_not_reboot,
        )
        await self._driver(5.0).drive(stream, steps.steps, Alarm())
        self._rebooting = ""

    def _resume_reboot(self, tasks: anyio.abc.TaskGroup) -> None:
        for info in self.journal.open_streams():
            if info.name.startswith("reboot/"):
                tasks.start_soon(self._reboot, info.name, "an earlier run")

    def _why_not_reboot(self) -> str:
        update = self.update
        if update is None or update.ended or update.state not in app_update.UNDISTURBED:
            return ""
        return f"{update.name} is {update.state}"

    # -- what they share -------------------------------------------------------------------------

    def _driver(self, retry_s: float) -> Driver:
        return Driver(
            world=self.near.world,
            retry_s=retry_s,
            recorded=self._recorded,
            points=self.near.points,
        )

    def _recorded(self, stream: Stream[Any]) -> None:
        self._ship_alarm.ring()
        if stream.name.startswith("enrollment/") and stream.state == "refused":
            self._drop_given_token(stream.believed.token_fingerprint)
        if stream.state in {"rollback-needed", "succeeded", "rolled-back", "failed"}:
            self._want_beat()

    def _want_beat(self) -> None:
        if self._beats is not None:
            self._beats.want_now()
            self._beat_alarm.ring()

    def _latest_enrollment(self) -> Stream[enrollment.Enrollment] | None:
        infos = self.journal.streams("enrollment")
        return recall(self.journal, infos[-1].name, enrollment.MACHINE) if infos else None

    def _identity(self) -> Identity | None:
        """None: there is none, or what there is is damaged. Raises IdentityProblem when it cannot be read."""
        try:
            return read_identity(self.settings.home)
        except IdentityDamaged as damaged:
            log.error("%s", damaged)  # noqa: TRY400 - a traceback adds nothing
            return None

    def _known_node_id(self) -> str | None:
        for info in reversed(self.journal.streams("enrollment")):
            node_id: str = recall(self.journal, info.name, enrollment.MACHINE).believed.node_id
            if node_id:
                return node_id
        return None

    def _drop_given_token(self, refused: str) -> None:
        """A token given by hand that was refused is of no use; the deployer's may be."""
        token = self._join_token()
        if token is not None and fingerprint(token) == refused:
            with contextlib.suppress(OSError):
                (self.settings.home / orders.TOKEN_FILE).unlink(missing_ok=True)

    def _join_token(self) -> SecretStr | None:
        """The one given with `baserunner enroll`, else the deployer's."""
        try:
            given = (self.settings.home / orders.TOKEN_FILE).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            given = ""
        token = SecretStr(given) if given else self.settings.join_token
        if token is not None:
            self.near.hide(token.get_secret_value())
        return token

    def _end_runs(self, how: str) -> None:
        """Close what belongs to one run only. A journal that fails here has failed already."""
        for info in self.journal.open_streams():
            if not info.name.startswith("heartbeat/"):
                continue
            with contextlib.suppress(Parked):
                run = recall(self.journal, info.name, heartbeat.MACHINE)
                run.record("run-ended", {"how": how}, soon=True)


def _deployments(stream: Stream[app_update.AppUpdate]) -> set[str]:
    believed = stream.believed
    return {believed.deployment, believed.rollback_deployment} - {""}
