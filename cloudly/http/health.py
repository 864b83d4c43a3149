"""`/healthz`: the process lives. `/readyz`: it should be sent requests, and if not, why.

Rules:
- Who restarts asks `/healthz`, who balances asks `/readyz`; a database that is away makes a server not ready, and
  restarting it helps nobody.
- About to stop is not ready, from the signal on; requests that come nevertheless are answered.
- Anyone may ask, so the body says what is wrong in words of ours; the words of exceptions go to the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cloudly.http.live import Closing
from cloudly.http.recurring import STUCK
from cloudly.logs import redact
from cloudly.problems import Refused, StoreUnavailable
from cloudly.store import migrate
from cloudly.store.sql import Connection
from cloudly.store.store import Store

log = logging.getLogger("cloudly")

PATIENCE_S = 2.0
GOOD = "ok"


class Health:
    def __init__(
        self, store: Store, closing: Closing, jobs: Callable[[], Mapping[str, str]]
    ) -> None:
        self._store = store
        self._closing = closing
        self._jobs = jobs
        self._logged = ""

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
        ]

    async def alive(self, _request: Request) -> Response:
        if self._store.broken:
            raise Refused("busy", "The database failed.")
        return PlainTextResponse("OK")

    async def ready(self, _request: Request) -> Response:
        found = {
            "stopping": "the server is about to stop" if self._closing.now else GOOD,
            **await self._database(),
            **{f"job {name}": _of_job(name, problem) for name, problem in self._jobs().items()},
        }
        wrong = {name: what for name, what in found.items() if what != GOOD}
        body = {"ready": not wrong, "problems": wrong, "checks": found}
        return Response(
            json.dumps(body),
            503 if wrong else 200,
            {"cache-control": "no-store"},
            "application/json",
        )

    async def _database(self) -> dict[str, str]:
        if self._store.broken:
            return {"database": "it failed, or is another one than at the start"}
        try:
            with anyio.fail_after(PATIENCE_S):
                revision = await self._store.read(_revision)
        except TimeoutError:
            return {"database": f"it did not answer within {PATIENCE_S:g} s"}
        except StoreUnavailable as problem:
            self._log_once(redact(str(problem)))
            return {"database": "the database does not answer"}
        self._logged = ""
        schema = GOOD if revision == migrate.HEAD else f"it is at {revision}, not at {migrate.HEAD}"
        return {"database": GOOD, "schema": schema}

    def _log_once(self, problem: str) -> None:
        """Anyone may ask as often as he likes: the log does not grow by that."""
        if problem != self._logged:
            log.warning("the database does not answer: %s", problem)
        self._logged = problem


def _of_job(name: str, problem: str) -> str:
    """Who calls the jobs has logged what was raised."""
    return problem if problem == STUCK else f"job {name} failed"


def _revision(db: Connection) -> str | None:
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
