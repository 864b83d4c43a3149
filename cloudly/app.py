"""The application: `create_app(store, world, settings)`, an ASGI app without lifespan, task or thread.

What is to be done again and again is in `app.state.recurring`; who serves the app runs it beside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cloudly.balena import host
from cloudly.balena.agent_environment import AgentEnvironment
from cloudly.balena.api import SupervisorApi
from cloudly.balena.log_stream import LogStreamApi
from cloudly.balena.registry import RegistryTokens
from cloudly.http import answers
from cloudly.http.device import DeviceApi
from cloudly.http.headers import SafeHeaders
from cloudly.http.live import Closing, Live
from cloudly.http.logs_page import LogsPage
from cloudly.http.node_token import NodeTokenApi
from cloudly.http.page import Page
from cloudly.http.recurring import Recurring
from cloudly.leading import EVERY_S, Leading
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store.device_logs import DeviceLogs
from cloudly.store.log_rows import LogBounds
from cloudly.store.store import PRESENCE_EVERY_S, Store
from interfaces.world import World


def create_app(
    store: Store, world: World, settings: Settings, *, closing: Closing | None = None
) -> FastAPI:
    """Cloudly as an ASGI app. The caller opened the store and closes it."""
    app = FastAPI(title="Cloudly", docs_url=None, redoc_url=None, openapi_url=None)
    answers.install(app)
    store.devices.completed = AgentEnvironment(store, world, settings).completed
    closing = closing or Closing()
    app.state.leading = Leading(store, world)
    app.state.recurring = _recurring(store, world, app.state.leading)
    logs = app.state.logs = DeviceLogs(settings.data_dir, world, LogBounds.of(settings))
    routes: list[BaseRoute] = [
        *DeviceApi(store, world, settings).routes(),
        *NodeTokenApi(store, settings).routes(),
        *SupervisorApi(store, world, settings).routes(),
        *LogStreamApi(store, logs, world, settings, closing).routes(),
        *RegistryTokens(store, world, settings).routes(),
        *host.routes(),
        Route("/healthz", _health(store), methods=["GET"]),
    ]
    if settings.page:
        live = Live(world, closing)
        page = Page(store, world, settings, live)
        routes += page.routes()
        routes += LogsPage(store, logs, world, settings, live, page.pages).routes()
    app.router.routes[:] = routes  # nothing that FastAPI brings by itself
    app.router.redirect_slashes = False  # an address is what it is
    app.add_middleware(SafeHeaders)
    return app


def _recurring(store: Store, world: World, leading: Leading) -> Recurring:
    """What this process does again and again."""
    recurring = Recurring(world)
    recurring.add("rollouts", EVERY_S, leading.tick, at_end=leading.leave)
    recurring.add("presence", PRESENCE_EVERY_S, store.save_presence_if_due)
    return recurring


def _health(store: Store) -> Callable[[Request], Awaitable[Response]]:
    async def health(_request: Request) -> Response:
        if store.broken:
            raise Refused("busy", "The database failed.")
        await store.version()
        return PlainTextResponse("OK")

    return health
