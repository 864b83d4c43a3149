"""A simulated Supervisor in front of a recorded backend, at the point of its life where the recording begins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
from pydantic import SecretStr

from simulators.supervisor import BackendSetup, BackendTargets, Setup, Supervisor, one_directory
from simulators.supervisor.registry import TokenRegistry
from simulators.supervisor.report_body import full_report
from simulators.world import SimWorld
from tests.simulators.lab import UUID, running
from tests.simulators.recorded_backend import JOIN_TOKEN, RecordedBackend, Row

URL: Final = "https://backend.example"
KEY: Final = "k" * 32
DEVICE_ID: Final = 1234


@dataclass
class RecordedLab:
    world: SimWorld
    supervisor: Supervisor
    backend: RecordedBackend
    locks: Path
    client: httpx.AsyncClient

    async def pass_(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    async def update(self, **body: object) -> None:
        answer = await self.client.post("/v1/update", json=body)
        assert answer.status_code == 204

    async def until(self, true: Any, within_s: float = 300.0) -> None:
        deadline = anyio.current_time() + within_s
        while not true():
            assert anyio.current_time() < deadline, "\n".join(
                [f"not so within {within_s} virtual seconds", *self.backend.complaints]
            )
            await self.pass_(0.05)

    @property
    def said(self) -> list[str]:
        """The host's journal lines of the Supervisor."""
        return self.supervisor.host_journal.read(unit=None, count=None)


def _uuid_of(rows: list[Row]) -> str:
    """The device that the recording answers; the targets in it are for no other."""
    named = (row["request"]["body"]["uuid"] for row in rows if "register" in row["request"]["path"])
    return next(named, UUID)


@asynccontextmanager
async def a_recorded_lab(
    tmp: Path,
    rows: list[Row],
    *,
    name: str | None = None,
    registered: bool = False,
    token: bool = True,
    moving: bool = True,
    **options: Any,
) -> AsyncIterator[RecordedLab]:
    """`registered`: the device is known already and has reported, but has lost its apps and its settings."""
    world, locks = SimWorld(1), tmp / "locks"
    locks.mkdir(exist_ok=True)
    backend = RecordedBackend(rows, world.monotonic)
    source = BackendTargets(
        BackendSetup(URL, SecretStr(JOIN_TOKEN), initial_name=name),
        world,
        transport=backend.transport(),
    )
    registry = TokenRegistry(f"{URL}/auth/v1/token", transport=backend.transport())
    setup = Setup(
        one_directory(locks),
        uuid=_uuid_of(rows),
        api_key=KEY,
        moving_metrics=moving,
        registry=registry if token else None,
        **options,
    )
    supervisor = Supervisor(world, setup, source)
    if registered:
        supervisor.kept.identity.device_id = DEVICE_ID
        supervisor.kept.config["SUPERVISOR_POLL_INTERVAL"] = "60000"
        supervisor.kept.reported = {**full_report(supervisor, {}), "api_secret": "an older one"}
    async with (
        running(supervisor),
        httpx.AsyncClient(
            transport=supervisor.transport(),
            base_url="http://supervisor",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as client,
    ):
        yield RecordedLab(world, supervisor, backend, locks, client)
