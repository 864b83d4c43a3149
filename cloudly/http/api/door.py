"""The door of the admin API: every route names a permission, and who asks has it or gets no further.

Rules:
- Who asks, and what for, is settled before the body is read; a stranger's body is never read.
- A route without a permission cannot be made, so the one check here is all that there is.
- An answer to GET carries an ETag of its bytes; who has it already is told so, without them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cloudly.access import Permission, may
from cloudly.http.api.call import Desk
from cloudly.http.body import read_body
from cloudly.problems import Refused, StoreUnavailable
from cloudly.store import api_tokens
from cloudly.store.api_tokens import Caller
from cloudly.tokens import bearer
from interfaces.problem import Problem
from interfaces.world import now_ms

log = logging.getLogger("cloudly")

MAX_BODY = 300 * 1024
"""A compose file may have 256 KiB."""
PERMISSION = "x-permission"
UNCACHED = {"cache-control": "no-store"}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "The body is not what its headers say, or ended early.",
        401: "No API token, or one that admits nobody.",
        403: "The role of the API token does not allow it.",
        404: "There is no such thing.",
        408: "The body was not whole in time.",
        409: "It cannot be done as things are; nothing was changed.",
        413: "The body is too large.",
        415: "The body is encoded in a way that is not read.",
        422: "The request cannot be understood.",
        503: "The database cannot take it now; ask again later.",
    }.items()
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """A route that lets in who has its permission."""

    @property
    def permission(self) -> Permission:
        return Permission((self.openapi_extra or {})[PERMISSION])

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()
        permission, reads_body = self.permission, self.body_field is not None

        async def guarded(request: Request) -> Response:
            desk: Desk = request.app.state.desk
            caller = request.state.caller = await authenticated(desk, request)
            if not may(caller.role, permission):
                raise Refused(
                    "not-allowed", f"It needs {permission}, which the role {caller.role} has not."
                )
            if reads_body:
                limit_s = desk.settings.body_deadline_s
                body = await read_body(request, limit=MAX_BODY, deadline_s=limit_s)
                request = _Read(request, body)
            response = await answer(request)
            if request.method == "GET":
                return _tagged(request, response)
            _told(request, caller, response.status_code)
            response.headers.update(UNCACHED)
            return response

        return guarded


class Resource(APIRouter):
    """The routes of one resource: `@fleets.on("GET", "/fleets", needs=Permission.FLEETS_READ)`."""

    def __init__(self, tag: str) -> None:
        super().__init__(
            tags=[tag],
            route_class=Guarded,
            redirect_slashes=False,
            generate_unique_id_function=lambda route: route.name,
        )

    def on(
        self,
        method: str,
        path: str,
        *,
        needs: Permission,
        status: int = 200,
        described: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self.api_route(
            path,
            methods=[method],
            status_code=status,
            responses=REFUSALS | (described or {}),
            openapi_extra={PERMISSION: needs.value},
            **options,
        )


async def authenticated(desk: Desk, request: Request) -> Caller:
    """Who asks. Raises Refused."""
    token = bearer(request.headers.get("authorization"))
    if token is None:
        raise Refused("api-token-unknown", "Say Authorization: Bearer and an API token.")
    now = now_ms(desk.world)
    caller = await desk.store.read(lambda db: api_tokens.authenticate(db, token, now))
    if api_tokens.is_first_today(caller, now):
        try:
            await desk.store.write(lambda db: api_tokens.used(db, caller.number, now))
        except StoreUnavailable as problem:  # a full disk must not keep anybody from looking
            log.warning("the use of an API token was not noted", extra={"values": {"why": problem}})
    return caller


class _Read(Request):
    """A request whose body was read, within its bounds."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body


def _tagged(request: Request, response: Response) -> Response:
    if isinstance(response, StreamingResponse):
        response.headers.update(UNCACHED)
        return response
    tag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "authorization"}
    known = [
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    ]
    if response.status_code == 200 and (tag in known or "*" in known):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response


def _told(request: Request, caller: Caller, status: int) -> None:
    """A line per order: whose, and which; not what was in it."""
    route: Guarded = request.scope["route"]
    values = {
        "actor": caller.actor,
        "order": f"{request.method} {route.path}",
        "status": status,
    }
    log.info("API order", extra={"values": values})
