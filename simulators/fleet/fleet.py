"""A fleet of simulated Supervisors in one event loop: started one after the other, each with a life of its own.

Rules:
- Each has its uuid, its keys and its lock directory; the pools of connections are shared.
- They start spread over `ramp_s`, as devices do; each then polls with its own jitter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import httpx
from pydantic import SecretStr

from interfaces.world import World
from simulators.supervisor import BackendSetup, BackendTargets, Setup, Supervisor

FEW_LINES: Final = 50
"""Of the journal of each host: nobody reads hundreds of them."""


@dataclass(frozen=True, slots=True)
class FleetSetup:
    devices: int
    backend: BackendSetup
    directory: Path
    """Where lock directories are; what of state there is, is in memory."""
    poll_interval_s: float = 60.0
    chatter_s: float = 0.0
    speed: float = 1.0
    ramp_s: float = 10.0
    """The first and the last device start so long after each other."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How far the fleet is."""

    started: int
    registered: int
    applying: int
    applied: int


@dataclass(slots=True)
class Fleet:
    setup: FleetSetup
    world: World
    transport: httpx.AsyncBaseTransport
    logs_transport: httpx.AsyncBaseTransport
    supervisors: list[Supervisor] = field(default_factory=list)

    async def run(self) -> None:
        """Start them all, and let them live until cancelled."""
        async with anyio.create_task_group() as tasks:
            for number in range(self.setup.devices):
                supervisor = self._made(number)
                self.supervisors.append(supervisor)
                await tasks.start(supervisor.run)
                await self.world.sleep(self.setup.ramp_s / self.setup.devices)

    def tally(self) -> Tally:
        kept = [supervisor.kept for supervisor in self.supervisors]
        applying = sum(supervisor.fleeting.applying for supervisor in self.supervisors)
        return Tally(
            started=len(kept),
            registered=sum(it.identity.device_id is not None for it in kept),
            applying=applying,
            applied=sum(bool(it.commits) for it in kept),
        )

    def _made(self, number: int) -> Supervisor:
        locks = self.setup.directory / str(number)
        setup = Setup(
            lambda _app_id, service: locks / service,
            speed=self.setup.speed,
            poll_interval_s=self.setup.poll_interval_s,
            chatter_s=self.setup.chatter_s,
            moving_metrics=True,
            journal_lines=FEW_LINES,
        )
        source = BackendTargets(
            self.setup.backend,
            self.world,
            transport=self.transport,
            logs_transport=self.logs_transport,
        )
        return Supervisor(self.world, setup, source)


def backend_setup(
    url: str, join_token: str, *, logs_url: str | None, plain_logs: bool
) -> BackendSetup:
    return BackendSetup(
        url,
        SecretStr(join_token),
        logs_url=logs_url,
        plain_logs=plain_logs,
    )
