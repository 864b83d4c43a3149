"""What a person or a program asks of the Supervisor beside updates: restart, stop, start, purge.

Rules, each recorded:
- A lock of any service of the app refuses restart, stop and purge (423); start asks for none.
- In an app with one service, the name of the service does not matter: that one is meant (README 10).
- They answer when they are done, after 4 to 6 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simulators.supervisor.engine import ContainerEvent
from simulators.supervisor.locks import UpdatesLockedError
from simulators.supervisor.plan import Start
from simulators.supervisor.state import Container, Life

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor


class NoSuchAppError(Exception):
    """The app is not on the device."""


class NoSuchServiceError(Exception):
    """The app has several services, and none by that name."""


async def restart_app(supervisor: Supervisor, app_id: int, *, force: bool, what: str) -> None:
    """Stop and start all services of the app, as `/v1/restart` and `/v1/purge` do.

    Raises:
        NoSuchAppError: it is not on the device.
        UpdatesLockedError: a service is locked, and there is no force.

    """
    containers = supervisor.kept.containers_of(app_id)
    if not containers:
        raise NoSuchAppError(f"Application with ID {app_id} is not in the current state")
    purges = what == "purge"
    if purges:
        supervisor.teller.say(f"Purging data for app {app_id}")
    try:
        supervisor.applier.ask_locks(app_id, force=force)
    except UpdatesLockedError as locked:
        if purges:
            why = f"Error purging data: UpdatesLockedError: {locked}"
            supervisor.teller.say(why, failed=True)
        raise
    supervisor.note(what, {"appId": app_id})
    with _intermediate(supervisor):
        for container in containers:
            await _again(supervisor, container)
    supervisor.applier.release_locks()
    if purges:
        supervisor.teller.say("Purged data")


async def restart_service(supervisor: Supervisor, container: Container, *, force: bool) -> None:
    """Raises UpdatesLockedError when it is locked and there is no force."""
    supervisor.applier.ask_locks(container.app_id, force=force)
    with _intermediate(supervisor):
        await _again(supervisor, container)
    supervisor.applier.release_locks()


async def stop_service(supervisor: Supervisor, container: Container, *, force: bool) -> None:
    """Raises UpdatesLockedError when it is locked and there is no force."""
    supervisor.applier.ask_locks(container.app_id, force=force)
    engine = supervisor.engine
    with _intermediate(supervisor):
        engine.notify(ContainerEvent.STOPPING, container)
        await engine.spend(engine.timings.stop_s)
        container.life = Life.EXITED
    supervisor.applier.release_locks()
    supervisor.keep()


async def start_service(supervisor: Supervisor, container: Container) -> None:
    engine = supervisor.engine
    await engine.spend(engine.timings.start_s)
    engine.run(container)
    supervisor.keep()


def chosen(supervisor: Supervisor, app_id: int, service: str) -> Container:
    """The container that a service action means.

    Raises:
        NoSuchAppError: the app has none.
        NoSuchServiceError: it has several, and none of that name.

    """
    containers = supervisor.kept.containers_of(app_id)
    if not containers:
        raise NoSuchAppError("Cannot read properties of undefined (reading 'volumes')")
    if len(containers) == 1:
        return containers[0]
    named = supervisor.kept.container(app_id, service)
    if named is None:
        raise NoSuchServiceError(
            "Service not found, a container must exist for this endpoint to work"
        )
    return named


async def _again(supervisor: Supervisor, container: Container) -> None:
    engine = supervisor.engine
    app = supervisor.kept.target.app(container.app_id)
    service = next((s for s in app.services if s.name == container.service), None) if app else None
    await engine.stop(container)
    await engine.spend(engine.timings.action_s)
    if app is not None and service is not None:
        await engine.start(Start(app, service, container.image, container.api_key))
    supervisor.keep()


@contextmanager
def _intermediate(supervisor: Supervisor) -> Iterator[None]:
    """While it lasts, the state says `applying`."""
    fleeting = supervisor.fleeting
    was, fleeting.applying = fleeting.applying, True
    try:
        yield
    finally:
        fleeting.applying = was
