"""The laboratory in which the recordings were made, rebuilt around the simulator: phases, releases, keys, locks."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

from simulators.supervisor import (
    ContainerEvent,
    MemoryTargets,
    Setup,
    Supervisor,
    one_directory,
)
from simulators.supervisor.locks import NOBODY
from simulators.supervisor.state import Container
from simulators.world import SimWorld

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"
UUID: Final = "6ed0237ee31345bf8e22e93fd7b65839"
APP: Final = 1001
DIGITS_UUID: Final = "11112222333344445555666677778888"
LETTERS_UUID: Final = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
REPOSITORIES: Final = "127.0.0.1:5001/"

COMMITS: Final = {
    1: "aaaa0000000000000000000000000001",
    2: "bbbb0000000000000000000000000002",
    3: "cccc0000000000000000000000000003",
    4: "dddd0000000000000000000000000004",
}
UNIQUE: Final = {
    1: "v2/img0000000000000000000000000000001"
    "@sha256:3951dba10eceb98c4a44782913c942921f3e3b25fb52ba699fc8f2cf8cd2a076",
    2: "v2/img0000000000000000000000000000002"
    "@sha256:3ce0dd725ad5ce84bc5e58e30a87c8e62bd5f89e521c6946ff81bcb12c6aade8",
    3: "v2/img0000000000000000000000000000003"
    "@sha256:628fa0d451364483c958f415ca38cdef795ea84adff33b26e537b9ba733fc4de",
}
"""One repository per image."""
SHARED: Final = {
    1: "lab/svc@sha256:41c303a58e369cf13f69eeffb64d8eaa022ceb995358eb74bad67e1046e416d9",
    2: "lab/svc@sha256:ef4c9fa86d4db5173e2e4ef99f2cbc29402911bc277210a18761e7d968f1dae9",
}
"""One repository for both: what brings the Supervisor into its loop."""
MISSING: Final = "v2/doesnotexist@sha256:" + "0" * 64


def target(
    number: int | None,
    image: str = "",
    *,
    app_uuid: str = DIGITS_UUID,
    config: dict[str, str] | None = None,
    second: bool = False,
    image_id: int | None = None,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The target state of release `number` as the laboratory's backend sent it; None: no app."""
    device = {
        "name": "lab-device",
        "config": {"RESIN_SUPERVISOR_POLL_INTERVAL": "60000"} if config is None else config,
        "apps": {},
    }
    if number is not None:
        services = {"main": _service(number, image, 501, image_id or 9000 + number, labels)}
        if second:
            services["second"] = _service(number, image, 502, 9010 + number, labels)
        release = {
            "id": 7000 + number,
            "services": services,
            "volumes": {"data": {}},
            "networks": {},
        }
        device["apps"] = {
            app_uuid: {
                "id": APP,
                "name": "lab-fleet",
                "class": "fleet",
                "is_host": False,
                "releases": {COMMITS[number]: release},
            }
        }
    return {UUID: device}


def _service(
    number: int, image: str, service_id: int, image_id: int, labels: dict[str, str] | None
) -> dict[str, Any]:
    return {
        "id": service_id,
        "image_id": image_id,
        "image": REPOSITORIES + (image or UNIQUE[number]),
        "environment": {"FOO": "bar"},
        "labels": {"io.balena.features.supervisor-api": "1", **(labels or {})},
        "running": True,
        "composition": {"volumes": ["data:/data"], "restart": "always"},
    }


@dataclass
class Lab:
    """One device in one phase."""

    world: SimWorld
    supervisor: Supervisor
    source: MemoryTargets | None
    locks: Path
    client: httpx.AsyncClient
    owners: dict[str, int] = field(default_factory=dict)

    async def pass_(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    async def get(self, path: str) -> Any:
        return (await self.client.get(path)).json()

    async def update(self, **body: object) -> int:
        """POST /v1/update; returns the status."""
        return (await self.client.post("/v1/update", json=body)).status_code

    def lock(self, name: str = "updates.lock") -> Path:
        lock = self.locks / name
        lock.touch()
        return lock

    async def apply(self, body: dict[str, Any]) -> None:
        """Set this target and wait until nothing is left to do."""
        assert self.source is not None
        self.source.set_target(body)
        await self.update()
        await self.pass_(1)
        await self.until(lambda: not self.supervisor.fleeting.applying)

    async def until(self, true: Callable[[], bool], within_s: float = 120.0) -> None:
        deadline = anyio.current_time() + within_s
        while not true():
            assert anyio.current_time() < deadline, f"not so within {within_s} virtual seconds"
            await self.pass_(0.02)


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(supervisor.run)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def a_lab(
    tmp: Path,
    *,
    managed: bool = True,
    key: str = "k" * 32,
    app_key: str | None = None,
    on_container: Callable[[ContainerEvent, Container], None] | None = None,
    state_directory: Path | None = None,
) -> AsyncIterator[Lab]:
    """A device without an app."""
    world, locks = SimWorld(1), tmp / "locks"
    locks.mkdir(exist_ok=True)
    source = MemoryTargets(target(None)) if managed else None
    owners: dict[str, int] = {}
    setup = Setup(
        one_directory(locks),
        uuid=UUID,
        api_key=key,
        lock_owner=lambda lock: owners.get(lock.name, os.geteuid()),
        on_container=on_container,
        state_directory=state_directory,
    )
    supervisor = Supervisor(world, setup, source)
    if app_key is not None:
        supervisor.kept.service_keys[APP, "main"] = app_key
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        running(supervisor),
        httpx.AsyncClient(
            transport=supervisor.transport(), base_url="http://supervisor", headers=headers
        ) as client,
    ):
        lab = Lab(world, supervisor, source, locks, client, owners)
        await lab.pass_(1)
        yield lab


# The recorded phases. Each names the keys that were valid then, and brings the device there.

Preparation = Callable[[Lab], Awaitable[None]]


async def no_app(lab: Lab) -> None:
    """A managed device starts without an app: the recorded config was still empty."""
    assert lab.source is not None
    lab.source.set_target(target(None, config={}))
    await lab.update()
    await lab.pass_(5)


async def shared_1(lab: Lab) -> None:
    await lab.apply(target(1, SHARED[1]))


async def unique_1(lab: Lab) -> None:
    await lab.apply(target(1, app_uuid=LETTERS_UUID))


async def unique_2(lab: Lab) -> None:
    await lab.apply(target(2))


async def locked(lab: Lab) -> None:
    await unique_2(lab)
    lab.lock()


async def lazy(lab: Lab) -> None:
    await lab.apply(target(2, config={"RESIN_SUPERVISOR_INSTANT_UPDATE_TRIGGER": "false"}))


async def local_mode(lab: Lab) -> None:
    """Just entered: the container is gone, its image not yet."""
    await lab.apply(target(3))
    assert lab.source is not None
    config = {"RESIN_SUPERVISOR_POLL_INTERVAL": "60000", "RESIN_SUPERVISOR_LOCAL_MODE": "1"}
    lab.source.set_target(target(3, config=config))
    await lab.update()
    await lab.until(lambda: not lab.supervisor.kept.containers)


async def missing_image(lab: Lab) -> None:
    """Between two attempts to pull what is not there."""
    await lab.apply(target(2, "lab/tagged:rel6", image_id=9006))
    assert lab.source is not None
    behaviour = {"io.baseos.simulator.behaviour": "pull-fails"}
    lab.source.set_target(target(4, MISSING, labels=behaviour))
    await lab.update()
    await lab.until(lambda: lab.supervisor.applier.waits)


async def two_services(lab: Lab) -> None:
    await lab.apply(target(2, app_uuid=LETTERS_UUID, second=True))


async def removed(lab: Lab) -> None:
    await unique_1(lab)
    await lab.apply(target(None))


async def host_update(lab: Lab) -> None:
    await unique_1(lab)
    lab.supervisor.host_update_in_progress = True


@dataclass(frozen=True)
class Phase:
    key: str
    prepare: Preparation
    app_key: str | None = None
    managed: bool = True


async def nothing(_lab: Lab) -> None:
    """As it starts."""


OLDEST, OLD, NEW = (
    "1bdce32dcc4d4046bc9e0ed709bae55b",
    "14c4864781be49348a1e0771e0689a03",
    "68aef81886b84070b40d666345c35c67",
)
APP_OLD, APP_MID, APP_NEW = (
    "0440d1edd4d7490cab97d2ca0c8c9cc8",
    "bfbcc876de1f487cbf25edfa59072e87",
    "12e48716d7b74516bdeb244ae6de79b5",
)

# fmt: off
PHASES: Final = {
    "unmanaged":            Phase("unused",  nothing, managed=False),
    "managed-noapp":        Phase(OLDEST,    no_app),
    "managed-app":          Phase(OLDEST,    shared_1,      APP_OLD),
    "locked-idle":          Phase(OLD,       locked,        APP_MID),
    "instantUpdates=false": Phase(OLD,       lazy),
    "regen":                Phase(OLD,       unique_2),
    "localmode":            Phase(NEW,       local_mode),
    "missing-image":        Phase(NEW,       missing_image),
    "auth-edge":            Phase(NEW,       unique_1,      APP_MID),
    "regen-app":            Phase(NEW,       unique_1,      APP_MID),
    "svc":                  Phase(NEW,       unique_1),
    "two-services":         Phase(NEW,       two_services),
    "apps-removed":         Phase(NEW,       removed),
    "HUP-in-progress":      Phase(NEW,       host_update),
    "reboot":               Phase(NEW,       unique_1),
    "lock-edge":            Phase(NEW,       unique_1),
}
# fmt: on


# What else had happened before a recorded row: the phase alone does not say it.


async def applying(lab: Lab) -> None:
    await lab.update()
    await lab.until(lambda: lab.supervisor.fleeting.applying)


async def key_was_changed(lab: Lab) -> None:
    lab.supervisor.kept.global_key = NEW


async def app_key_was_changed(lab: Lab) -> None:
    lab.supervisor.kept.service_keys[APP, "main"] = APP_NEW


async def emptied_locally(lab: Lab) -> None:
    local = {"name": "loc", "config": {"SUPERVISOR_LOCAL_MODE": "1"}, "apps": {}}
    await lab.client.post("/v2/local/target-state", json={"local": local})


async def stopped(lab: Lab) -> None:
    await lab.client.post("/v2/applications/1001/stop-service", json={"serviceName": "main"})


async def a_lock(lab: Lab) -> None:
    lab.lock()


async def lock_of_nobody(lab: Lab) -> None:
    lab.lock()
    lab.owners["updates.lock"] = NOBODY


async def lock_directory(lab: Lab) -> None:
    (lab.locks / "updates.lock").mkdir()


async def old_lock(lab: Lab) -> None:
    lab.lock("resin-updates.lock")


# fmt: off
BEFORE: Final[dict[tuple[str, str, str], Preparation]] = {
    # phase, file, label
    ("locked-idle", "GET_v2_state_status",        "lock held"):                applying,
    ("regen",       "GET_v2_version",             "old key after regenerate"): key_was_changed,
    ("regen",       "GET_v2_version",             "new key"):                  key_was_changed,
    ("regen-app",   "GET_v2_version",             "old app key"):              app_key_was_changed,
    ("regen-app",   "GET_v2_version",             "new app key"):              app_key_was_changed,
    ("localmode",   "GET_v2_local_target-state",  "after post"):               emptied_locally,
    ("svc",         "GET_v1_device",              "after stop"):               stopped,
    ("svc",         "GET_v2_state_status",        "after stop"):               stopped,
    ("lock-edge",   "POST_v1_reboot",             "force only in query"):      a_lock,
    ("lock-edge",   "POST_v2_applications_1001_restart-service", "lock owned by uid 65534 (nobody)"): lock_of_nobody,
    ("lock-edge",   "POST_v2_applications_1001_restart-service", "lock is a directory"):              lock_directory,
    ("lock-edge",   "POST_v2_applications_1001_restart-service", "legacy resin-updates.lock"):        old_lock,
    ("lock-edge",   "POST_v2_applications_1001_restart-service", 'force "false" string'):             a_lock,
}
# fmt: on


def recorded(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        (RECORDINGS / "device-api" / f"{name}.json").read_text()
    )
    return rows
