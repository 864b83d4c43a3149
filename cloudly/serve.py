"""`cloudly serve`: the application behind uvicorn, until SIGTERM.

Rules:
- With SQLite one server per data directory, with PostgreSQL several (`slots.py`): locks that die with the process.
- SIGTERM makes it not ready and ends live pages at once; after `CLOUDLY_DRAIN_S` it lets requests finish, and saves
  what was only in memory.
- Recurring jobs run from when the port is open until SIGTERM.
- A database that failed ends the process with 1; whoever started it starts it again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from cloudly import keys
from cloudly.app import create_app
from cloudly.http.live import Closing
from cloudly.http.recurring import Recurring
from cloudly.settings import Settings, check_exposure, check_tls
from cloudly.slots import taken
from cloudly.store.store import Store
from cloudly.tls.serving import ServedTls, described, open_tls
from interfaces.world import RealWorld

log = logging.getLogger("cloudly")

GRACE_S = 8  # compose and balena kill after 10
KEEP_ALIVE_S = (
    75  # longer than the usual heartbeat: a reconnect costs 4..9 heartbeats (server notes §1)
)


class Server(uvicorn.Server):
    """uvicorn's; live pages hear of the signal before it waits for them, and recurring jobs run beside it."""

    def __init__(
        self,
        config: uvicorn.Config,
        closing: Closing,
        tls: ServedTls | None = None,
        recurring: Recurring | None = None,
        drain_s: float = 0.0,
    ) -> None:
        super().__init__(config)
        self.at_end: Callable[[], Awaitable[None]] | None = None
        """Called when the last request has ended, in the loop that they had."""
        self._drain_ticks = round(drain_s * 10)
        self._closing = closing
        self._recurring = recurring
        self._jobs: asyncio.Task[None] | None = None
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._recurring is not None:
            self._jobs = asyncio.create_task(self._recurring.run(), name="recurring")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._jobs is not None:
            self._jobs.cancel()
            with suppress(asyncio.CancelledError):
                await self._jobs
        await super().shutdown(sockets)
        if self.at_end is not None:
            await self.at_end()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; the certificate is looked at once a minute."""
        if self._tls is not None:
            self._tls.look()
        if self._closing.now and self._drain_ticks > 0:
            self._drain_ticks -= 1
            self.should_exit = self.should_exit or self._drain_ticks == 0
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready from now on; a second signal does not wait until who balances has noticed."""
        if self._closing.now or self._drain_ticks == 0:
            self._drain_ticks = 0
            super().handle_exit(sig, frame)
        self._closing.now = True

    def stop(self) -> None:
        self._closing.now = True
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Serve until told to stop; returns the exit code. Raises CloudlyProblem, OSError."""
    check_exposure(settings)
    check_tls(settings)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    world, is_shared = RealWorld(), settings.database is not None
    with taken(settings.data_dir, machine=world.boot_id(), shared=is_shared) as slot:
        store = Store.open(settings.data_dir, world, database_url=settings.database)
        closing = Closing()
        try:
            keys.check(store, keys.of(settings, world))
            tls = open_tls(settings, world)
            if tls is not None:
                log.info("TLS (%s): %s", settings.tls_mode, described(tls.certificate))
            app = create_app(store, world, settings, closing=closing, slot=slot)
            server = Server(
                _config(app, settings, tls), closing, tls, app.state.recurring, settings.drain_s
            )
            server.at_end = store.leave
            store.when_broken(server.stop)
            _run(server)
        finally:
            store.close()
        return 1 if store.broken else 0


def _config(app: ASGIApp, settings: Settings, tls: ServedTls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        lifespan="off",
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
    )


def _run(server: Server) -> None:
    gc.collect()
    gc.freeze()  # with these thresholds a third less CPU per request (server notes §1)
    gc.set_threshold(100_000, 50, 1000)
    # uvicorn raises the signal again when it is done: by then it must not kill us before the store is closed.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    with suppress(KeyboardInterrupt):
        server.run()
