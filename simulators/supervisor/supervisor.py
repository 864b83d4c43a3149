"""A balena Supervisor 19.0.5: its life from start to reboot, around the engine, the apply and its source of targets.

Rules:
- It runs in a task group that it is given, and all its time comes from its `World`: virtual or real.
- A restart of the Supervisor forgets what is fleeting; a reboot of the host also empties the lock directories, changes
  the boot id of a `SimWorld`, and starts the containers again.
- Everything that it was told to do is in `told`, for tests to read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import httpx
from starlette.types import ASGIApp

from interfaces.world import World, new_id, now_ms
from simulators.supervisor.api import local_api
from simulators.supervisor.apply import Applier
from simulators.supervisor.engine import Behaviour, ContainerEvent, Engine
from simulators.supervisor.follow import Follower
from simulators.supervisor.host_journal import HostJournal
from simulators.supervisor.locks import Locks, owner_of
from simulators.supervisor.log_stream import LogStream
from simulators.supervisor.memory import Memory
from simulators.supervisor.reports import Reports
from simulators.supervisor.settings import AT_FIRST, Settings
from simulators.supervisor.setup import After, Setup, Told
from simulators.supervisor.sources import TargetSource
from simulators.supervisor.state import VERSION, Container, Fleeting, Identity, Kept, Life
from simulators.supervisor.tags import Tags
from simulators.supervisor.teller import Teller
from simulators.world import SimWorld


class Supervisor:
    """One device's Supervisor. `app` is its local API; `await tasks.start(supervisor.run)` starts it."""

    def __init__(self, world: World, setup: Setup, source: TargetSource | None = None) -> None:
        """Make a Supervisor that does not run yet; `source` None: unmanaged, no backend and no keys."""
        self.world: Final = world
        self.setup: Final = setup
        self.source: Final = source
        self.told: Final[list[Told]] = []
        self._memory = Memory(setup.state_directory)
        self.kept = self._memory.load() or _new(world, setup, managed=source is not None)
        self.fleeting = Fleeting()
        self.host_journal: Final = HostJournal(
            world, lambda: self.kept.hostname or setup.host.hostname, setup.journal_lines
        )
        self.log_stream: LogStream | None = None
        self.teller: Final = Teller(world, self._log)
        self.engine = Engine(
            world,
            self.kept,
            self.fleeting,
            setup.timings,
            setup.speed,
            self.host_journal,
            self.teller,
            self._on_container,
            registry=setup.registry,
            chatter_s=setup.chatter_s,
        )
        self.locks = Locks(setup.lock_directory, self._lock_deleted, setup.lock_owner or owner_of)
        self.applier = Applier(
            self.engine, self.locks, keep=self.keep, poll_s=lambda: self.settings.poll_interval_s
        )
        self.follower = Follower(self)
        self.reports = Reports(self)
        self.tags = Tags(self)
        self.host_update_in_progress = False
        """While a host update is in progress, reboots are refused."""
        self.boots = 1
        """How often this host has booted, the first time included."""
        self.alive = False
        """Whether the local API's socket is open."""
        self.app: Final[ASGIApp] = local_api(self)
        self._life = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._after = After.NOTHING
        self._off_s = 0.0
        self._power = anyio.Event()

    @property
    def managed(self) -> bool:
        return self.source is not None

    @property
    def settings(self) -> Settings:
        return Settings.of(self.kept.config)

    @property
    def local_mode(self) -> bool:
        """Targets come over the local API, and nobody needs a key."""
        return not self.managed or Settings.of(self.kept.target.config).local_mode

    def transport(self) -> httpx.AsyncBaseTransport:
        """The local API as an httpx transport: no connection while the host is down."""
        return httpx.ASGITransport(self.app)

    def keep(self) -> None:
        """Something has changed: write down what is kept, and let it be reported."""
        self.save()
        self.reports.something_changed()

    def save(self) -> None:
        """Write down what is kept."""
        self._memory.save(self.kept)

    def note(self, what: str, body: object = None) -> None:
        world = self.world
        told = Told(what, now_ms(world), world.boot_id(), world.monotonic(), body)
        self.told.append(told)

    # Its life.

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Live, until `stop` or cancellation; `started` when the local API answers."""
        while True:
            await self._live(task_status)
            task_status = anyio.TASK_STATUS_IGNORED
            match self._after:
                case After.NOTHING:
                    return
                case After.RESTART:
                    pass
                case After.BOOT:
                    await self._host_down()
                    await self.engine.spend(self._off_s)
                    self._host_up()
                case After.POWER_ON:
                    await self._host_down()
                    await self._power.wait()
                    self._host_up()

    async def _live(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        self.fleeting.reset()
        self._after = After.NOTHING
        self.host_journal.supervisor(f"[info]    Supervisor v{VERSION} starting up...")
        try:
            with anyio.CancelScope() as self._life:
                async with anyio.create_task_group() as self._tasks:
                    self._wake_up()
                    task_status.started()
                    await anyio.Event().wait()
        finally:
            self.alive = False
            self._tasks = None
            self.log_stream = None

    def _wake_up(self) -> None:
        """Go on with what was kept, and open the local API."""
        if self.source is not None:
            self.log_stream = self._log_stream(self.source)
            self.teller.say("Supervisor starting")
        for container in self.kept.containers:
            self._give_life(container)
        if self.source is not None:
            self.source.forget()
            self.spawn(partial(self.follower.follow, self.source))
            self.tags.wake_up()
        if self.kept.target.apps:
            self.begin_apply(force=False)
        self.alive = True

    def _log_stream(self, source: TargetSource) -> LogStream | None:
        """A log stream under the name that the device has now; it keeps that name."""
        if not source.takes_logs:
            return None
        identity = replace(self.kept.identity)
        return LogStream(
            self.world,
            partial(source.stream_logs, identity),
            spawn=self.spawn,
            spend=self.engine.spend,
            speed=self.setup.speed,
        )

    def _log(self, line: dict[str, Any]) -> None:
        if self.log_stream is not None and self.settings.logs and not self.local_mode:
            self.log_stream.log(line)

    def stop(self) -> None:
        """End it, as a SIGKILL would; what was kept stays."""
        self._end(After.NOTHING)

    def restart(self) -> None:
        """Restart the Supervisor alone: containers run on, what is fleeting is forgotten."""
        self._end(After.RESTART)

    def power_cut(self, off_s: float | None = None) -> None:
        """The host loses power, and boots again after `off_s` (None: as long as a boot takes)."""
        self.note("power-cut")
        self._off_s = self.setup.timings.boot_s if off_s is None else off_s
        self._end(After.BOOT)

    def power_on(self) -> None:
        """Somebody presses the button of a device that was shut down."""
        self._power.set()

    def go_down(self, what: str) -> None:
        """Reboot or shut down, as told over the API: the answer is still sent, then the socket closes."""
        self.spawn(partial(self._close, what))

    async def _close(self, what: str) -> None:
        self.teller.say("Rebooting" if what == "reboot" else "Shutting down")
        await self.engine.spend(self.setup.timings.close_s)
        self._off_s = self.setup.timings.boot_s
        self._end(After.BOOT if what == "reboot" else After.POWER_ON)

    def _end(self, after: After) -> None:
        self.alive = False
        self._after = after
        self._life.cancel()

    async def _host_down(self) -> None:
        self._power = anyio.Event()
        if self.setup.on_reboot is not None:
            await self.setup.on_reboot()
        for container in self.kept.containers:
            container.life = Life.EXITED
            self.locks.vanish(container.app_id, container.service)
        self.kept.reported = {}
        self.keep()
        self.boots += 1
        if isinstance(self.world, SimWorld):
            self.world.reboot()

    def _host_up(self) -> None:
        for container in self.kept.containers:
            self.engine.run(container)

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this beside everything else, in this life; nothing is done while it does not live."""
        if self._tasks is not None:
            self._tasks.start_soon(task)

    def begin_apply(self, *, force: bool) -> None:
        self.spawn(partial(self.applier.apply, force=force))

    # What happens to it.

    def misbehave(self, service: str, behaviour: Behaviour) -> None:
        """From now on this service behaves like that, whatever its label says."""
        self.engine.told_behaviours[service] = behaviour
        for container in self.kept.containers:
            self._give_life(container)

    def misbehave_with(self, commit: str, behaviour: Behaviour) -> None:
        """On this device every service of that release behaves like that."""
        self.engine.behaviours_here[commit] = behaviour

    def _lock_deleted(self, lock: Path) -> None:
        self.note("lock-deleted", {"name": lock.name})

    def _on_container(self, event: ContainerEvent, container: Container) -> None:
        self.keep()
        if event is ContainerEvent.STARTED:
            self._give_life(container)
        if self.setup.on_container is not None:
            self.setup.on_container(event, container)

    def _give_life(self, container: Container) -> None:
        if self._tasks is not None:
            self.spawn(partial(self.engine.live, container))
            self.spawn(partial(self.engine.chatter, container))


def _new(world: World, setup: Setup, *, managed: bool) -> Kept:
    identity = Identity(setup.uuid or new_id(world), device_key=new_id(world))
    polls = {"SUPERVISOR_POLL_INTERVAL": str(int(setup.poll_interval_s * 1000))}
    config = AT_FIRST | polls if managed else {}
    key = setup.api_key or new_id(world)
    return Kept(identity, global_key=key, config=config, hostname=setup.host.hostname)
