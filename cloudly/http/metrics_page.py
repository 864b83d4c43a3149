"""`/metrics`: for Prometheus, on this machine, or with a token from anywhere.

Rules:
- Without a token only this machine may read it, by address and by name, and nobody whom a proxy speaks for: a proxy on
  this machine would open it to everyone.
- With a token the file is read at each scrape, so that it can be changed; one that cannot be read lets nobody in.
"""

from __future__ import annotations

import hmac
import logging
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudly.http.page import host_of
from cloudly.metrics.metrics import Metrics
from cloudly.problems import BadSettings, Refused
from cloudly.settings import Settings, is_loopback
from cloudly.tokens import bearer, fingerprint

log = logging.getLogger("cloudly")

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
SHORTEST = 16
LONGEST = 256


class MetricsPage:
    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self._metrics = metrics
        self._token_file = settings.metrics_token_file
        if self._token_file is not None:
            read_token(self._token_file)  # a mistake is told at the start

    def routes(self) -> list[Route]:
        return [Route("/metrics", self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        if self._token_file is None:
            _only_here(request)
        else:
            _only_with_token(request, self._token_file)
        body, media_type = await self._metrics.page(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media_type, "cache-control": "no-store"})


def read_token(file: Path) -> str:
    """What is in the file. Raises BadSettings, which does not say it."""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not plain text"
        raise BadSettings(f"CLOUDLY_METRICS_TOKEN_FILE: {file} cannot be read: {why}") from None
    if not SHORTEST <= len(token) <= LONGEST or len(token.split()) != 1:
        raise BadSettings(
            f"CLOUDLY_METRICS_TOKEN_FILE: in {file} must be one word of {SHORTEST} to {LONGEST} letters,"
            " for example from `openssl rand -hex 32`"
        )
    return token


def _only_here(request: Request) -> None:
    """Raises Refused."""
    peer = request.client.host if request.client is not None else ""
    here = is_loopback(peer) and is_loopback(host_of(request.headers.get("host", "")))
    if not here or any(name in request.headers for name in FORWARDED):
        raise Refused(
            "not-found",
            "The metrics are for this machine only, unless CLOUDLY_METRICS_TOKEN_FILE names a token.",
            status=403,
        )


def _only_with_token(request: Request, file: Path) -> None:
    """Raises Refused."""
    presented = bearer(request.headers.get("authorization")) or ""
    try:
        token = read_token(file)
    except BadSettings as problem:
        log.error("%s", problem)  # noqa: TRY400 - one line says it
        raise Refused("busy", "The token of the metrics cannot be read.") from None
    if not hmac.compare_digest(fingerprint(presented), fingerprint(token)):
        raise Refused("token-unknown", "It is not the token of the metrics.")
