"""What a container is told and given: its environment, and its configuration as `GET /v2/local/target-state` shows it.

Source: the recorded `GET_v2_local_target-state.json` and `GET_v1_apps_1001.json`; keys in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulators.supervisor.settings import shown_config
from simulators.supervisor.state import Container, image_of
from simulators.supervisor.target import AppTarget, ServiceTarget

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

SUPERVISOR_HOST: Final = "10.114.104.1"
LOCK_PATH: Final = "/tmp/balena/updates.lock"  # noqa: S108 - the path inside the container, as balena has it
HANDOVER_PATH: Final = "/tmp/balena/handover-complete"  # noqa: S108 - the same
LOCK_MOUNTS: Final = ("/tmp/resin", "/tmp/balena")  # noqa: S108 - the same
HOST_LOCKS: Final = "/tmp/balena-supervisor/services"  # noqa: S108 - the path on the host

ENGINE_DEFAULTS: Final[dict[str, Any]] = {
    "command": [],
    "entrypoint": [],
    "stopSignal": "SIGTERM",
    "workingDir": "",
    "user": "",
    "oomKillDisable": False,
    "readOnly": False,
    "sysctls": {},
    "portMaps": [],
    "capAdd": [],
    "capDrop": [],
    "cgroupParent": "",
    "devices": [],
    "deviceRequests": [],
    "dnsOpt": [],
    "extraHosts": [],
}
MORE_ENGINE_DEFAULTS: Final[dict[str, Any]] = {
    "dns": [],
    "dnsSearch": [],
    "ulimits": {},
    "groupAdd": [],
    "healthcheck": {"test": ["NONE"]},
    "pid": "",
    "pidsLimit": 0,
    "securityOpt": [],
    "stopGracePeriod": 10,
    "tmpfs": [],
    "usernsMode": "",
    "cpuShares": 0,
    "cpuQuota": 0,
    "cpus": 0,
    "cpuset": "",
    "domainname": "",
    "ipc": "shareable",
    "macAddress": "",
    "memLimit": 0,
    "memReservation": 0,
    "oomScoreAdj": 0,
    "privileged": False,
    "shmSize": 67108864,
    "hostname": "",
    "tty": True,
}


def environment(
    supervisor: Supervisor, app: AppTarget, service: ServiceTarget, *, with_keys: bool
) -> dict[str, str]:
    """The environment of a container, the names of both ages; API keys only on demand."""
    host = supervisor.setup.host
    facts = {
        "APP_ID": str(app.app_id),
        "APP_UUID": app.uuid,
        "APP_NAME": app.name,
        "SERVICE_NAME": service.name,
        "DEVICE_UUID": supervisor.kept.identity.uuid,
        "DEVICE_TYPE": host.device_type,
        "DEVICE_ARCH": host.arch,
        "HOST_OS_VERSION": host.os_version,
        "APP_LOCK_PATH": LOCK_PATH,
    }
    result = dict(service.environment)
    for age in ("BALENA", "RESIN"):
        result |= {f"{age}_{name}": value for name, value in facts.items()} | {age: "1"}
    result |= {
        "RESIN_SERVICE_KILL_ME_PATH": HANDOVER_PATH,
        "BALENA_SERVICE_HANDOVER_COMPLETE_PATH": HANDOVER_PATH,
        "USER": "root",
        "PATH": "/bin",
    }
    key = supervisor.kept.service_keys.get((app.app_id, service.name))
    return result | _way_to_the_supervisor(host.api_port, key if with_keys else None)


def _way_to_the_supervisor(port: int, key: str | None) -> dict[str, str]:
    values = {} if key is None else {"API_KEY": key}
    values |= {
        "PORT": str(port),
        "HOST": SUPERVISOR_HOST,
        "ADDRESS": f"http://{SUPERVISOR_HOST}:{port}",
    }
    return {
        f"{age}_SUPERVISOR_{name}": value
        for name, value in values.items()
        for age in ("RESIN", "BALENA")
    }


def v1_app(supervisor: Supervisor, container: Container) -> dict[str, Any]:
    """GET /v1/apps/:id."""
    app = supervisor.kept.target.app(container.app_id)
    service = next((s for s in app.services if s.name == container.service), None) if app else None
    env = environment(supervisor, app, service, with_keys=False) if app and service else {}
    return {
        "appId": container.app_id,
        "commit": container.image.commit,
        "containerId": container.id,
        "env": env,
        "imageId": container.image.docker_id,
        "releaseId": container.image.release_id,
    }


def local_target(supervisor: Supervisor) -> dict[str, Any]:
    """What `GET /v2/local/target-state` shows under `local`."""
    target = supervisor.kept.target
    return {
        "name": target.name,
        "config": shown_config(target.config, managed=supervisor.managed),
        "apps": {str(app.app_id): _app(supervisor, app) for app in target.apps},
    }


def _app(supervisor: Supervisor, app: AppTarget) -> dict[str, Any]:
    owner = {"appId": app.app_id, "appUuid": app.uuid}
    return {
        "isTargetState": True,
        **owner,
        "appName": app.name,
        "commit": app.commit,
        "source": supervisor.setup.api_endpoint,
        "isHost": False,
        "isRejected": False,
        "services": [_service(supervisor, app, service) for service in app.services],
        "networks": [{**owner, "name": "default", "config": _network(app)}],
        "volumes": [_volume(app, name) for name in app.volumes],
    }


def _volume(app: AppTarget, name: str) -> dict[str, Any]:
    labels = {"io.balena.supervised": "true", "io.balena.app-uuid": app.uuid}
    config = {"driverOpts": {}, "driver": "local", "labels": labels}
    return {"name": name, "appId": app.app_id, "appUuid": app.uuid, "config": config}


def _network(app: AppTarget) -> dict[str, Any]:
    return {
        "driver": "bridge",
        "ipam": {"driver": "default", "config": [], "options": {}},
        "enableIPv6": False,
        "internal": False,
        "labels": {"io.balena.app-id": str(app.app_id)},
        "options": {},
        "configOnly": False,
    }


def _service(supervisor: Supervisor, app: AppTarget, service: ServiceTarget) -> dict[str, Any]:
    row = supervisor.kept.image(image_of(app, service))
    docker_id = row.docker_id if row else None
    body = {
        "appId": app.app_id,
        "appUuid": app.uuid,
        "imageId": service.image_id,
        "config": _config(supervisor, app, service, docker_id or service.image),
        "serviceName": service.name,
        "commit": app.commit,
        "releaseId": app.release_id,
        "serviceId": service.service_id,
        "imageName": service.image,
        "dependsOn": None,
    }
    return body if docker_id is None else {**body, "dockerImageId": docker_id}


def _mount(app: AppTarget, volume: str | dict[str, Any]) -> str | dict[str, Any]:
    """A named volume is the app's own; memory has no source."""
    if isinstance(volume, str):
        return f"{app.app_id}_{volume}"
    named = {"source": f"{app.app_id}_{volume['source']}"} if "source" in volume else {}
    return volume | named


def _config(
    supervisor: Supervisor, app: AppTarget, service: ServiceTarget, image: str
) -> dict[str, Any]:
    locks = f"{HOST_LOCKS}/{app.app_id}/{service.name}"
    labels = {
        "io.balena.supervised": "true",
        "io.balena.app-id": str(app.app_id),
        "io.balena.service-id": str(service.service_id),
        "io.balena.service-name": service.name,
        "io.balena.app-uuid": app.uuid,
    }
    mounts = [_mount(app, volume) for volume in service.volumes]
    network = f"{app.uuid}_default"
    return {
        "image": image,
        "running": service.running,
        "volumes": [*mounts, *(f"{locks}:{inside}" for inside in LOCK_MOUNTS)],
        "restart": "always",
        "labels": {**service.labels, **labels},
        "environment": environment(supervisor, app, service, with_keys=True),
        "networkMode": network,
        **ENGINE_DEFAULTS,
        "networks": {network: {"aliases": [service.name]}, "supervisor0": {}},
        **MORE_ENGINE_DEFAULTS,
    }
