"""The container engine under the Supervisor: it pulls, makes, starts, stops and removes, each in its time.

Rules:
- What has been done is in `Kept` at once; what is being done shows in `Fleeting`, and is gone when it is cancelled.
- A restart of the Supervisor does not touch containers; a reboot of the host starts them again (`restart: always`).
- A service misbehaves as its label `io.baseos.simulator.behaviour` says, or as it was told over the control port.
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
from simulators.supervisor.state import Container, Fleeting, Image, Kept, Life, Work, image_of
from simulators.supervisor.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator

BEHAVIOUR_LABEL: Final = "io.baseos.simulator.behaviour"
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
    notify: Callable[[ContainerEvent, Container], None]
    told_behaviours: dict[str, Behaviour] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    """How often each container was started, by its id."""

    async def spend(self, seconds: float) -> None:
        """Let recorded time pass, at the simulator's speed."""
        await self.world.sleep(seconds / self.speed)

    def behaviour(self, service: str, labels: dict[str, str]) -> Behaviour:
        """What it was told to do, else what its label says; a label that nobody knows says nothing."""
        label = labels.get(BEHAVIOUR_LABEL, "")
        labelled = Behaviour(label) if label in list(Behaviour) else Behaviour.WELL
        return self.told_behaviours.get(service, labelled)

    async def pull(self, step: Fetch) -> None:
        """All images at once.

        Raises:
            ApplyError: the registry refused one.

        """
        works = [Work(image_of(app, service), "Downloading", 0) for app, service in step.wanted]
        refused = [
            service.image
            for _, service in step.wanted
            if self.behaviour(service.name, dict(service.labels)) is Behaviour.PULL_FAILS
        ]
        with self._busy(works):
            if refused:
                await self.spend(self.timings.refuse_s)
                unknown = f"manifest for {refused[0]} not found: manifest unknown"
                self.journal.engine("error", f"Not continuing with pull after error: {unknown}")
                raise ApplyError(f"no such image: {refused[0]}")
            for percent in PROGRESS:
                for work in works:
                    work.progress = percent
                await self.spend(self.timings.download_s / len(PROGRESS))
        for work in works:
            work.image.docker_id = _content_id(work.image.name)
            self.kept.images.append(work.image)
        self.fleeting.update_downloaded = True

    async def delete(self, image: Image) -> None:
        """Remove an image.

        Raises:
            ApplyError: a container uses its content (under whichever name).

        """
        with self._busy([Work(image, "Deleting")]):
            await self.spend(self.timings.delete_s)
            if any(held.image.docker_id == image.docker_id for held in self.kept.containers):
                raise ApplyError("conflict: unable to remove repository reference (must force)")
        self.kept.images.remove(image)

    async def stop(self, container: Container) -> None:
        """SIGTERM, the grace period, and the container is no more."""
        if container.life is Life.RUNNING:
            self.fleeting.services[container.id] = "Stopping"
            self.notify(ContainerEvent.STOPPING, container)
            await self.spend(self.timings.stop_s)
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
        await self.spend(self.timings.start_s)
        self.fleeting.services.pop(container.id, None)
        if self.behaviour(container.service, container.labels) is Behaviour.NEVER_STARTS:
            self.journal.engine("error", f"Handler for POST /containers/{container.id[:12]}/start")
            raise ApplyError(f"cannot start {container.service}")
        self.run(container)
        return container

    def run(self, container: Container) -> None:
        self.starts[container.id] += 1
        container.life = Life.RUNNING
        self.notify(ContainerEvent.STARTED, container)

    async def _make(self, step: Start) -> Container:
        self.fleeting.installing.append(step.image)
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
        self.journal.engine("info", f"ignoring event: container {container.id[:12]} died")
        self.notify(ContainerEvent.CRASHED, container)
        await self.spend(self.timings.crash_gap_s)
        if not self._is_another_life(container, start, Life.EXITED):
            self.run(container)

    def _is_another_life(self, container: Container, start: int, life: Life) -> bool:
        """Whether somebody else has stopped, started or removed it since that start."""
        return (
            container not in self.kept.containers
            or self.starts[container.id] != start
            or container.life is not life
        )

    def _crashes(self, container: Container) -> bool:
        behaviour = self.behaviour(container.service, container.labels)
        return behaviour is Behaviour.CRASH_AFTER_START

    @contextmanager
    def _busy(self, works: list[Work]) -> Iterator[None]:
        self.fleeting.images[:0] = works
        try:
            yield
        finally:
            mine = [id(work) for work in works]
            self.fleeting.images = [it for it in self.fleeting.images if id(it) not in mine]


def _content_id(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
