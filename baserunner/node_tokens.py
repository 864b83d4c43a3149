"""The node token in use: replaced when Cloudly asks for another, and given up only when each that there is was refused.

All of it happens between two heartbeats, so that no heartbeat is under way while the token changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr

from baserunner.drive import Step
from baserunner.identity import Identity, fingerprint
from baserunner.shared import Shared
from baserunner.token_fallback import machine as token_fallback
from baserunner.token_fallback.steps import FallbackSteps
from baserunner.token_rotation import machine as token_rotation
from baserunner.token_rotation.steps import RotationSteps
from journal.problems import Parked
from journal.recall import Machine, Stream, recall

log = logging.getLogger(__name__)

RETRY_S = 5.0


class NodeTokens:
    def __init__(
        self,
        shared: Shared,
        *,
        read: Callable[[], Identity | None],
        use: Callable[[Identity], None],
    ) -> None:
        """`read`: what state.json says. `use`: told what it says from now on, when it has changed."""
        self._shared = shared
        self._read = read
        self._use = use

    async def taken(self, node_token: SecretStr, wanted: int | None) -> None:
        """Cloudly answered to this token. Begin or go on with a rotation. `wanted`: the generation it asks for.

        Raises JournalProblem, IdentityProblem.
        """
        fallback = self._open(token_fallback.MACHINE)
        if fallback is not None and fallback.state == "trying":
            self._record(fallback, "token-taken")
        rotation = self._open(token_rotation.MACHINE)
        if rotation is None and self._is_news(wanted):
            rotation = self._begin(token_rotation.MACHINE)
        if rotation is None:
            return
        before = rotation.state
        steps = self._rotation_steps(wanted or 0, fingerprint(node_token))
        await self._advance(rotation, steps.steps)
        if rotation.state == "proving" != before:
            self._shared.want_beat()  # the sooner the new one is proven, the sooner the old one is of no use

    async def refused(self, code: str, reason: str) -> tuple[bool, str, str]:
        """Cloudly refused the token in use: whether another is to be tried; else the code and reason that count.

        Raises JournalProblem, IdentityProblem.
        """
        identity = self._read()
        fallback = self._open(token_fallback.MACHINE)
        nothing_else = identity is None or identity.node_token is None or not identity.spares
        if code == "node-revoked" or (fallback is None and nothing_else):
            return False, code, reason
        if fallback is None:
            fallback = self._begin(token_fallback.MACHINE)
        if fallback.state != "turning":
            in_use = None if identity is None else identity.node_token
            named = "" if in_use is None else fingerprint(in_use)
            said = {"fingerprint": named, "code": code, "reason": reason}
            self._record(fallback, "token-refused", said)
        await self._turn(fallback)
        believed = fallback.believed
        return not fallback.ended, believed.code, believed.reason

    async def resume(self) -> None:
        """After a restart between a refusal and the choice of another token."""
        fallback = self._open(token_fallback.MACHINE)
        if fallback is not None and fallback.state == "turning":
            await self._turn(fallback)

    def _record(
        self, stream: Stream[Any], kind: str, said: Mapping[str, str] | None = None
    ) -> None:
        fact = stream.record(kind, said)
        log.info("%s %s: %s -> %s", stream.name, fact.kind, fact.src, fact.dst)
        self._shared.recorded(stream)

    async def _turn(self, fallback: Stream[token_fallback.Fallback]) -> None:
        near = self._shared.near
        steps = FallbackSteps(home=self._shared.settings.home, use=self._use_it, points=near.points)
        await self._advance(fallback, steps.steps)

    async def _advance(self, stream: Stream[Any], steps: Mapping[str, Step[Any]]) -> None:
        await self._shared.driver(RETRY_S).advance(stream, steps)

    def _rotation_steps(self, wanted: int, answered: str) -> RotationSteps:
        near = self._shared.near
        return RotationSteps(
            home=self._shared.settings.home,
            cloudly=near.cloudly,
            world=near.world,
            wanted=wanted,
            answered=answered,
            use=self._use_it,
            points=near.points,
        )

    def _use_it(self, identity: Identity) -> None:
        for secret in identity.secrets:
            self._shared.near.hide(secret)
        self._use(identity)

    def _is_news(self, wanted: int | None) -> bool:
        """An answer that was under way while the token changed asks for what there is already."""
        if wanted is None:
            return False
        identity = self._read()
        return identity is not None and identity.token_generation != wanted

    def _begin(self, machine: Machine[Any]) -> Stream[Any]:
        journal = self._shared.journal
        return recall(journal, journal.next_stream_name(machine.chart.name), machine)

    def _open(self, machine: Machine[Any]) -> Stream[Any] | None:
        """The newest one, while it has not ended. One that a newer agent wrote is left alone, and none is begun."""
        journal = self._shared.journal
        for info in journal.streams(machine.chart.name, newest=1):
            if info.ended:
                return None
            try:
                return recall(journal, info.name, machine)
            except Parked as parked:
                log.error("%s", parked)  # noqa: TRY400 - one line
        return None
