"""The container engine under the Supervisor: it pulls, makes, starts, stops and removes, each in its time.

Rules:
- What has been done is in `Kept` at once; what is being done shows in `Fleeting`, and is gone when it is cancelled.
- A restart of the Supervisor does not touch containers; a reboot of the host starts them again (`restart: always`).
- A service misbehaves as its label `io.baseos.simulator.behaviour` says, or as it was told over the control port; or
  all services of one release do, which fails on this device and not on others.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from interfaces.world import World
from simulators.supervisor.host_journal import HostJournal
from simulators.supervisor.plan import Fetch, Start
from simulators.supervisor.registry import PullRefusedError, Registry
from simulators.supervisor.state import Container, Fleeting, Image, Kept, Life, Work, image_of
from simulators.supervisor.teller import CHATTER_LABEL, Teller
from simulators.supervisor.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator

BEHAVIOUR_LABEL: Final = "io.baseos.simulator.behaviour"
NEVER_STARTED: Final = "(HTTP code 500) server error - the simulated service never starts "
PROGRESS: Final = (0, 25, 50, 75, 100)


class Behaviour(StrEnum):
    WELL = "well"
    CRASH_AFTER_START = "crash-after-start"
    """Runs for a moment, is `exited` for a moment, and so on for ever."""
    NEVER_STARTS = "never-starts"
    """Its container is made, but the engine fails to start it: the apply fails and is tried again."""
    PULL_FAILS = "pull-fails"
    """The registry has no such image: the apply fails and is tried again; the cloud sees `downloading` for ever."""


class ContainerEvent(StrEnum):
    STARTED = "started"
    STOPPING = "stopping"
    """SIGTERM. An agent that is this service is in the middle of its work."""
    CRASHED = "crashed"


class ApplyError(Exception):
    """A step of an apply did not work; the Supervisor tries again later."""


@dataclass(slots=True)
class Engine:
    world: World
    kept: Kept
    fleeting: Fleeting
    timings: Timings
    speed: float
    journal: HostJournal
    teller: Teller
    notify: Callable[[ContainerEvent, Container], None]
    told_behaviours: dict[str, Behaviour] = field(default_factory=dict)
    behaviours_here: dict[str, Behaviour] = field(default_factory=dict)
    """How a release behaves on this device, whatever else is said; by its commit."""
    starts: Counter[str] = field(default_factory=Counter)
    """How often each container was started, by its id."""
    registry: Registry | None = None
    chatter_s: float = 0.0

    async def spend(self, seconds: float) -> None:
        """Let recorded time pass, at the simulator's speed."""
        await self.world.sleep(seconds / self.speed)

    def behaviour(self, service: str, labels: dict[str, str], commit: str | None) -> Behaviour:
        """What it was told to do, else what its label says; a label that nobody knows says nothing."""
        if commit in self.behaviours_here:
            return self.behaviours_here[commit]
        label = labels.get(BEHAVIOUR_LABEL, "")
        labelled = Behaviour(label) if label in list(Behaviour) else Behaviour.WELL
        return self.told_behaviours.get(service, labelled)

    async def pull(self, step: Fetch) -> None:
        """All images at once.

        Raises:
            ApplyError: the registry refused one.

        """
        works = [Work(image_of(app, service), "Downloading", 0) for app, service in step.wanted]
        for work in works:
            self.teller.image("Downloading", work.image)
        with self._busy(works):
            await self._ask_registry(step, works)
            for percent in PROGRESS:
                for work in works:
                    work.progress = percent
                await self.spend(self.timings.download_s / len(PROGRESS))
        for work in works:
            work.image.docker_id = _content_id(work.image.name)
            self.kept.images.append(work.image)
            self.teller.image("Downloaded", work.image)
        self.fleeting.update_downloaded = True

    async def _ask_registry(self, step: Fetch, works: list[Work]) -> None:
        for (app, service), work in zip(step.wanted, works, strict=True):
            labels = dict(service.labels)
            try:
                if self.behaviour(service.name, labels, app.commit) is Behaviour.PULL_FAILS:
                    await self.spend(self.timings.refuse_s)
                    raise PullRefusedError.unknown(service.image)
                if self.registry is not None:
                    await self.spend(self.timings.token_s)
                    await self.registry.pull(self.kept.identity, service.image)
            except PullRefusedError as refused:
                self.journal.engine("error", f"Not continuing with pull after error: {refused}")
                self.teller.image("Failed to download", work.image, refused.as_engine_error)
                raise ApplyError(f"no such image: {service.image}") from None

    def make(self, what: str) -> None:
        """A volume or a network, as in `Kept.volumes`."""
        self.teller.say(f"Creating {what.partition(' ')[2]}")
        self.kept.volumes.append(what)

    async def delete(self, image: Image) -> None:
        """Remove an image.

        Raises:
            ApplyError: a container uses its content (under whichever name).

        """
        self.teller.image("Deleting", image)
        with self._busy([Work(image, "Deleting")]):
            await self.spend(self.timings.delete_s)
            for held in self.kept.containers:
                if held.image.docker_id == image.docker_id:
                    self.teller.image("Failed to delete", image, _in_use(image, held))
                    raise ApplyError("conflict: unable to remove repository reference (must force)")
        self.kept.images.remove(image)
        self.teller.image("Deleted", image)

    async def stop(self, container: Container) -> None:
        """SIGTERM, the grace period, and the container is no more."""
        if container.life is Life.RUNNING:
            self.fleeting.services[container.id] = "Stopping"
            self.teller.container("Killing service", container)
            self.notify(ContainerEvent.STOPPING, container)
            self.teller.printed(container, "got SIGTERM")
            await self.spend(self.timings.stop_s)
            self.teller.container("Service exited", container)
            self.teller.container("Killed service", container)
        self.fleeting.services.pop(container.id, None)
        if container in self.kept.containers:
            self.kept.containers.remove(container)

    async def start(self, step: Start) -> Container:
        """Make the container if there is none, and start it.

        Raises:
            ApplyError: it was made, but does not start.

        """
        container = self.kept.container(step.app.app_id, step.service.name)
        if container is None:
            container = await self._make(step)
        self.fleeting.services[container.id] = "Starting"
        self.teller.container("Starting service", container)
        await self.spend(self.timings.start_s)
        self.fleeting.services.pop(container.id, None)
        if self._behaviour_of(container) is Behaviour.NEVER_STARTS:
            self.journal.engine("error", f"Handler for POST /containers/{container.id[:12]}/start")
            self.teller.container("Failed to start service", container, NEVER_STARTED)
            raise ApplyError(f"cannot start {container.service}")
        self.run(container)
        self.teller.container("Started service", container)
        return container

    def run(self, container: Container) -> None:
        self.starts[container.id] += 1
        container.life = Life.RUNNING
        self.notify(ContainerEvent.STARTED, container)
        self.teller.printed(container, f"{container.service} starting")

    async def _make(self, step: Start) -> Container:
        self.fleeting.installing.append(step.image)
        self.teller.service("Installing service", step.service.name, step.image.docker_id)
        await self.spend(self.timings.install_s / 2)
        with contextlib.suppress(ValueError):  # abandoned at the very instant that it was made
            self.fleeting.installing.remove(step.image)
        container = Container(
            id=self.world.random_bytes(32).hex(),
            app_id=step.app.app_id,
            service=step.service.name,
            service_id=step.service.service_id,
            image=step.image,
            created_at=_iso(self.world.now()),
            labels=dict(step.service.labels),
            environment=dict(step.service.environment),
            api_key=step.api_key,
        )
        self.kept.containers.append(container)
        await self.spend(self.timings.install_s / 2)
        self.teller.container("Installed service", container)
        return container

    async def live(self, container: Container) -> None:
        """One life of a container beside the Supervisor's: if that is its behaviour it crashes, and starts again."""
        if not self._crashes(container):
            return
        start = self.starts[container.id]
        await self.spend(self.timings.crash_after_s)
        if self._is_another_life(container, start, Life.RUNNING):
            return
        container.life = Life.EXITED
        self.journal.container(container.id, f"{container.service}: fatal: a simulated crash")
        self.teller.printed(
            container, f"{container.service}: fatal: a simulated crash", to_stderr=True
        )
        self.teller.container("Service exited", container)
        self.journal.engine("info", f"ignoring event: container {container.id[:12]} died")
        self.notify(ContainerEvent.CRASHED, container)
        await self.spend(self.timings.crash_gap_s)
        if not self._is_another_life(container, start, Life.EXITED):
            self.teller.container("Restarting service", container)
            self.run(container)

    async def chatter(self, container: Container) -> None:
        """What a container prints now and then in one life of it, by its label or by the setting."""
        label = container.labels.get(CHATTER_LABEL, "")
        every_s = float(label) if label.replace(".", "", 1).isdigit() else self.chatter_s
        start, ticks = self.starts[container.id], 0
        while every_s > 0:
            await self.spend(every_s)
            if self._is_another_life(container, start, Life.RUNNING):
                return
            ticks += 1
            self.teller.printed(container, f"{container.service} tick {ticks}")
            self.teller.printed(container, f"{container.service} err {ticks}", to_stderr=True)

    def _is_another_life(self, container: Container, start: int, life: Life) -> bool:
        """Whether somebody else has stopped, started or removed it since that start."""
        return (
            container not in self.kept.containers
            or self.starts[container.id] != start
            or container.life is not life
        )

    def _crashes(self, container: Container) -> bool:
        return self._behaviour_of(container) is Behaviour.CRASH_AFTER_START

    def _behaviour_of(self, container: Container) -> Behaviour:
        return self.behaviour(container.service, container.labels, container.image.commit)

    @contextmanager
    def _busy(self, works: list[Work]) -> Iterator[None]:
        self.fleeting.images[:0] = works
        try:
            yield
        finally:
            mine = [id(work) for work in works]
            self.fleeting.images = [it for it in self.fleeting.images if id(it) not in mine]


def _in_use(image: Image, by: Container) -> str:
    repository = image.name.partition("@")[0]
    return (
        "(HTTP code 409) conflict - conflict: unable to remove repository reference"
        f' "{repository}:latest" (must force) - container {by.id[:12]} is using its referenced'
        f" image {image.docker_id.removeprefix('sha256:')[:12]} "
    )


def _content_id(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
