"""The keeper of leases: wakes when the first one ends, and sees that the lock's files are there meanwhile."""

from __future__ import annotations

from baserunner.drive import LEAST_WAIT_S, Alarm
from baserunner.locks.leases import Leases

LOOK_EVERY_S = 10.0
"""While one is held: who forces an update deletes our files, and the loop's timers do not run in a suspended host."""
REST_S = 3600.0
"""While none is: a new one wakes us."""


async def keep(leases: Leases, alarm: Alarm) -> None:
    """Raises JournalProblem when an end cannot be written."""
    while True:
        leases.expire()
        leases.settle()
        end_s = leases.next_end_s()
        await alarm.wait(REST_S if end_s is None else max(LEAST_WAIT_S, min(end_s, LOOK_EVERY_S)))
