"""`POST /v2/journal-logs`: the host's journal, piped. From documentation, not recorded (see `host_journal.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from simulators.supervisor.express import Answer, body_of, cannot, send_text
from simulators.supervisor.host_journal import Manner

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

SLOW_S: Final = 60.0
EVERY_S: Final = 0.05
"""From one piece of an endless answer to the next."""


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@dataclass(frozen=True, slots=True)
class Piped(Answer):
    """An answer that comes piece by piece, without content type and length."""

    pieces: Callable[[], AsyncIterator[bytes]] = _nothing

    def to(self, request: Request) -> Response:  # noqa: ARG002 - nobody has it already
        response = StreamingResponse(self.pieces(), status_code=self.status)
        del response.headers["content-type"]
        return response


async def _journal_logs(supervisor: Supervisor, request: Request) -> Answer:
    body = await body_of(request)
    match supervisor.host_journal.manner:
        case Manner.ABSENT:
            return cannot("POST", "/v2/journal-logs")
        case Manner.REFUSED:
            return send_text("Unauthorized", 401)
        case Manner.SLOW:
            await supervisor.world.sleep(SLOW_S)
        case Manner.GARBAGE:
            return Answer(200, supervisor.world.random_bytes(4096) + bytes(4096))
        case Manner.ENDLESS:
            return Piped(200, pieces=lambda: _for_ever(supervisor, body))
        case Manner.WELL:
            pass
    return Answer(200, _printed(supervisor, body))


def _printed(supervisor: Supervisor, body: dict[str, Any]) -> bytes:
    count = body.get("count")
    lines = supervisor.host_journal.read(
        unit=body.get("unit"), count=count if isinstance(count, int) and count > 0 else None
    )
    return "".join(f"{line}\n" for line in lines).encode()


async def _for_ever(supervisor: Supervisor, body: dict[str, Any]) -> AsyncIterator[bytes]:
    while True:
        yield _printed(supervisor, body)
        await supervisor.world.sleep(EVERY_S)


def journal_routes() -> dict[tuple[str, str], Callable[[Supervisor, Request], Awaitable[Answer]]]:
    return {("POST", "/v2/journal-logs"): _journal_logs}
