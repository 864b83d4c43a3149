"""A device without a Cloudly: the agent's updates and leases, real, with a simulated Supervisor, under virtual time.

What Cloudly would have said is put where the agent keeps it. Small, so that hundreds of orders of events can be tried.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
from pydantic import SecretStr

from baserunner.agent import neighbours, open_journal
from baserunner.locks.keeper import keep
from baserunner.locks.leases import Leases
from baserunner.settings import Settings
from baserunner.shared import Shared
from baserunner.updates import Updates
from interfaces.desired import AppTarget, DesiredState, ServiceImage
from journal.journal import Journal
from simulators.supervisor import MemoryTargets, Setup, Supervisor, one_directory
from simulators.supervisor.sources import target_state
from simulators.world import SimWorld
from tests.world.kit import KEY, POLICY, Plugged, QuietHost, commit_of, image_of

UUID = "a10e" * 8


class Alone:
    def __init__(self, root: Path, tasks: anyio.abc.TaskGroup) -> None:
        self._root = root
        self._tasks = tasks
        self.world = SimWorld("alone")
        self.targets = MemoryTargets()
        self.locks = root / "locks"
        self.locks.mkdir()
        (root / "data-0" / "baseos").mkdir(parents=True)
        self.supervisor = Supervisor(
            self.world,
            Setup(
                lock_directory=one_directory(self.locks),
                uuid=UUID,
                api_key=KEY,
                on_reboot=self._host_goes_down,
                poll_interval_s=900,
            ),
            self.targets,
        )
        self.to_supervisor = Plugged(self.supervisor.transport())
        self.points: Callable[[str], None] = lambda _: None
        self.offered = 0
        self.lives = 0
        self.shared: Shared | None = None
        """None while no agent runs."""
        self.started_at: float | None = None
        self.boot_began_at = 0.0
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()

    @property
    def runs(self) -> bool:
        return self.shared is not None

    @property
    def leases(self) -> Leases:
        assert self.shared is not None
        return self.shared.leases

    @property
    def journal(self) -> Journal:
        assert self.shared is not None
        return self.shared.journal

    def _pass(self, point: str) -> None:
        self.points(point)

    def start_agent(self) -> None:
        settings = Settings(
            cloudly_url="https://cloudly.example",
            data_dir=self._root / f"data-{self.lives}",
            lock_dir=self.locks,
            join_token=None,
            device_uuid=UUID,
            heartbeat_min_s=1.0,
            log_level="WARNING",
            supervisor_address="http://supervisor",
            supervisor_key=SecretStr(KEY),
            runtime="baseos",
            supervisor_poll_s=2.0,
        )
        near = neighbours(
            settings,
            self.world,
            supervisor_transport=self.to_supervisor,
            host=QuietHost(self.world),
            points=self._pass,
        )
        self.shared = Shared(settings, open_journal(settings, near), near)
        self.shared.node_token = SecretStr("of-a-node-that-cloudly-knows")
        self.started_at = anyio.current_time()
        self._say_what_is_wanted()
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._live, self.shared, self._scope, self._ended)

    async def _live(self, shared: Shared, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        """As `Life.run` does, without those who talk to Cloudly."""
        try:
            with scope, contextlib.closing(shared.near.lock), shared.journal:
                shared.leases.expire()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(Updates(shared).run)
                    tasks.start_soon(keep, shared.leases, shared.lease_alarm)
        finally:
            ended.set()

    async def stop_agent(self) -> None:
        """SIGTERM."""
        self._scope.cancel()
        await self._ended.wait()
        self.shared = None

    async def crash_agent(self) -> None:
        """The process is gone at this instant: what it writes while it is torn down nobody reads."""
        before, self.lives = self._root / f"data-{self.lives}", self.lives + 1
        leave = shutil.ignore_patterns("*-shm", "*.lock")
        shutil.copytree(before, self._root / f"data-{self.lives}", ignore=leave)
        await self.stop_agent()

    async def reboot_host(self) -> None:
        """Power is cut, the lock directory goes. Nothing runs but the Supervisor when this returns."""
        boots = self.world.boots
        self.supervisor.power_cut(20.0)
        while self.world.boots == boots or not self.supervisor.alive:
            await self.world.sleep(0.5)
        self.boot_began_at = anyio.current_time()

    async def _host_goes_down(self) -> None:
        if self.runs:
            await self.crash_agent()

    def offer(self) -> None:
        """Cloudly wants another release; its Supervisor hears of it when it is told to look."""
        self.offered += 1
        version = str(self.offered)
        body = target_state(
            UUID, commit_of(version), {"main": image_of(version)}, image_id=9000 + self.offered
        )
        self.targets.set_target(body)
        self._say_what_is_wanted()

    def _say_what_is_wanted(self) -> None:
        if self.shared is None or not self.offered:
            return
        version = str(self.offered)
        app = AppTarget(
            deployment=f"deployment-{version}",
            release=commit_of(version),
            version=version,
            images=(ServiceImage(service="main", image=image_of(version)),),
            policy=POLICY,
        )
        self.shared.desired = DesiredState(generation=self.offered, app=app)
        self.shared.update_alarm.ring()

    def update(self) -> tuple[str, str]:
        """Name and state of the newest attempt."""
        for info in self.journal.streams("app-update", newest=1):
            return info.name, info.state
        return "", ""


@asynccontextmanager
async def a_device_alone(root: Path) -> AsyncIterator[Alone]:
    async with anyio.create_task_group() as tasks:
        device = Alone(root, tasks)
        await tasks.start(device.supervisor.run)
        device.start_agent()
        yield device
        if device.runs:
            await device.stop_agent()
        tasks.cancel_scope.cancel()
