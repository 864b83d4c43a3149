"""The application: `create_app(store, world, settings)`, an ASGI app without lifespan, task or thread.

What is to be done again and again is in `app.state.recurring`; who serves the app runs it beside.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from cloudly import forgetting
from cloudly.balena import host
from cloudly.balena.agent_environment import AgentEnvironment
from cloudly.balena.api import SupervisorApi
from cloudly.balena.log_stream import LogStreamApi
from cloudly.balena.registry import RegistryTokens
from cloudly.forgetting import Forgetting
from cloudly.http import answers
from cloudly.http.api.app import mounted
from cloudly.http.api.call import Desk
from cloudly.http.device import DeviceApi
from cloudly.http.health import Health
from cloudly.http.live import Closing, Live
from cloudly.http.logs_page import LogsPage
from cloudly.http.metrics_page import MetricsPage
from cloudly.http.node_token import NodeTokenApi
from cloudly.http.page import Page
from cloudly.http.recurring import Recurring
from cloudly.http.watched import Watched
from cloudly.leading import EVERY_S, Leading
from cloudly.metrics.metrics import Metrics
from cloudly.servers import BEAT_EVERY_S, Present
from cloudly.settings import Settings
from cloudly.store.device_logs import TIDY_EVERY_S, DeviceLogs
from cloudly.store.log_rows import LogBounds
from cloudly.store.presence import PRESENCE_LOOK_S
from cloudly.store.store import Store
from cloudly.webhooks import deliver
from cloudly.webhooks.deliver import Delivering
from interfaces.world import World


def create_app(
    store: Store,
    world: World,
    settings: Settings,
    *,
    closing: Closing | None = None,
    slot: int = 0,
) -> Starlette:
    """Cloudly as an ASGI app. The caller opened the store and closes it. `slot`: which server of its directory."""
    app = Starlette()
    answers.install(app)
    store.devices.completed = AgentEnvironment(store, world, settings).completed
    closing = closing or Closing()
    leading = app.state.leading = Leading(
        store, world, heartbeat_every_s=settings.heartbeat_every_s
    )
    recurring = app.state.recurring = _recurring(store, world, leading)
    delivering = app.state.delivering = Delivering(store, world, settings)
    recurring.add(deliver.JOB, deliver.EVERY_S, delivering.tick, at_end=delivering.leave)
    letting_go = app.state.forgetting = Forgetting(store, world, settings)
    recurring.add(forgetting.JOB, forgetting.EVERY_S, letting_go.tick, at_end=letting_go.leave)
    logs = DeviceLogs(settings.data_dir, world, LogBounds.of(settings), slot=slot)
    app.state.logs = logs
    recurring.add("log files", TIDY_EVERY_S, logs.tidy)
    if store.is_shared:
        present = Present(store, world, settings.data_dir, slot, logs.bounds.keep_ms)
        recurring.add("server", BEAT_EVERY_S, present.beat, at_end=present.end)
    streams = LogStreamApi(store, logs, world, settings, closing)
    metrics = Metrics(store, world, heartbeat_every_s=settings.heartbeat_every_s)
    metrics.gauge("cloudly_log_streams", "Log streams that are open.", lambda: streams.open)
    routes: list[BaseRoute] = [
        *DeviceApi(store, world, settings).routes(),
        *NodeTokenApi(store, settings).routes(),
        *SupervisorApi(store, world, settings).routes(),
        *streams.routes(),
        *RegistryTokens(store, world, settings).routes(),
        *host.routes(),
        *Health(store, closing, app.state.recurring.problems).routes(),
    ]
    if settings.api:
        routes.append(mounted(Desk(store, world, settings)))
    if settings.metrics:
        routes += MetricsPage(metrics, settings).routes()
    if settings.page:
        live = Live(world, closing)
        metrics.gauge("cloudly_live_pages", "Live pages that are open.", lambda: live.open)
        page = Page(store, world, settings, live)
        routes += page.routes()
        routes += LogsPage(store, logs, world, settings, live, page.pages).routes()
    app.router.routes[:] = routes  # nothing that FastAPI brings by itself
    app.router.redirect_slashes = False  # an address is what it is
    app.add_middleware(Watched, world=world, requests=metrics.requests)
    return app


def _recurring(store: Store, world: World, leading: Leading) -> Recurring:
    """What this process does again and again."""
    recurring = Recurring(world)
    recurring.add("rollouts", EVERY_S, leading.tick, at_end=leading.leave)
    recurring.add("presence", PRESENCE_LOOK_S, store.save_presence_if_due)
    return recurring
