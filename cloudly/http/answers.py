"""Answers: models as JSON, refusals as RFC 9457 problems that hold nothing of what was sent."""

from __future__ import annotations

import logging

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cloudly.problems import Refused, StoreUnavailable
from interfaces.problem import PROBLEM_MEDIA_TYPE, Problem

log = logging.getLogger("cloudly")

BUSY_RETRY_S = 5.0
NO_STORE = {"cache-control": "no-store"}


def json_answer(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, NO_STORE, "application/json")


def problem_answer(problem: Problem) -> Response:
    headers = dict(NO_STORE)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(int(problem.retry_after_s))
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, headers, PROBLEM_MEDIA_TYPE)


def install(app: Starlette) -> None:
    """Every way a request can fail gets the same shape."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - registered for it
    log.debug(
        "refused", extra={"values": {"code": error.problem.code, "detail": error.problem.detail}}
    )
    return problem_answer(error.problem)


async def _unavailable(_request: Request, error: Exception) -> Response:
    log.error("store unavailable", extra={"values": {"why": str(error)}})
    return problem_answer(Refused("busy", retry_after_s=BUSY_RETRY_S).problem)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == 405:
        return problem_answer(Refused("not-found", "Not with this method.", status=405).problem)
    if error.status_code == 404:
        return problem_answer(Refused("not-found").problem)
    return problem_answer(Refused("malformed", status=error.status_code).problem)


async def _gone(_request: Request, _error: Exception) -> Response:
    return problem_answer(Refused("malformed", "The body ended early.", status=400).problem)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return problem_answer(Refused("internal").problem)
