"""What goes back over the socket: models as JSON, refusals as problems that hold nothing of what was sent."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import BaseModel
from starlette.responses import Response

from interfaces.problem import PROBLEM_MEDIA_TYPE, Problem

RETRY_AFTER_S = 1.0


class Refusal(Exception):
    """A request that is not answered as it hoped."""

    def __init__(
        self, status: int, code: str, detail: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(code)
        self.problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            code=code,
            detail=detail,
            retry_after_s=retry_after_s,
        )


def answer(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def refused(refusal: Refusal) -> Response:
    problem = refusal.problem
    return Response(
        problem.model_dump_json(exclude_none=True),
        problem.status,
        dict(_headers(problem)),
        PROBLEM_MEDIA_TYPE,
    )


def refused_raw(refusal: Refusal) -> bytes:
    """The same for somebody whose request is not even read."""
    problem = refusal.problem
    body = problem.model_dump_json(exclude_none=True).encode()
    headers = [
        ("content-type", PROBLEM_MEDIA_TYPE),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("connection", "close"),
        *_headers(problem),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {problem.status} {problem.title}\r\n{head}\r\n".encode() + body


def _headers(problem: Problem) -> list[tuple[str, str]]:
    found = []
    if problem.status == 401:
        found.append(("www-authenticate", "Bearer"))
    if problem.retry_after_s is not None:
        found.append(("retry-after", f"{problem.retry_after_s:.0f}"))
    return found
