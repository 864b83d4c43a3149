"""The local API as a Starlette application: the endpoints of the table, and how each of them fails.

Rules:
- What is answered comes from what the agent has at hand: no neighbour is asked while a request waits.
- The journal's trouble is not the request's: who asked is told to try again, and `trouble` is told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from baserunner.local_api.answers import RETRY_AFTER_S, Refusal, answer, refused
from baserunner.local_api.gate import read_body
from baserunner.local_api.table import ENDPOINTS, Endpoint
from baserunner.problems import LeaseRefused
from interfaces.local import Acquire, Handshake, Held, Lock, Locks, Release, Renew, RuntimeStatus
from interfaces.wire import Wire
from journal.problems import JournalProblem

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Wire)
STATUS_OF = {
    "locked-out": 409,
    "busy": 409,
    "conflict": 409,
    "not-found": 404,
    "forbidden": 403,
    "unavailable": 503,
}
"""Of what a lease is refused with."""


class View(Protocol):
    """What the agent says of itself."""

    def handshake(self) -> Handshake: ...
    def status(self) -> RuntimeStatus: ...


class Leases(Protocol):
    """What can be asked of the update locks. Each may raise LeaseRefused."""

    def acquire(self, ask: Acquire) -> Held: ...
    def renew(self, lock: str, ask: Renew) -> Lock: ...
    def release(self, lock: str, ask: Release) -> Lock: ...
    def held(self) -> tuple[Lock, ...]: ...


class Api:
    """`trouble`: told what makes the journal unusable."""

    def __init__(
        self, view: View, leases: Leases, trouble: Callable[[JournalProblem], None]
    ) -> None:
        self._view = view
        self._leases = leases
        self._trouble = trouble

    def app(self) -> Starlette:
        app = Starlette(routes=[self._route(endpoint) for endpoint in ENDPOINTS])
        app.router.redirect_slashes = False  # a path is in the list or it is not
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(LeaseRefused, _lease_refused)
        app.add_exception_handler(JournalProblem, self._journal_problem)
        app.add_exception_handler(HTTPException, _http)
        app.add_exception_handler(ClientDisconnect, _gone)
        return app

    # -- the endpoints: each named as in the table -----------------------------------------------

    async def handshake(self, _request: Request) -> Handshake:
        return self._view.handshake()

    async def status(self, _request: Request) -> RuntimeStatus:
        return self._view.status()

    async def locks(self, _request: Request) -> Locks:
        return Locks(locks=self._leases.held())

    async def acquire(self, request: Request) -> Held:
        return self._leases.acquire(await _asked(request, Acquire))

    async def renew(self, request: Request) -> Lock:
        return self._leases.renew(request.path_params["lock"], await _asked(request, Renew))

    async def release(self, request: Request) -> Lock:
        return self._leases.release(request.path_params["lock"], await _asked(request, Release))

    # -- how they are called, and how they fail --------------------------------------------------

    def _route(self, endpoint: Endpoint) -> Route:
        act: Callable[[Request], Awaitable[Wire]] = getattr(self, endpoint.name)

        async def run(request: Request) -> Response:
            try:
                return answer(await act(request), endpoint.status)
            except (Refusal, LeaseRefused, JournalProblem, ClientDisconnect):
                raise
            except Exception:
                log.exception("the local API failed at %s %s", endpoint.method, endpoint.path)
                return refused(Refusal(500, "internal"))

        route = Route(endpoint.path, run, methods=[endpoint.method], name=endpoint.name)
        route.methods = {endpoint.method}  # Starlette adds HEAD to GET; the list is closed
        return route

    async def _journal_problem(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, JournalProblem)  # noqa: S101 - registered for it
        self._trouble(error)
        return refused(
            Refusal(503, "busy", "The journal cannot be written.", retry_after_s=RETRY_AFTER_S)
        )


async def _asked(request: Request, model: type[T]) -> T:
    body = await read_body(request)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(400, "malformed", _faults(error)) from None


def _faults(error: ValidationError) -> str:
    """Which field, and how; nothing of what was in it."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['type']}" for one in found)


async def _refused(_request: Request, error: Any) -> Response:
    return refused(error)


async def _lease_refused(_request: Request, error: Any) -> Response:
    return refused(Refusal(STATUS_OF[error.code], error.code, error.words))


async def _http(_request: Request, error: Any) -> Response:
    if error.status_code == 405:
        return refused(Refusal(405, "not-found", "Not with this method."))
    return refused(Refusal(error.status_code, "not-found"))


async def _gone(_request: Request, _error: Exception) -> Response:
    return refused(Refusal(400, "malformed", "The body ended early."))
