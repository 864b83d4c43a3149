"""What it costs a request to be counted, to have an id and to get its headers: 5 us at most (issue 5, point 4).

A null application with a heartbeat's headers, with and without `Watched`, interleaved; the quietest round of each, as
what a busy machine adds is not the request's.
`python -m benchmarks.watched`
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloudly.http.watched import Watched
from cloudly.metrics.requests import Requests
from interfaces.world import RealWorld

ROUNDS = 21
REQUESTS = 20_000
GOAL_US = 5.0
HEADERS = [
    (name.encode(), b"x" * 20)
    for name in ("host", "accept", "accept-encoding", "connection", "user-agent", "authorization",
                 "content-type", "content-length", "content-encoding")
]  # fmt: skip


class Routes:
    routes = (Route("/baseos/v1/nodes/heartbeat", lambda _request: None, methods=["POST"]),)


async def null(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["router"] = Routes
    scope["endpoint"] = Routes.routes[0].endpoint
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def receive() -> Message:
    return {"type": "http.request"}


async def send(_message: Message) -> None:
    pass


async def took_us(app: ASGIApp) -> float:
    began = time.process_time()
    for _ in range(REQUESTS):
        scope: dict[str, Any] = {"type": "http", "headers": HEADERS}
        await app(scope, receive, send)
    return (time.process_time() - began) / REQUESTS * 1e6


async def main() -> float:
    requests = Requests()
    watched = Watched(null, RealWorld(), requests)
    await took_us(watched)
    rounds = [(await took_us(null), await took_us(watched)) for _ in range(ROUNDS)]
    counted = next(iter(requests.collect())).samples[0].value
    assert counted == (ROUNDS + 1) * REQUESTS
    found = min(with_it for _, with_it in rounds) - min(without for without, _ in rounds)
    usual = statistics.median(with_it - without for without, with_it in rounds)
    print(f"a watched request costs {found:.2f} us more (median of {ROUNDS} rounds: {usual:.2f})")
    return found


if __name__ == "__main__":
    raise SystemExit(0 if asyncio.run(main()) <= GOAL_US else 1)
