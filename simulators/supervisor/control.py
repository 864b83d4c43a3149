"""The control port: what a harness in another process reads and stirs. Never on the Supervisor's own API.

`GET /told`: what the Supervisor was told, oldest first. `GET /state`: is the host up, its boot id, its locks.
`POST /behaviour` `{"service": "main", "behaviour": "crash-after-start"}`: from now on, whatever the label says.
`POST /power-cut` `{"off_s": 3}` · `POST /restart` · `POST /power-on` · `POST /host-update` `{"in_progress": true}`.
`POST /journal` `{"manner": "endless"}`: how `/v2/journal-logs` is answered from now on.

Rules:
- No secret is in any answer; it is for loopback, and it asks for no key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.supervisor.engine import Behaviour
from simulators.supervisor.express import BadBodyError, body_of
from simulators.supervisor.host_journal import Manner

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

Handler = Callable[["Supervisor", dict[str, Any]], Response]


def control_app(supervisor: Supervisor) -> Starlette:
    # fmt: off
    table: dict[tuple[str, str], Handler] = {
        ("GET",  "/told"):        _told,
        ("GET",  "/state"):       _state,
        ("POST", "/behaviour"):   _behaviour,
        ("POST", "/power-cut"):   _power_cut,
        ("POST", "/power-on"):    _power_on,
        ("POST", "/restart"):     _restart,
        ("POST", "/host-update"): _host_update,
        ("POST", "/journal"):     _journal,
    }
    # fmt: on
    return Starlette(
        routes=[
            Route(path, _endpoint(supervisor, handler), methods=[method])
            for (method, path), handler in table.items()
        ],
    )


def _endpoint(supervisor: Supervisor, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return handler(supervisor, await body_of(request))
        except (BadBodyError, KeyError, ValueError) as problem:
            return JSONResponse({"problem": f"{type(problem).__name__}: {problem}"}, 400)

    return endpoint


def _told(supervisor: Supervisor, _body: dict[str, Any]) -> Response:
    return JSONResponse([asdict(told) for told in supervisor.told])


def _state(supervisor: Supervisor, _body: dict[str, Any]) -> Response:
    return JSONResponse(
        {
            "alive": supervisor.alive,
            "boots": supervisor.boots,
            "boot_id": supervisor.world.boot_id(),
            "uuid": supervisor.kept.identity.uuid,
            "registered": supervisor.kept.identity.device_id is not None,
            "refused_target": list(supervisor.follower.refused),
        }
    )


def _behaviour(supervisor: Supervisor, body: dict[str, Any]) -> Response:
    supervisor.misbehave(body["service"], Behaviour(body["behaviour"]))
    return Response(status_code=204)


def _power_cut(supervisor: Supervisor, body: dict[str, Any]) -> Response:
    off_s = body.get("off_s")
    supervisor.power_cut(None if off_s is None else float(off_s))
    return Response(status_code=204)


def _power_on(supervisor: Supervisor, _body: dict[str, Any]) -> Response:
    supervisor.power_on()
    return Response(status_code=204)


def _restart(supervisor: Supervisor, _body: dict[str, Any]) -> Response:
    supervisor.restart()
    return Response(status_code=204)


def _host_update(supervisor: Supervisor, body: dict[str, Any]) -> Response:
    supervisor.host_update_in_progress = bool(body["in_progress"])
    return Response(status_code=204)


def _journal(supervisor: Supervisor, body: dict[str, Any]) -> Response:
    supervisor.host_journal.manner = Manner(body["manner"])
    return Response(status_code=204)
