"""Handing in a report until it is taken: the wait after each refusal, and what the host's journal says of it.

Rules:
- 15 s after the first failure, twice as long after each further one, at most the poll interval (code: the doubling).
- Oddity (README 6): `Retry-After: 5` is taken for 5 milliseconds, whatever the status.

Source: `backend/backend-error-behaviour.json`, `backend/updates.json` rows 129-203.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from simulators.supervisor.sources import Reported, SourceUnavailableError

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor


async def hand_in(
    supervisor: Supervisor, name: str, attempt: Callable[[], Awaitable[Reported | None]]
) -> bool:
    """Attempt it until it is taken, or there is nothing to hand in; returns whether it was taken."""
    failures = 0
    while True:
        try:
            answer = await attempt()
        except SourceUnavailableError:
            answer = Reported(0)
        if answer is None or answer.taken:
            return answer is not None
        pause_s = _pause_s(supervisor, answer, failures)
        failures += 1
        if answer.status:
            supervisor.host_journal.supervisor(
                f"[error]   {name} report failure! Status code: {answer.status}"
                f" - message: {answer.refusal}"
            )
        supervisor.host_journal.supervisor(
            f"[info]    Retrying {name.lower()} report in {pause_s:g} seconds"
        )
        await supervisor.engine.spend(pause_s)


def _pause_s(supervisor: Supervisor, answer: Reported, failures: int) -> float:
    seconds = re.match(r"\d+", answer.retry_after or "")
    if seconds is not None:
        return int(seconds.group()) / 1000
    first_s = supervisor.setup.timings.report_retry_s
    return min(first_s * 2.0 ** min(failures, 20), supervisor.settings.poll_interval_s)
