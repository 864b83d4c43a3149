"""Control: enroll once, then heartbeat until Cloudly no longer knows this node, then enroll again."""

from __future__ import annotations

import contextlib
import logging

import anyio
from pydantic import SecretStr

from baserunner import __version__, orders
from baserunner.drive import Alarm, Driver
from baserunner.enrollment import machine as enrollment
from baserunner.enrollment.steps import EnrollmentSteps
from baserunner.heartbeat import machine as heartbeat
from baserunner.heartbeat.steps import HeartbeatSteps
from baserunner.identity import Identity, fingerprint, read_identity
from baserunner.node_tokens import NodeTokens
from baserunner.problems import IdentityDamaged, IdentityProblem
from baserunner.report import look_at_supervisor, report
from baserunner.shared import Shared
from baserunner.shipping import Shipping
from baserunner.updates import Updates
from interfaces.heartbeat import HeartbeatRequest
from interfaces.world import now_ms
from journal.facts import Fact, Lane
from journal.problems import JournalProblem, Parked
from journal.recall import Stream, recall

log = logging.getLogger(__name__)

REMEMBERED_ENROLLMENTS = 20
"""Among which our node id is looked for; each of them begins with it."""


class Control:
    """`wait_for_beat` lets an order wait for what came of the next heartbeat."""

    def __init__(self, shared: Shared, shipping: Shipping, updates: Updates) -> None:
        self._shared = shared
        self._shipping = shipping
        self._updates = updates
        self._beats: HeartbeatSteps | None = None
        self._tokens = NodeTokens(shared, read=self.read_identity, use=self._use)
        self._beat_alarm = Alarm()
        self._beaten, self._beat_reason = anyio.Event(), ""
        self.identity: Identity | None = None
        """Who we are, once enrolled."""
        shared.want_beat = self.want_beat

    async def run(self) -> None:
        while True:
            identity = await self.enroll()
            assert identity is not None  # noqa: S101 - not told to stop
            await self._tokens.resume()
            rejection = await self._beat(self.read_identity() or identity)
            said = {} if rejection is None else rejection.values
            another, code, reason = await self._tokens.refused(
                said.get("code", ""), said.get("reason", "the node token was rejected")
            )
            if not another:
                self._begin_again(identity, code, reason)

    # -- enrollment ------------------------------------------------------------------------------

    async def enroll(self, *, stop_when_refused: bool = False) -> Identity | None:
        """The identity, with its node token: at once, or when enrollment has led there.

        None: it was refused, and this was told to stop then.
        """
        shared, identity = self._shared, self.read_identity()
        attempt = self.latest_enrollment()
        if attempt is None or attempt.ended:
            if attempt is not None and identity is not None and identity.node_token is not None:
                return identity
            name = shared.journal.next_stream_name("enrollment")
            attempt = recall(shared.journal, name, enrollment.MACHINE)
        if stop_when_refused and attempt.state == "refused" and not self._is_new_token(attempt):
            return None
        await self._enrolling().drive(
            attempt,
            self._enrollment_steps().steps,
            shared.enroll_alarm,
            stop_in=frozenset({"refused"}) if stop_when_refused else frozenset(),
        )
        if not attempt.ended:
            return None
        self._forget_given_token()
        identity = read_identity(shared.settings.home)
        if identity is None or identity.node_token is None:
            raise IdentityProblem("state.json lost its node token right after enrollment")
        return identity

    def enrollment_in_words(self) -> str:
        """Where the enrollment stands, for a person."""
        attempt = self.latest_enrollment()
        if attempt is None:
            return "no enrollment has begun"
        reason = attempt.believed.reason
        return f"{attempt.name} is {attempt.state}" + (f": {reason}" if reason else "")

    def latest_enrollment(self) -> Stream[enrollment.Enrollment] | None:
        """None: there is none, or it has ended and can no longer be read. Raises Parked when it is open."""
        journal = self._shared.journal
        for info in journal.streams("enrollment", newest=1):
            try:
                return recall(journal, info.name, enrollment.MACHINE)
            except (
                Parked
            ):  # a newer agent's, or lost with a damaged journal; state.json says who we are
                if not info.ended:
                    raise
        return None

    def read_identity(self) -> Identity | None:
        """None: there is none, or what there is is damaged. Raises IdentityProblem when it cannot be read."""
        try:
            return read_identity(self._shared.settings.home)
        except IdentityDamaged as damaged:
            log.error("%s", damaged)  # noqa: TRY400 - a traceback adds nothing
            return None

    def join_token(self) -> SecretStr | None:
        """The one given with `baserunner enroll`, else the deployer's."""
        settings = self._shared.settings
        try:
            given = (settings.home / orders.TOKEN_FILE).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            given = ""
        token = SecretStr(given) if given else settings.join_token
        if token is not None:
            self._shared.near.hide(token.get_secret_value())
        return token

    def _enrolling(self) -> Driver:
        near = self._shared.near
        return Driver(
            world=near.world, retry_s=5.0, recorded=self._enrollment_recorded, points=near.points
        )

    def _enrollment_recorded(self, stream: Stream[enrollment.Enrollment]) -> None:
        self._shared.recorded(stream)
        if stream.state == "refused":
            self._drop_given_token(stream.believed.token_fingerprint)

    def _is_new_token(self, attempt: Stream[enrollment.Enrollment]) -> bool:
        token = self.join_token()
        return token is not None and fingerprint(token) != attempt.believed.token_fingerprint

    def _enrollment_steps(self) -> EnrollmentSteps:
        shared = self._shared
        return EnrollmentSteps(
            home=shared.settings.home,
            cloudly=shared.near.cloudly,
            world=shared.near.world,
            join_token=self.join_token,
            known_node_id=self._known_node_id,
            device_uuid=shared.settings.device_uuid,
            epoch=shared.journal.epoch,
            hostname=shared.near.host.hostname(),
            points=shared.near.points,
        )

    def _known_node_id(self) -> str | None:
        journal = self._shared.journal
        for info in reversed(journal.streams("enrollment", newest=REMEMBERED_ENROLLMENTS)):
            with contextlib.suppress(Parked):
                node_id: str = recall(journal, info.name, enrollment.MACHINE).believed.node_id
                if node_id:
                    return node_id
        return None

    def _drop_given_token(self, refused: str) -> None:
        """A token given by hand that was refused is of no use; the deployer's may be."""
        token = self.join_token()
        if token is not None and fingerprint(token) == refused:
            self._forget_given_token()

    def _forget_given_token(self) -> None:
        with contextlib.suppress(OSError):
            (self._shared.settings.home / orders.TOKEN_FILE).unlink(missing_ok=True)

    # -- heartbeat -------------------------------------------------------------------------------

    async def _beat(self, identity: Identity) -> Fact | None:
        """Heartbeat until Cloudly says that it does not know this node (any more). Returns the fact that says so."""
        assert identity.node_token is not None  # noqa: S101 - enrolled
        shared, near = self._shared, self._shared.near
        self._use(identity)
        for secret in identity.secrets:
            near.hide(secret)
        name = shared.journal.next_stream_name("heartbeat")
        run = recall(shared.journal, name, heartbeat.MACHINE)
        run.record("run-started", {"agent_version": __version__}, soon=True)
        self._beats = HeartbeatSteps(
            cloudly=near.cloudly,
            world=near.world,
            node_token=self._node_token,
            answered=lambda answer, token: self._tokens.taken(token, answer.rotate_token),
            report=lambda: self._request(identity.node_id),
            min_s=shared.settings.heartbeat_min_s,
        )
        shared.ship_alarm.ring()
        shared.update_alarm.ring()
        driver = Driver(
            world=near.world, retry_s=5.0, recorded=self._beat_recorded, points=near.points
        )
        await driver.drive(run, self._beats.steps, self._beat_alarm)
        shared.node_token, self._beats = None, None
        shared.desired = None  # what it wanted of a node that it no longer knows is not begun
        return run.last

    def _use(self, identity: Identity) -> None:
        """What state.json says from now on."""
        self.identity, self._shared.node_token = identity, identity.node_token

    def _node_token(self) -> SecretStr:
        assert self._shared.node_token is not None  # noqa: S101 - heartbeats are sent while there is one
        return self._shared.node_token

    def _beat_recorded(self, run: Stream[heartbeat.Heartbeat]) -> None:
        self._shared.hold()
        answer = self._beats.answer if self._beats else None
        if run.state != "sending":
            self._beat_reason = run.believed.reason
            self._beaten.set()
        if run.last is None or run.last.kind != "heartbeat-answered" or answer is None:
            return
        shared = self._shared
        shared.near.clock.told(answer.server_time_ms)
        shared.seen.skew_s = (answer.server_time_ms - now_ms(shared.near.world)) / 1000
        shared.seen.observed_generation = answer.desired.generation
        self._shipping.heard(answer)
        if answer.desired != shared.desired:
            shared.desired = answer.desired
            shared.update_alarm.ring()
        if answer.diagnosis != shared.diagnosis:
            shared.diagnosis = answer.diagnosis
            shared.diagnosis_alarm.ring()
        if self._shipping.pending(Lane.CORE):
            shared.ship_alarm.ring()

    def _begin_again(self, identity: Identity, code: str, reason: str) -> None:
        """Cloudly no longer knows this node: a new enrollment begins, in `refused`, until a new token is given."""
        before = self.latest_enrollment()
        used = before.believed.token_fingerprint if before is not None else ""
        journal = self._shared.journal
        stream = recall(journal, journal.next_stream_name("enrollment"), enrollment.MACHINE)
        stream.record(
            "node-token-rejected",
            {
                "node_id": identity.node_id,
                "reason": reason,
                "code": code,
                "token_fingerprint": used,
            },
        )

    async def _request(self, node_id: str) -> HeartbeatRequest:
        shared = self._shared
        sight = shared.sight = await look_at_supervisor(shared.near.supervisor)
        update = self._updates.current
        return HeartbeatRequest(
            node_id=node_id,
            epoch=shared.journal.epoch,
            writer=shared.writer,
            agent_version=__version__,
            sent_at_ms=now_ms(shared.near.world),
            reported=report(
                world=shared.near.world,
                host=shared.near.host,
                sight=sight,
                seen=shared.seen,
                journal=shared.journal,
                update=update if update is not None and not update.ended else None,
                progress_percent=self._updates.progress_percent,
                degraded=(*self._shipping.troubles, *self._updates.troubles(sight.release)),
                held=shared.leases.streams(),
            ),
        )

    def want_beat(self) -> None:
        if self._beats is not None:
            self._beats.want_now()
            self._beat_alarm.ring()

    async def beat_now(self, within_s: float) -> str:
        """Heartbeat now; why there is no answer, empty if there is one."""
        if self._beats is None:
            return "the node is not enrolled"
        self._beaten, self._beat_reason = anyio.Event(), "no answer yet"
        self.want_beat()
        with anyio.move_on_after(within_s):
            await self._beaten.wait()
        return f"Cloudly does not say: {self._beat_reason}" if self._beat_reason else ""

    def end_runs(self, how: str) -> None:
        """Close what belongs to one run only. A journal that fails here has failed already."""
        journal = self._shared.journal
        for info in journal.open_streams():
            if not info.name.startswith("heartbeat/"):
                continue
            with contextlib.suppress(Parked):
                run = recall(journal, info.name, heartbeat.MACHINE)
                run.record("run-ended", {"how": how}, soon=True)

    def end_runs_if_possible(self, how: str) -> None:
        with contextlib.suppress(JournalProblem):
            self.end_runs(how)
