"""What each state of an enrollment does. The identity on disk is looked at before anything is drawn or asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from baserunner import __version__
from baserunner.drive import Happened, Later, Step
from baserunner.enrollment.machine import Enrollment
from baserunner.identity import (
    Identity,
    fingerprint,
    read_identity,
    set_aside,
    sha256,
    write_identity,
)
from baserunner.neighbours.cloudly import Cloudly
from baserunner.pace import retry_s
from baserunner.problems import (
    EpochOver,
    IdentityDamaged,
    Malformed,
    NeighbourProblem,
    Refused,
    Unreachable,
)
from interfaces.enrollment import RegisterRequest
from interfaces.node_token import NodeTokenRequest
from interfaces.world import World, new_id, new_secret
from journal.recall import Stream

Attempt = Stream[Enrollment]
Outcome = Happened | Later

TOKEN_LOOK_S = 5.0
"""How often to look whether a join token has been given."""
READMITTED_LOOK_S = 3600.0
"""How often a revoked node asks whether it was readmitted: an operator who waits can give it a join token instead."""
REFUSALS = frozenset(
    {"token-unknown", "token-expired", "token-revoked", "token-used-up", "enrollment-closed"}
)
"""What is said of the join token itself. Any other no (a body that came torn, a wrong address) may be yes tomorrow."""


class EnrollmentSteps:
    """The steps of one run of the agent."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        home: Path,
        cloudly: Cloudly,
        world: World,
        join_token: Callable[[], SecretStr | None],
        known_node_id: Callable[[], str | None],
        device_uuid: str | None,
        epoch: str,
        hostname: str,
        points: Callable[[str], None],
    ) -> None:
        self._home = home
        self._cloudly = cloudly
        self._world = world
        self._join_token = join_token
        self._known_node_id = known_node_id
        self._device_uuid = device_uuid
        self._epoch = epoch
        self._hostname = hostname
        self._points = points
        self._ask_again_at: float | None = None
        """By the monotonic clock; None: it was not revoked in this run."""

    @property
    def steps(self) -> Mapping[str, Step[Enrollment]]:
        return {
            "new": self.new,
            "ready": self.ready,
            "awaiting-token": self.awaiting_token,
            "asking": self.asking,
            "backing-off": self.backing_off,
            "refused": self.refused,
        }

    async def new(self, attempt: Attempt) -> Outcome:
        identity, lost = self._identity_or_aside()
        if identity is not None and identity.node_token is not None:
            return Happened("identity-found", {"node_id": identity.node_id})
        if identity is None or identity.enrollment != attempt.name:
            identity = self._draw(attempt.name, identity)
        known = self._known_node_id()
        if lost is None and known is not None:
            lost = "state.json is gone, and with it the node token"
        if lost is not None:
            return Happened("identity-lost", {"node_id": identity.node_id, "reason": lost})
        return Happened("identity-drawn", {"node_id": identity.node_id})

    async def ready(self, attempt: Attempt) -> Outcome:
        token = self._join_token()
        if token is None:
            return Happened("token-missing")
        identity = read_identity(self._home)
        believed = attempt.believed
        if identity is None or identity.enrollment != attempt.name or believed.spent:
            identity = self._draw(attempt.name, identity, fenced=believed.fenced)
        return Happened(
            "register-requested",
            {"node_id": identity.node_id, "token_fingerprint": fingerprint(token)},
        )

    async def backing_off(self, attempt: Attempt) -> Outcome:
        token = self._join_token()
        same = token is None or fingerprint(token) == attempt.believed.token_fingerprint
        left_s = self._left_s(attempt)
        if same and left_s > 0:
            return Later(min(left_s, TOKEN_LOOK_S), attempt.believed.reason)
        return await self.ready(attempt)

    async def awaiting_token(self, _attempt: Attempt) -> Outcome:
        token = self._join_token()
        if token is None:
            return Later(TOKEN_LOOK_S, "no join token")
        return Happened("token-given", {"token_fingerprint": fingerprint(token)})

    async def refused(self, attempt: Attempt) -> Outcome:
        token = self._join_token()
        if token is not None and fingerprint(token) != attempt.believed.token_fingerprint:
            return Happened("token-given", {"token_fingerprint": fingerprint(token)})
        if attempt.believed.revoked and await self._is_readmitted():
            return Happened("node-readmitted", {"node_id": attempt.believed.node_id})
        return Later(TOKEN_LOOK_S, attempt.believed.reason)

    async def _is_readmitted(self) -> bool:
        """Whether Cloudly takes the node token again; asked now and then. Announcing the same one changes nothing."""
        now = self._world.monotonic()
        if self._ask_again_at is None:
            self._ask_again_at = now + READMITTED_LOOK_S
        if now < self._ask_again_at:
            return False
        self._ask_again_at = now + READMITTED_LOOK_S
        identity = read_identity(self._home)
        if identity is None or identity.node_token is None:
            return False
        request = NodeTokenRequest(
            node_id=identity.node_id,
            token_hash=sha256(identity.node_token),
            generation=max(identity.token_generation, 1),
        )
        try:
            await self._cloudly.announce(request, identity.node_token)
        except NeighbourProblem:
            return False
        return True

    async def asking(self, attempt: Attempt) -> Outcome:  # noqa: PLR0911 - every answer has its own fact
        identity = read_identity(self._home)
        if identity is None or identity.enrollment != attempt.name:
            return self._unanswered(attempt, "state.json was replaced while Cloudly was asked")
        if identity.node_token is not None:
            return self._enrolled(identity)
        token = self._join_token()
        if token is None:
            return self._unanswered(attempt, "the join token was taken away")
        request = RegisterRequest(
            node_id=identity.node_id,
            enrollment_secret=identity.enrollment_secret,
            epoch=self._epoch,
            agent_version=__version__,
            hostname=self._hostname,
        )
        try:
            answer = await self._cloudly.register(request, token)
        except Refused as refusal:
            if refusal.code == "fenced":
                raise EpochOver("fenced", f"epoch {self._epoch} is no longer the node's") from None
            if refusal.code not in REFUSALS:
                return self._unanswered(attempt, str(refusal))
            return Happened("register-refused", {"reason": str(refusal), "code": refusal.code})
        except Unreachable as problem:
            return self._unanswered(attempt, str(problem), asked_s=problem.retry_after_s)
        except Malformed as problem:
            return self._unanswered(attempt, str(problem))
        if answer.node_id != identity.node_id:
            return self._unanswered(attempt, "Cloudly answered for another node")
        self._points("after-effect:register")
        identity = identity.model_copy(
            update={"node_token": answer.node_token, "token_generation": answer.token_generation}
        )
        write_identity(self._home, identity, points=self._points)
        return self._enrolled(identity)

    def _enrolled(self, identity: Identity) -> Happened:
        return Happened(
            "enrolled",
            {"node_id": identity.node_id, "token_generation": identity.token_generation},
        )

    def _unanswered(
        self, attempt: Attempt, reason: str, *, asked_s: float | None = None
    ) -> Happened:
        wait_s = retry_s(attempt.believed.asks, self._world, asked_s=asked_s)
        return Happened("register-unanswered", {"reason": reason, "retry_s": round(wait_s, 3)})

    def _left_s(self, attempt: Attempt) -> float:
        entered = attempt.entered
        if entered is None or entered.boot_id != self._world.boot_id():
            return 0.0
        return attempt.believed.retry_s - (self._world.monotonic() - entered.mono_ms / 1000)

    def _identity_or_aside(self) -> tuple[Identity | None, str | None]:
        """The identity; or None and, if there was one, why it is lost. One that cannot be read is not lost: raises."""
        try:
            return read_identity(self._home), None
        except IdentityDamaged as problem:
            aside = set_aside(self._home)
            return None, f"{problem}; kept as {aside.name}"

    def _draw(self, enrollment: str, before: Identity | None, *, fenced: bool = False) -> Identity:
        """A fresh secret for this enrollment, durable when this returns.

        The node id stays what it ever was, unless another device has it: then a clone becomes its own host's node.
        """
        node_id = (
            (self._device_uuid if fenced else None)
            or (before.node_id if before else None)
            or self._known_node_id()
            or self._device_uuid
            or new_id(self._world)
        )
        identity = Identity(
            node_id=node_id,
            enrollment=enrollment,
            enrollment_secret=SecretStr(new_secret(self._world)),
        )
        write_identity(self._home, identity, points=self._points)
        return identity
