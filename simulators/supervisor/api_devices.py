"""The local API's routes about the device itself: version, names, tags, and the local target state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from interfaces.target_verdict import TargetRejectedError
from simulators.supervisor import actions, container_config
from simulators.supervisor.express import Answer, body_of, failed, send_html, send_json, send_text
from simulators.supervisor.locks import UpdatesLockedError
from simulators.supervisor.sources import SourceUnavailableError
from simulators.supervisor.state import VERSION
from simulators.supervisor.target import read_local_target

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

Handler = Callable[["Supervisor", Request], Awaitable[Answer]]

BAD_TAGS: Final = "Invalid tags body, must be an object like `{[tagKey: string]: string}`"
NO_BACKEND: Final = "Attempt to communicate with API, without initialized client"
NOT_LOCAL: Final = "Target state can only set when device is in local mode"


def _success(**values: object) -> Answer:
    return send_json({"status": "success", **values})


async def _version(_supervisor: Supervisor, _request: Request) -> Answer:
    return _success(version=VERSION)


async def _name(supervisor: Supervisor, _request: Request) -> Answer:
    return _success(deviceName=supervisor.kept.target.name)


async def _vpn(_supervisor: Supervisor, _request: Request) -> Answer:
    return _success(vpn={"enabled": True, "connected": False})


async def _info(supervisor: Supervisor, _request: Request) -> Answer:
    host = supervisor.setup.host
    return _success(info={"arch": host.arch, "deviceType": host.device_type})


async def _cleanup(_supervisor: Supervisor, _request: Request) -> Answer:
    return _success()


async def _blink(_supervisor: Supervisor, _request: Request) -> Answer:
    return send_text("OK")


async def _container_ids(supervisor: Supervisor, request: Request) -> Answer:
    containers = supervisor.kept.containers
    name = request.query_params.get("serviceName") or request.query_params.get("service")
    if name is None:
        return _success(services={held.service: held.id for held in reversed(containers)})
    named = next((held for held in containers if held.service == name), None)
    if named is None:
        raise actions.NoSuchAppError("Could not find service with that name")
    return _success(containerId=named.id)


async def _get_host_config(supervisor: Supervisor, _request: Request) -> Answer:
    return send_json({"network": {"hostname": supervisor.kept.hostname}})


async def _patch_host_config(supervisor: Supervisor, request: Request) -> Answer:
    network = (await body_of(request)).get("network", {})
    try:
        for app_id in {held.app_id for held in supervisor.kept.containers}:
            supervisor.applier.ask_locks(app_id, force=False)
    except UpdatesLockedError as locked:
        return send_html(str(locked), 423)
    supervisor.kept.hostname = network.get("hostname", supervisor.kept.hostname)
    supervisor.keep()
    return send_text("OK")


async def _get_tags(supervisor: Supervisor, _request: Request) -> Answer:
    if supervisor.source is None:
        return failed(NO_BACKEND, 500)
    try:
        tags = await supervisor.source.tags(supervisor.kept.identity)
    except SourceUnavailableError as problem:
        return failed(str(problem), 500)
    return _success(tags=tags)


async def _patch_tags(supervisor: Supervisor, request: Request) -> Answer:
    tags = await body_of(request)
    if not all(isinstance(value, str) for value in tags.values()):
        return failed(BAD_TAGS, 400)
    if any(character.isspace() for key in tags for character in key):
        return failed("Tag keys cannot contain whitespace", 400)
    supervisor.tags.set(tags)
    return send_json({"status": "success"}, 202)


async def _get_target(supervisor: Supervisor, _request: Request) -> Answer:
    """Oddity (README 11): any service's key sees the environment and API keys of all."""
    return _success(state={"local": container_config.local_target(supervisor)})


async def _set_target(supervisor: Supervisor, request: Request) -> Answer:
    body: dict[str, Any] = await body_of(request)
    if not supervisor.local_mode:
        return failed(NOT_LOCAL, 400)
    try:
        target = read_local_target(supervisor.kept.identity.uuid, body.get("local", {}))
    except TargetRejectedError as rejected:
        return failed(f"Invalid target state.\n{rejected}", 400)
    supervisor.follower.set_local_target(target)
    return _success(message="OK")


def device_routes() -> dict[tuple[str, str], Handler]:
    # fmt: off
    return {
        ("GET",   "/v2/version"):             _version,
        ("GET",   "/v2/device/name"):         _name,
        ("GET",   "/v2/device/tags"):         _get_tags,
        ("PATCH", "/v2/device/tags"):         _patch_tags,
        ("GET",   "/v2/device/vpn"):          _vpn,
        ("GET",   "/v2/local/device-info"):   _info,
        ("GET",   "/v2/local/target-state"):  _get_target,
        ("POST",  "/v2/local/target-state"):  _set_target,
        ("GET",   "/v2/cleanup-volumes"):     _cleanup,
        ("GET",   "/v2/containerid"):         _container_ids,
        ("POST",  "/v1/blink"):               _blink,
        ("GET",   "/v1/device/host-config"):  _get_host_config,
        ("PATCH", "/v1/device/host-config"):  _patch_host_config,
    }
    # fmt: on
