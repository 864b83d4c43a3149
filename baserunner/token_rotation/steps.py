"""What each state of a rotation does. What state.json holds is looked at before anything is drawn, told or changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from baserunner import spare_tokens
from baserunner.drive import Happened, Later, Step
from baserunner.identity import Identity, fingerprint, read_identity, sha256, write_identity
from baserunner.neighbours.cloudly import Cloudly
from baserunner.problems import Malformed, Refused, Unreachable
from baserunner.token_rotation.machine import Rotation
from interfaces.node_token import NodeTokenRequest
from interfaces.world import World, new_secret
from journal.recall import Stream

Attempt = Stream[Rotation]
Outcome = Happened | Later

AFTER_HEARTBEAT_S = 60.0
"""Nothing is tried between heartbeats: the next answer to one goes on with it."""
ABOUT_THE_NODE = frozenset({"node-unknown", "node-revoked", "fenced"})
"""Refusals that say nothing of the announcement: the next heartbeat gets them too, and acts on them."""
NOT_OURS = "state.json no longer has the node token that was drawn: the node enrolled anew, or its disk was restored"


class RotationSteps:
    """The steps of one run of the agent."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        home: Path,
        cloudly: Cloudly,
        world: World,
        wanted: int,
        answered: str,
        use: Callable[[Identity], None],
        points: Callable[[str], None],
    ) -> None:
        """`answered`: fingerprint of the token that Cloudly just took. `use`: told what state.json says from now on."""
        self._home = home
        self._cloudly = cloudly
        self._world = world
        self._wanted = wanted
        self._answered = answered
        self._use = use
        self._points = points

    @property
    def steps(self) -> Mapping[str, Step[Rotation]]:
        return {
            "new": self.new,
            "drawing": self.drawing,
            "announcing": self.announcing,
            "switching": self.switching,
            "proving": self.proving,
        }

    async def new(self, _attempt: Attempt) -> Outcome:
        return Happened("rotation-asked", {"generation": self._wanted})

    async def drawing(self, attempt: Attempt) -> Outcome:
        identity = read_identity(self._home)
        if identity is None or identity.node_token is None:
            return Happened("rotation-dropped", {"reason": NOT_OURS})
        token = SecretStr("bnt_" + new_secret(self._world))
        generation = attempt.believed.generation
        self._write(spare_tokens.drawn(identity, token, generation))
        return Happened(
            "token-drawn", {"generation": generation, "fingerprint": fingerprint(token)}
        )

    async def announcing(self, attempt: Attempt) -> Outcome:
        identity, believed = read_identity(self._home), attempt.believed
        if _is_in_use(identity, believed):  # a refusal of the old one was faster
            return Happened("token-announced")
        if (
            identity is None
            or identity.node_token is None
            or identity.next_token is None
            or not _is_next(identity, believed)
        ):
            return Happened("rotation-dropped", {"reason": NOT_OURS})
        request = NodeTokenRequest(
            node_id=identity.node_id,
            token_hash=sha256(identity.next_token),
            generation=believed.generation,
        )
        try:
            await self._cloudly.announce(request, identity.node_token)
        except Refused as refusal:
            if refusal.code in ABOUT_THE_NODE:
                return Later(AFTER_HEARTBEAT_S, str(refusal))
            self._write(spare_tokens.without_next(identity))
            return Happened("rotation-dropped", {"reason": str(refusal)})
        except (Unreachable, Malformed) as problem:
            return Later(AFTER_HEARTBEAT_S, str(problem))
        self._points("after-effect:announce")
        return Happened("token-announced")

    async def switching(self, attempt: Attempt) -> Outcome:
        identity, believed = read_identity(self._home), attempt.believed
        if not _is_in_use(identity, believed):
            if identity is None or not _is_next(identity, believed):
                return Happened("rotation-dropped", {"reason": NOT_OURS})
            self._write(spare_tokens.switched(identity))
        return Happened("token-switched", {"generation": believed.generation})

    async def proving(self, attempt: Attempt) -> Outcome:
        believed = attempt.believed
        if self._answered == believed.fingerprint:
            return Happened("token-proved", {"generation": believed.generation})
        if not _is_in_use(read_identity(self._home), believed):
            reason = "Cloudly refused the new node token, and took an older one"
            return Happened("rotation-dropped", {"reason": reason})
        return Later(AFTER_HEARTBEAT_S)

    def _write(self, identity: Identity) -> None:
        """Nobody uses it before it is durable."""
        write_identity(self._home, identity, points=self._points)
        self._use(identity)


def _is_next(identity: Identity, believed: Rotation) -> bool:
    return _named(identity.next_token) == believed.fingerprint


def _is_in_use(identity: Identity | None, believed: Rotation) -> bool:
    return identity is not None and _named(identity.node_token) == believed.fingerprint


def _named(token: SecretStr | None) -> str | None:
    return None if token is None else fingerprint(token)
