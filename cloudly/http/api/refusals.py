"""Why the API says no, as problems that hold nothing of what was sent.

Rules:
- A body may hold a secret, also in a field's name: only names that the API itself has are repeated.
- What the store refuses is told in its words, but for things that there are not: those words name what was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from cloudly.balena.compose.notes import BadCompose
from cloudly.http import answers
from cloudly.problems import BadOrder, NoSuch, Refused

log = logging.getLogger("cloudly")

MOST_WORDS = 2000


def install(api: FastAPI) -> None:
    answers.install(api)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(BadOrder, _bad_order)


async def _bad_order(_request: Request, error: Exception) -> Response:
    if isinstance(error, NoSuch):
        refused = Refused("not-found", f"There is no such {error.what}.")
    elif isinstance(error, BadCompose):
        refused = Refused("malformed", str(error)[:MOST_WORDS])
    else:
        refused = Refused("conflict", str(error)[:MOST_WORDS])
    return answers.problem_answer(refused.problem)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    first = error.errors()[0]
    where = ".".join(_steps(first["loc"], request.app))
    what = first["msg"].removeprefix("Value error, ")
    return answers.problem_answer(Refused("malformed", f"{where}: {what}").problem)


def _steps(steps: Iterable[object], api: FastAPI) -> Iterable[str]:
    known = _names(api)
    for step in steps:
        is_ours = isinstance(step, int) or str(step) in known
        yield str(step) if is_ours else "a name that is not known here"


def _names(api: FastAPI) -> frozenset[str]:
    """Of all fields and parameters, as the API's own description has them."""
    found: frozenset[str] | None = getattr(api.state, "names", None)
    if found is None:
        described = api.openapi()
        fields = (
            name
            for schema in described["components"]["schemas"].values()
            for name in schema.get("properties", {})
        )
        parameters = (
            parameter["name"]
            for path in described["paths"].values()
            for operation in path.values()
            for parameter in operation.get("parameters", ())
        )
        found = api.state.names = frozenset(
            {"body", "query", "path", "header", *fields, *parameters}
        )
    return found
