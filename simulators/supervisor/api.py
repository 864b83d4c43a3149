"""The Supervisor's local API: every recorded route, as thin translations to what the Supervisor can do.

Rules:
- A route answers what was recorded for it, oddities included; `door.py` has let the caller in. `api_journal.py` has the
  one that was not recorded.
- `force` and `cancel` are read from the body only.
- A body that is not JSON is 503, not 400; an update lock is 423.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from interfaces.world import new_id
from simulators.supervisor import actions, views
from simulators.supervisor.api_apps import app_routes
from simulators.supervisor.api_devices import device_routes
from simulators.supervisor.api_journal import journal_routes
from simulators.supervisor.door import ASKED_PATH, Door, access_of
from simulators.supervisor.express import (
    Answer,
    BadBodyError,
    body_of,
    cannot,
    failed,
    no_content,
    send_html,
    send_json,
    send_text,
    truthy,
)
from simulators.supervisor.locks import UpdatesLockedError

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

Handler = Callable[["Supervisor", Request], Awaitable[Answer]]

HOST_UPDATE: Final = "Waiting for Host OS update to finish"


def local_api(supervisor: Supervisor) -> ASGIApp:
    """The whole of it as an ASGI app."""
    table = {**ROUTES, **app_routes(), **device_routes(), **journal_routes()}
    routes = [
        Route(path, _endpoint(supervisor, handler), methods=[method])
        for (method, path), handler in table.items()
    ]
    missing = {404: _nothing_here, 405: _nothing_here}
    inside = Starlette(routes=routes, exception_handlers=missing)
    inside.router.redirect_slashes = False
    return Door(supervisor, inside)


def _endpoint(supervisor: Supervisor, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            answer = await handler(supervisor, request)
        except (BadBodyError, actions.NoSuchAppError) as problem:
            answer = failed(str(problem), 503)
        except actions.NoSuchServiceError as problem:
            answer = send_html(str(problem), 404)
        except UpdatesLockedError as problem:
            answer = failed(str(problem), 423)
        return answer.to(request)

    return endpoint


async def _nothing_here(request: Request, _exc: Exception) -> Response:
    return cannot(request.method, request.scope.get(ASKED_PATH, request.url.path)).to(request)


# What is.


async def _ping(_supervisor: Supervisor, _request: Request) -> Answer:
    return send_html("OK")


async def _healthy(_supervisor: Supervisor, _request: Request) -> Answer:
    return send_text("OK")


async def _device(supervisor: Supervisor, _request: Request) -> Answer:
    host = supervisor.setup.host
    return send_json(views.device(supervisor.kept, supervisor.fleeting, host))


async def _state_status(supervisor: Supervisor, _request: Request) -> Answer:
    return send_json(views.state_status(supervisor.kept, supervisor.fleeting))


# What to do.


async def _update(supervisor: Supervisor, request: Request) -> Answer:
    body = await body_of(request)
    force, cancel = truthy(body.get("force")), truthy(body.get("cancel"))
    supervisor.note("update", body)
    supervisor.host_journal.supervisor("[api]     POST /v1/update 204 - 1.012 ms")
    if not force and not supervisor.settings.instant_updates:
        return send_text("Accepted", 202)
    supervisor.follower.notice(force=force, cancel=cancel)
    return no_content()


def _going_down(what: str) -> Handler:
    async def go_down(supervisor: Supervisor, request: Request) -> Answer:
        force = truthy((await body_of(request)).get("force"))
        if supervisor.host_update_in_progress:
            return send_json({"Data": "", "Error": HOST_UPDATE}, 423)
        try:
            for app_id in {container.app_id for container in supervisor.kept.containers}:
                supervisor.applier.ask_locks(app_id, force=force)
        except UpdatesLockedError as locked:
            return send_json({"Data": "", "Error": str(locked)}, 423)
        supervisor.note(what)
        supervisor.go_down(what)
        return send_json({"Data": "OK", "Error": None}, 202)

    return go_down


async def _regenerate(supervisor: Supervisor, request: Request) -> Answer:
    """The old key is 401 at once; the container gets the new one at the next apply."""
    key, kept = new_id(supervisor.world), supervisor.kept
    service = access_of(request).service
    if service is None:
        kept.global_key = key
    else:
        kept.service_keys[service] = key
    supervisor.keep()
    return send_html(key)


# fmt: off
ROUTES: Final[dict[tuple[str, str], Handler]] = {
    ("GET",  "/ping"):                                     _ping,
    ("GET",  "/v1/healthy"):                               _healthy,
    ("GET",  "/v1/device"):                                _device,
    ("POST", "/v1/update"):                                _update,
    ("POST", "/v1/reboot"):                                _going_down("reboot"),
    ("POST", "/v1/shutdown"):                              _going_down("shutdown"),
    ("POST", "/v1/regenerate-api-key"):                    _regenerate,
    ("GET",  "/v2/state/status"):                          _state_status,
}
# fmt: on
