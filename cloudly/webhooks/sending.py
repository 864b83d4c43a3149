"""One attempt to tell a receiver: within bounds of time and size, whatever it does.

Rules:
- Success is a status from 200 to 299, and nothing else; redirects are not followed.
- What a receiver answers is of no interest: so much of it is read that the connection can be used again, as it came
  and never unpacked; then it is closed.
- A problem is told without the URL and without what was answered: both may hold secrets, or terminal escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import anyio
import httpx

from cloudly.logs import redact
from cloudly.webhooks.secrets_file import Kept
from cloudly.webhooks.signing import Event, headers

TIMEOUT_S = 15.0
"""From the connection to the status. Standard Webhooks: 15 to 30 s."""
CONNECT_S = 5.0
ANSWER_BYTES = 16 * 1024
ANSWER_S = 1.0
GONE = 410
ASKS_FOR_TIME = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    status: int | None
    """None: there was no answer."""
    problem: str = ""
    """Empty: it was taken."""
    again_in_s: float | None = None
    """The receiver asked for so much time."""

    @property
    def is_taken(self) -> bool:
        return not self.problem

    @property
    def is_gone(self) -> bool:
        return self.status == GONE


async def send(
    transport: httpx.AsyncBaseTransport, url: str, kept: Kept, event: Event, at_s: int
) -> Outcome:
    """Never raises for what a receiver or the way there does."""
    request = httpx.Request(
        "POST",
        url,
        headers=headers(kept.secrets_at(at_s * 1000), event, at_s),
        content=event.body,
        extensions={
            "timeout": {"connect": CONNECT_S, "read": TIMEOUT_S, "write": TIMEOUT_S, "pool": TIMEOUT_S}
        },
    )  # fmt: skip
    response = None
    try:
        with anyio.fail_after(TIMEOUT_S):
            response = await transport.handle_async_request(request)
        return await _outcome(response)
    except (TimeoutError, httpx.TimeoutException):
        return Outcome(None, f"no answer within {TIMEOUT_S:g} s")
    except (httpx.HTTPError, OSError, ValueError) as problem:
        return Outcome(None, words_of(problem))
    finally:
        if response is not None:
            with anyio.move_on_after(ANSWER_S, shield=True):
                await response.aclose()


async def _outcome(response: httpx.Response) -> Outcome:
    with anyio.move_on_after(ANSWER_S):
        await _drain(response)
    status = response.status_code
    if 200 <= status <= 299:
        return Outcome(status)
    return Outcome(status, f"the receiver answered {status}", _asked_s(response))


async def _drain(response: httpx.Response) -> None:
    taken = 0
    try:
        async for chunk in response.aiter_raw():
            taken += len(chunk)
            if taken > ANSWER_BYTES:
                return
    except httpx.HTTPError:
        return  # it said what it thinks of the event; how its answer ends is no matter


def _asked_s(response: httpx.Response) -> float | None:
    asked = response.headers.get("retry-after", "")
    if response.status_code not in ASKS_FOR_TIME or re.fullmatch("[0-9]{1,6}", asked) is None:
        return None
    return float(asked)


def words_of(problem: Exception) -> str:
    """What went wrong on the way, in a line."""
    words = " ".join(redact(str(problem)).split())[:200]
    shown = "".join(one for one in words if one.isprintable())
    return f"{type(problem).__name__}: {shown}" if shown else type(problem).__name__
