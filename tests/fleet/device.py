"""One device of the fleet: the real agent on a journal of its own, the simulated Supervisor, and what befalls it.

Rules:
- The Supervisor and its containers live on all the time. The agent is started when its heartbeat is due and ended
  (SIGTERM) when it has nothing left to do: ten thousand open journals are more than a process may hold. It wakes up as
  after any restart, by reading its journal, and heartbeats at once; how long it rests is its own pace.
- While an update is under way the agent stays.
- A device that a release kills is gone at that instant: what its disk held then is all that is left of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import httpx
import pytest
from pydantic import SecretStr

from baserunner import desk, updates
from baserunner.agent import Agent, neighbours
from baserunner.app_update import machine as app_update
from baserunner.pace import next_heartbeat_s
from baserunner.settings import Settings
from interfaces.world import new_id
from journal import connection, reserve, schema
from simulators.supervisor import (
    BackendSetup,
    BackendTargets,
    ContainerEvent,
    Setup,
    Supervisor,
    one_directory,
)
from simulators.supervisor.state import Container
from simulators.supervisor.timings import Timings
from simulators.world import SimWorld
from tests.fleet.fates import BEHAVIOURS, Fate, Fates
from tests.world.outside import Plugged, QuietHost

URL = "https://cloudly.example"
QUIET_S = 3.0
"""Without a fact for so long after an answered heartbeat, and without an update: there is nothing left to do."""
POLL_S = 5.0
"""How often an agent asks its Supervisor during an update (BASEOS_SUPERVISOR_POLL_S)."""
TARGET_POLL_S = 86_400.0
"""How often a Supervisor asks Cloudly by itself: its agent asks it to when there is something."""
FEW_LINES = 20
NO_LOGS = {"SUPERVISOR_LOG_CONTROL": "false"}
"""The devices are set to send no logs: a stream costs more than a heartbeat, and no rollout reads it."""
CRASH_GAP_S = 600.0
"""What crashes again and again is left alone for so long: where nothing is to go back to, it does so for days."""
ENDS = frozenset(
    arrow.kind for arrow in app_update.CHART.arrows if arrow.dst in app_update.CHART.final
)
RESTS = frozenset({"apply-failed", "health-failed"})
"""After these an attempt waits for Cloudly, which answers in a heartbeat."""
GOES_ON = frozenset({"offered", "rollback-requested"})


@dataclass(frozen=True, slots=True)
class Ground:
    """What all devices have in common."""

    root: Path
    cloudly: httpx.AsyncBaseTransport
    join_token: str
    every_s: float
    """Between two heartbeats, as Cloudly sets it."""
    fates: Fates


class Device:
    def __init__(self, number: int, ground: Ground) -> None:
        self.number = number
        self.ground = ground
        self.uuid = f"{number + 1:032x}"
        self.world = SimWorld(f"{ground.fates.seed}/device/{number}")
        self.dead = False
        self.wakes = 0
        self._root = ground.root / f"{number:06}"
        self.data = self._root / "data"
        self.data.mkdir(parents=True)
        (self._root / "locks").mkdir()
        self._line = Plugged(ground.cloudly)
        self._key = new_id(self.world)
        self.supervisor = self._supervisor()
        self._scope = anyio.CancelScope()
        self._busy = False
        self._answered = False
        self._wrote_at_s = 0.0

    @property
    def home(self) -> Path:
        return self.data / "baseos"

    @property
    def running(self) -> str:
        """The image that its Supervisor really runs; empty: none, or the device is dead."""
        if self.dead:
            return ""
        images = [
            one.image.name for one in self.supervisor.kept.containers if one.life == "Running"
        ]
        return " ".join(images)

    async def live(self, after_s: float) -> None:
        """From its first start on, until cancelled or dead."""
        await self.world.sleep(after_s)
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.supervisor.run)
            while not self.dead:
                await self._be_awake()
                await self.world.sleep(next_heartbeat_s(self.ground.every_s, self.world))
            tasks.cancel_scope.cancel()

    async def _be_awake(self) -> None:
        """One process of the agent, until it has nothing left to do."""
        self.wakes += 1
        self._answered = False
        settings = self._settings()
        near = neighbours(
            settings,
            self.world,
            cloudly_transport=self._line,
            supervisor_transport=self.supervisor.transport(),
            host=QuietHost(self.world),
            points=self._pass,
        )
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Agent(settings, near).run)
                await self._nothing_left()
                tasks.cancel_scope.cancel()

    async def _nothing_left(self) -> None:
        while True:
            rest_s = self._wrote_at_s + QUIET_S - self.world.monotonic()
            if self._answered and not self._busy and rest_s <= 0:
                return
            await self.world.sleep(max(rest_s, QUIET_S))

    def _pass(self, point: str) -> None:
        """The agent tells each commit."""
        moment, _, kind = point.partition(":")
        if moment != "after-commit":
            return
        self._wrote_at_s = self.world.monotonic()
        self._answered = self._answered or kind == "heartbeat-answered"
        if kind in GOES_ON:
            self._busy = True
        elif kind in ENDS or kind in RESTS:
            self._busy, self._answered = False, False  # the heartbeat that tells the outcome is due

    def _settings(self) -> Settings:
        return Settings(
            cloudly_url=URL,
            data_dir=self.data,
            lock_dir=self._root / "locks",
            join_token=SecretStr(self.ground.join_token),
            supervisor_address="http://supervisor",
            supervisor_key=SecretStr(self._key),
            device_uuid=self.uuid,
            runtime="baseos",
            heartbeat_min_s=1.0,
            supervisor_poll_s=POLL_S,
            log_level="WARNING",
        )

    def _supervisor(self) -> Supervisor:
        setup = Setup(
            one_directory(self._root / "locks"),
            uuid=self.uuid,
            api_key=self._key,
            poll_interval_s=TARGET_POLL_S,
            journal_lines=FEW_LINES,
            timings=replace(Timings(), crash_gap_s=CRASH_GAP_S),
            on_container=self._on_container,
        )
        backend = BackendSetup(URL, SecretStr(self.ground.join_token))
        source = BackendTargets(backend, self.world, transport=self._line)
        supervisor = Supervisor(self.world, setup, source)
        supervisor.kept.config |= NO_LOGS
        for commit in self.ground.fates.rates:
            behaviour = BEHAVIOURS.get(self.ground.fates.of(self.number, commit))
            if behaviour is not None:
                supervisor.misbehave_with(commit, behaviour)
        return supervisor

    def _on_container(self, event: ContainerEvent, container: Container) -> None:
        if event is not ContainerEvent.STARTED:
            return
        if self.ground.fates.of(self.number, container.image.commit) is Fate.KILLS:
            self._die()

    def _die(self) -> None:
        """The files are as they are at this instant; what is still written while all is torn down, nobody reads."""
        kept = self._root / "kept"
        shutil.copytree(self.data, kept, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        self.data, self.dead, self._line.plugged = kept, True, False
        self._scope.cancel()
        self.supervisor.stop()


def hurry_less(patch: pytest.MonkeyPatch) -> None:
    """Looks that find nothing, and what is done for flash and for full disks, cost nearly all of a fleet's time."""
    patch.setattr(desk, "ORDERS_EVERY_S", 600.0)
    patch.setattr(updates, "HOLD_EVERY_S", 600.0)
    patch.setattr(reserve, "BYTES", 4096)
    patch.setattr(connection, "WAL_BYTES", 0)
    patch.setattr(schema, "FREE_PAGES_BYTES", 4096)
