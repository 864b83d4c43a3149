"""The local API's routes about apps and their services: what they are, and restart, stop, start, purge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from simulators.supervisor import actions, container_config, views
from simulators.supervisor.door import access_of
from simulators.supervisor.express import Answer, body_of, failed, send_html, send_json, truthy

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

Handler = Callable[["Supervisor", Request], Awaitable[Answer]]

NO_SERVICE_NAME: Final = (
    "serviceName or imageId parameters were not provided or the app is multi-container."
    " Use the v2 service action endpoints."
)
ONE_CONTAINER_ONLY: Final = "Some v1 endpoints are only allowed on single-container apps"


# What is.


async def _applications(supervisor: Supervisor, _request: Request) -> Answer:
    return send_json(views.applications(supervisor.kept, supervisor.fleeting))


async def _application(supervisor: Supervisor, request: Request) -> Answer:
    asked = request.path_params["app_id"]
    if not asked.isdigit():
        return failed(f"Invalid application ID: {asked}", 400)
    if not _known(supervisor, int(asked)):
        return failed(f"Application ID does not exist: {asked}", 409)
    return send_json(views.application(supervisor.kept, supervisor.fleeting, int(asked)))


def _known(supervisor: Supervisor, app_id: int) -> bool:
    kept = supervisor.kept
    return app_id in kept.commits or kept.target.app(app_id) is not None


async def _v1_app(supervisor: Supervisor, request: Request) -> Answer:
    app_id = int(request.path_params["app_id"])
    if not access_of(request).may(app_id):
        return failed("Application is not available", 401)
    containers = supervisor.kept.containers_of(app_id)
    if not containers:
        return send_html("App not found", 400)
    if len(containers) > 1:
        return send_html(ONE_CONTAINER_ONLY, 400)
    return send_json(container_config.v1_app(supervisor, containers[0]))


# What to do.


async def _v1_restart(supervisor: Supervisor, request: Request) -> Answer:
    body = await body_of(request)
    if "appId" not in body:
        return send_html("Missing app id", 400)
    return await _restart_app(supervisor, request, int(body["appId"]), "restart", send_html("OK"))


async def _v1_purge(supervisor: Supervisor, request: Request) -> Answer:
    body = await body_of(request)
    if "appId" not in body:
        return send_html("Invalid or missing appId", 400)
    done = send_json({"Data": "OK", "Error": ""})
    return await _restart_app(supervisor, request, int(body["appId"]), "purge", done)


def _v2_app_action(what: str) -> Handler:
    async def act(supervisor: Supervisor, request: Request) -> Answer:
        app_id = int(request.path_params["app_id"])
        return await _restart_app(supervisor, request, app_id, what, send_html("OK"))

    return act


async def _restart_app(
    supervisor: Supervisor, request: Request, app_id: int, what: str, done: Answer
) -> Answer:
    if not access_of(request).may(app_id):
        return failed("Unauthorized", 401)
    force = truthy((await body_of(request)).get("force"))
    await actions.restart_app(supervisor, app_id, force=force, what=what)
    return done


async def _v1_stop(supervisor: Supervisor, request: Request) -> Answer:
    app_id = int(request.path_params["app_id"])
    if len(supervisor.kept.containers_of(app_id)) > 1:
        return send_html(NO_SERVICE_NAME, 400)
    container = actions.chosen(supervisor, app_id, "")
    force = truthy((await body_of(request)).get("force"))
    await actions.stop_service(supervisor, container, force=force)
    return send_json({"containerId": container.id})


def _service_action(verb: str) -> Handler:
    async def act(supervisor: Supervisor, request: Request) -> Answer:
        body = await body_of(request)
        app_id = int(request.path_params["app_id"])
        if not access_of(request).may(app_id):
            return failed("Unauthorized", 401)
        if not body.get("serviceName") and not body.get("imageId"):
            return send_html(NO_SERVICE_NAME, 400)
        container = actions.chosen(supervisor, app_id, str(body.get("serviceName", "")))
        force = truthy(body.get("force"))
        if verb == "restart":
            await actions.restart_service(supervisor, container, force=force)
        elif verb == "stop":
            await actions.stop_service(supervisor, container, force=force)
        else:
            await actions.start_service(supervisor, container)
        return send_html("OK")

    return act


def app_routes() -> dict[tuple[str, str], Handler]:
    # fmt: off
    return {
        ("POST", "/v1/restart"):                               _v1_restart,
        ("POST", "/v1/purge"):                                 _v1_purge,
        ("GET",  "/v1/apps/{app_id:int}"):                     _v1_app,
        ("POST", "/v1/apps/{app_id:int}/stop"):                _v1_stop,
        ("GET",  "/v2/applications/state"):                    _applications,
        ("GET",  "/v2/applications/{app_id}/state"):           _application,
        ("POST", "/v2/applications/{app_id:int}/restart"):     _v2_app_action("restart"),
        ("POST", "/v2/applications/{app_id:int}/purge"):       _v2_app_action("purge"),
        ("POST", "/v2/applications/{app_id:int}/restart-service"): _service_action("restart"),
        ("POST", "/v2/applications/{app_id:int}/stop-service"):    _service_action("stop"),
        ("POST", "/v2/applications/{app_id:int}/start-service"):   _service_action("start"),
    }
    # fmt: on
