"""Cloudly, by its contracts: register, heartbeat, journal, and the announcement of a node token.

Rules:
- Only an answer in our own problem format is a refusal. A bare 401 or 403 may be a proxy's: it counts as no answer.
- `Retry-After` is obeyed, in seconds or as a date, and capped at an hour; garbage is ignored.
- Tokens travel in the Authorization header.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

import httpx
from pydantic import BaseModel, SecretStr

from baserunner.neighbours.bounded import Answer, exchange
from baserunner.problems import Malformed, Refused, Unreachable
from interfaces.enrollment import RegisterAnswer, RegisterRequest
from interfaces.heartbeat import HeartbeatAnswer, HeartbeatRequest
from interfaces.journal import Ack, JournalAnswer, JournalBatch
from interfaces.node_token import NodeTokenAnswer, NodeTokenRequest
from interfaces.problem import PROBLEM_MEDIA_TYPE, Problem
from interfaces.world import World

M = TypeVar("M", bound=BaseModel)
WITHIN_S = 30.0
NOT_NOW = frozenset({408, 425, 429})
"""Too slow, too early, too many: true of this request at this moment, and of nothing else."""
MAX_RETRY_AFTER_S = 3600.0


class OutOfStep(Refused):
    """Cloudly has another end of this lane than we thought (409 gap, fork or fenced). `ack`: what it does have."""

    def __init__(self, text: str, *, code: str, ack: Ack | None) -> None:
        super().__init__(text, code=code, status=409)
        self.ack = ack


class Cloudly(Protocol):
    """What the agent asks of Cloudly. Every call raises NeighbourProblem."""

    async def register(self, request: RegisterRequest, join_token: SecretStr) -> RegisterAnswer: ...
    async def heartbeat(
        self, request: HeartbeatRequest, node_token: SecretStr
    ) -> HeartbeatAnswer: ...
    async def ship(self, batch: JournalBatch, node_token: SecretStr) -> JournalAnswer: ...
    async def announce(
        self, request: NodeTokenRequest, node_token: SecretStr
    ) -> NodeTokenAnswer: ...


class HttpCloudly:
    """The real conversation. The client is kept open: a new TLS connection costs more than a heartbeat."""

    def __init__(self, client: httpx.AsyncClient, url: str, world: World) -> None:
        self._client = client
        self._url = url
        self._world = world

    async def register(self, request: RegisterRequest, join_token: SecretStr) -> RegisterAnswer:
        return await self._post("register", request, join_token, RegisterAnswer)

    async def heartbeat(self, request: HeartbeatRequest, node_token: SecretStr) -> HeartbeatAnswer:
        return await self._post("heartbeat", request, node_token, HeartbeatAnswer)

    async def ship(self, batch: JournalBatch, node_token: SecretStr) -> JournalAnswer:
        return await self._post("journal", batch, node_token, JournalAnswer)

    async def announce(self, request: NodeTokenRequest, node_token: SecretStr) -> NodeTokenAnswer:
        return await self._post("token", request, node_token, NodeTokenAnswer)

    async def _post(self, what: str, body: BaseModel, token: SecretStr, model: type[M]) -> M:
        request = self._client.build_request(
            "POST",
            f"{self._url}/baseos/v1/nodes/{what}",
            content=body.model_dump_json().encode(),
            headers={
                "Authorization": f"Bearer {token.get_secret_value()}",
                "Content-Type": "application/json",
            },
        )
        answer = await exchange(self._client, request, who="Cloudly", within_s=WITHIN_S)
        if answer.status in {200, 201}:
            return answer.read(model)
        raise self._problem(answer, what)

    def _problem(self, answer: Answer, what: str) -> Exception:
        problem = _read_problem(answer)
        text = f"Cloudly answered {answer.status} to {what}"
        if problem is not None:
            text += f": {problem.title}" + (f" ({problem.detail})" if problem.detail else "")
        if answer.status == 413:  # a proxy in between says so in its own words
            return Refused(text, code="too-large", status=413)
        if answer.status in NOT_NOW or answer.status >= 500 or problem is None:
            return Unreachable(
                text, retry_after_s=self._retry_after_s(answer, problem), status=answer.status
            )
        if problem.code in {"gap", "fork", "fenced"}:
            return OutOfStep(text, code=problem.code, ack=problem.ack)
        return Refused(text, code=problem.code, status=answer.status)

    def _retry_after_s(self, answer: Answer, problem: Problem | None) -> float | None:
        seconds = problem.retry_after_s if problem else None
        if answer.retry_after:
            seconds = _seconds_until(answer.retry_after, self._world) or seconds
        return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _read_problem(answer: Answer) -> Problem | None:
    if answer.media_type != PROBLEM_MEDIA_TYPE:
        return None
    try:
        return answer.read(Problem)
    except Malformed:
        return None


def _seconds_until(header: str, world: World) -> float | None:
    """RFC 9110 §10.2.3: delay-seconds or an HTTP date."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - world.now()).total_seconds()
    except (ValueError, OverflowError):
        return None
