"""What the agent's service is given in the target state of its node: where Cloudly is, whom to trust, and a ticket.

Source: docs/adr/0014.

Rules:
- For a service with the label AGENT_LABEL only. What the release itself sets wins.
- The same at each poll, so that the ETag is stable and nothing is restarted. Of the three only the ticket is a
  secret: other services on the device can read it (supervisor/README, trap 11), and it is spent when the agent has
  enrolled.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace

from cryptography.hazmat.primitives import serialization

from cloudly.balena.target import Target
from cloudly.settings import Settings, TlsMode
from cloudly.store.store import Store
from cloudly.tickets import Tickets
from cloudly.tls import deployed
from cloudly.tls.kept import Kept
from interfaces.world import World

AGENT_LABEL = "baseos.features.agent"
TRUE = frozenset({"1", "true", "on"})
"""What a Supervisor takes for yes in a label."""


class AgentEnvironment:
    """Read once, when Cloudly starts: a CA that was made again is given out from the next start on."""

    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._store = store
        self._tickets = Tickets(settings.data_dir, world)
        self._fixed: dict[str, str] = {}
        if settings.public_url is not None:
            self._fixed["BASEOS_CLOUDLY_URL"] = settings.public_url
            if (ca := _root_ca(settings, world)) is not None:
                self._fixed["BASEOS_CLOUDLY_CA"] = base64.b64encode(ca).decode()

    async def completed(self, device: int, target: Target) -> Target:
        """The target with what its agent is given."""
        if target.release is None:
            return target
        services = tuple(
            [
                replace(
                    one,
                    environment=await self.added_to(one.environment, one.labels, device=device),
                )
                for one in target.release.services
            ]
        )
        return replace(target, release=replace(target.release, services=services))

    async def added_to(
        self, environment: Mapping[str, str], labels: Mapping[str, str], *, device: int
    ) -> dict[str, str]:
        """A service's environment as it is to stand in the target of that device. Raises StoreProblem, OSError."""
        if not self._fixed or labels.get(AGENT_LABEL, "").lower() not in TRUE:
            return dict(environment)
        ticket = await self._store.read(lambda db: self._tickets.of(db, device))
        given = self._fixed if ticket is None else {**self._fixed, "BASEOS_JOIN_TOKEN": ticket}
        return {**given, **environment}


def _root_ca(settings: Settings, world: World) -> bytes | None:
    if settings.root_ca is not None:
        found = deployed.root_ca_in(settings.root_ca, "CLOUDLY_ROOT_CA", world.now())
    elif settings.tls_mode is TlsMode.SELF:
        own = Kept.of(settings.data_dir).ca_certificate()
        if own is None:
            return None
        found = own
    else:
        return None
    return found.public_bytes(serialization.Encoding.PEM)
