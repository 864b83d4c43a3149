"""One connection is one request: uvicorn's HTTP/1.1 in pure Python (h11), with an end to how long it may take.

Every answer ends the connection, so that what a peer may ask is counted where it is taken in, before a byte is parsed.
Source of the hooks: uvicorn.protocols.http.h11_impl.H11Protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from baserunner.local_api.answers import Refusal, refused_raw

DEADLINE_S = 5.0
"""From the first moment to the last byte of the answer: a request has 16 KiB at most, on the same device."""
MOST_HEADER_BYTES = 8 * 1024
ALWAYS = [(b"connection", b"close"), (b"cache-control", b"no-store")]


class Http:
    """What all connections share."""

    def __init__(self, app: ASGIApp) -> None:
        self.config = Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
            timeout_keep_alive=0,
        )
        self.config.load()
        self.state = ServerState()
        self.state.default_headers = list(ALWAYS)
        # It would say once for each that somebody spoke no HTTP; its own faults are told.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

    @property
    def open(self) -> int:
        return len(self.state.connections)

    def abort(self) -> None:
        """End all of them at once."""
        for connection in list(self.state.connections):
            connection.transport.abort()


class OneRequest(H11Protocol):
    """`uid`: the peer's; None: it came over loopback. `ended`: called when the connection is over."""

    def __init__(self, http: Http, uid: int | None, ended: Callable[[], None]) -> None:
        super().__init__(http.config, http.state, {"uid": uid})
        self._ended = ended
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream's
        super().connection_made(transport)
        self._deadline = self.loop.call_later(DEADLINE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
        self._ended()

    def _should_upgrade(self) -> bool:
        """Never, and without a word in the log."""
        return False

    def send_400_response(self, msg: str) -> None:
        """In its own words it would be text; here every refusal is a problem."""
        del msg
        self.transport.write(refused_raw(Refusal(400, "malformed", "This is no HTTP request.")))
        self.transport.close()


def connection(http: Http, uid: int | None, ended: Callable[[], None]) -> Callable[[], Any]:
    """Makes one, for the event loop."""
    return lambda: OneRequest(http, uid, ended)
