"""The next step from what is to what should be. Pure; one step at a time, as the Supervisor's loop takes them.

Rules, in this order:
0. change the settings, then make volumes and networks;
1. fetch every missing image;
2. remove images that neither the target nor a container needs;
3. of a container that differs from its target: rename it when its content is the same, else stop and remove it
   (that is where update locks are asked);
4. start what should run and does not;
5. note the release as applied, or forget an app that is gone.

Oddity, kept (README 4): an image `repository@sha256:...` counts as present as soon as the engine has any image of that
repository. It is never pulled, the old content gets the new name, and removing the old row fails for ever after.

Source: the recorded timelines; `TIMELINE_update_release2.json` is the oddity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simulators.supervisor.device_config import Changes, changes
from simulators.supervisor.state import Container, Image, Kept, Life, image_of
from simulators.supervisor.target import AppTarget, ServiceTarget, Target


@dataclass(frozen=True, slots=True)
class Configure:
    changed: Changes


@dataclass(frozen=True, slots=True)
class Make:
    what: str
    """As in `Kept.volumes`."""


@dataclass(frozen=True, slots=True)
class Fetch:
    wanted: tuple[tuple[AppTarget, ServiceTarget], ...]


@dataclass(frozen=True, slots=True)
class Adopt:
    """Write a row for an image whose content the engine is believed to have."""

    image: Image


@dataclass(frozen=True, slots=True)
class Remove:
    image: Image


@dataclass(frozen=True, slots=True)
class Rename:
    container: Container
    image: Image


@dataclass(frozen=True, slots=True)
class Kill:
    container: Container


@dataclass(frozen=True, slots=True)
class Start:
    app: AppTarget
    service: ServiceTarget
    image: Image
    api_key: str


@dataclass(frozen=True, slots=True)
class Commit:
    app: AppTarget


@dataclass(frozen=True, slots=True)
class Forget:
    app_id: int


Step = Configure | Make | Fetch | Adopt | Remove | Rename | Kill | Start | Commit | Forget
Wanted = tuple[AppTarget, ServiceTarget]


def next_step(kept: Kept) -> Step | None:
    """None when nothing is left to do: the target is applied."""
    return next(_steps(kept, kept.target), None)


def _steps(kept: Kept, target: Target) -> Iterator[Step]:
    wanted = [(app, service) for app in target.apps for service in app.services]
    yield from _settings(kept, target)
    yield from _volumes(kept, target)
    yield from _images(kept, wanted)
    yield from _unneeded(kept, wanted)
    for container in kept.containers:
        yield from _differences(kept, target, container)
    yield from _starts(kept, wanted)
    yield from _ends(kept, target)


def _settings(kept: Kept, target: Target) -> Iterator[Step]:
    changed = changes(kept.config, target.config) if kept.config else Changes()
    if changed.told:
        yield Configure(changed)


def _volumes(kept: Kept, target: Target) -> Iterator[Step]:
    for app in target.apps:
        wanted = [f"volume '{name}'" for name in app.volumes]
        for what in (*wanted, *(["network 'default'"] if app.commit else [])):
            if f"{app.app_id} {what}" not in kept.volumes:
                yield Make(f"{app.app_id} {what}")


def _images(kept: Kept, wanted: list[Wanted]) -> Iterator[Step]:
    unknown = [pair for pair in wanted if kept.image(image_of(*pair)) is None]
    missing = tuple(pair for pair in unknown if _content(kept, pair[1]) is None)
    if missing:
        yield Fetch(missing)
    for app, service in wanted:
        image = image_of(app, service)
        image.docker_id = _content(kept, service) or ""
        if kept.image(image) != image:
            yield Adopt(image)


def _content(kept: Kept, service: ServiceTarget) -> str | None:
    """The engine's id of what it takes for this image; None when it has to be pulled."""
    named = [row for row in kept.images if row.name == service.image]
    near = [row for row in kept.images if _same_repository(row, service)]
    return next((row.docker_id for row in (*named, *near)), None)


def _same_repository(row: Image, service: ServiceTarget) -> bool:
    return service.repository is not None and row.name.startswith(f"{service.repository}@")


def _unneeded(kept: Kept, wanted: list[Wanted]) -> Iterator[Step]:
    needed = {image_of(*pair).key for pair in wanted}
    needed |= {container.image.key for container in kept.containers}
    for image in kept.images:
        if image.key not in needed:
            yield Remove(image)


def _differences(kept: Kept, target: Target, container: Container) -> Iterator[Step]:
    app = target.app(container.app_id)
    service = next((s for s in app.services if s.name == container.service), None) if app else None
    image = kept.image(image_of(app, service)) if app and service else None
    if service is None or image is None or not _same(kept, service, container, image):
        yield Kill(container)
    elif container.image != image:
        yield Rename(container, image)


def _same(kept: Kept, service: ServiceTarget, container: Container, image: Image) -> bool:
    """A container with this content and configuration need not be stopped."""
    key = kept.service_keys.get((container.app_id, container.service), "")
    return (
        container.image.docker_id == image.docker_id
        and container.environment == service.environment
        and container.labels == service.labels
        and container.api_key == key
    )


def _starts(kept: Kept, wanted: list[Wanted]) -> Iterator[Step]:
    for app, service in wanted:
        container = kept.container(app.app_id, service.name)
        runs = container is not None and container.life is Life.RUNNING
        image = kept.image(image_of(app, service))
        if service.running and not runs and image is not None:
            yield Start(app, service, image, kept.service_keys.get((app.app_id, service.name), ""))


def _ends(kept: Kept, target: Target) -> Iterator[Step]:
    for app in target.apps:
        if app.commit is not None and kept.commits.get(app.app_id) != app.commit:
            yield Commit(app)
    for app_id in kept.app_uuids:
        if target.app(app_id) is None:
            yield Forget(app_id)
