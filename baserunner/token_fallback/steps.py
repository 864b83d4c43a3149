"""What each state of a fallback does: name another node token in state.json, until one is taken or none is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from baserunner import spare_tokens
from baserunner.drive import Happened, Later, Step
from baserunner.identity import Identity, fingerprint, read_identity, write_identity
from baserunner.token_fallback.machine import Fallback
from journal.recall import Stream

Attempt = Stream[Fallback]
Outcome = Happened | Later


class FallbackSteps:
    """The steps of one run of the agent. The others are driven by what becomes of a heartbeat."""

    def __init__(
        self, *, home: Path, use: Callable[[Identity], None], points: Callable[[str], None]
    ) -> None:
        """`use`: told what state.json says from now on."""
        self._home = home
        self._use = use
        self._points = points

    @property
    def steps(self) -> Mapping[str, Step[Fallback]]:
        return {"turning": self.turning}

    async def turning(self, attempt: Attempt) -> Outcome:
        identity, refused = read_identity(self._home), attempt.believed.refused
        if identity is None or identity.node_token is None:
            return Happened("tokens-exhausted", {"tried": len(refused)})
        named = fingerprint(identity.node_token)
        if named in refused:  # else it was turned to already
            other = next((t for t in identity.spares if fingerprint(t.token) not in refused), None)
            if other is None:
                return self._give_up(identity, len(refused))
            identity, named = spare_tokens.turned(identity, other), fingerprint(other.token)
            write_identity(self._home, identity, points=self._points)
        self._use(identity)
        turned = {"generation": identity.token_generation, "fingerprint": named}
        return Happened("token-turned", turned)

    def _give_up(self, identity: Identity, tried: int) -> Happened:
        """The newest one is what state.json goes on with."""
        newest = max(identity.spares, key=lambda spare: spare.generation, default=None)
        if newest is not None and newest.generation > identity.token_generation:
            identity = spare_tokens.turned(identity, newest)
            write_identity(self._home, identity, points=self._points)
        self._use(identity)
        return Happened("tokens-exhausted", {"tried": tried})
