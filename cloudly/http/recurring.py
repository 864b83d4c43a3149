"""Recurring jobs of a serving process: each is called again and again, beside the requests.

Rules:
- A job waits `every_s` after each call, so a slow one never overlaps itself; it holds up no other job.
- An exception in a job is logged at its first failure in a row and counted; the job goes on. `problems` says which
  jobs fail, or have not come back for long: what readiness asks.
- Several processes serve one database: a job that only one of them may do asks for a lease itself (`cloudly.leading`).
- At the end jobs are cancelled where they wait, then each one's `at_end` is called: to save, to give a lease back.

Nothing here needs a thread or a lifespan: `cloudly serve` runs it as a task, a story calls `once`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from interfaces.world import World

log = logging.getLogger("cloudly")

STUCK_S = 60.0
"""A call that takes longer is told of; PostgreSQL's own statement timeout ends one that waits for it."""
STUCK = f"it has not come back for more than {STUCK_S:.0f} s"
END_S = 3.0
"""For each `at_end`: whoever stops us kills after ten seconds."""

Work = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Job:
    """One job, and how it fares."""

    name: str
    every_s: float
    work: Work
    at_end: Work | None = None
    calls: int = 0
    failures: int = 0
    """In a row."""
    problem: str = ""
    """Of the last call; empty: it came back."""
    began_s: float | None = None
    """By the monotonic clock; None: it is waiting for its next call."""


class Recurring:
    def __init__(self, world: World) -> None:
        self._world = world
        self.jobs: list[Job] = []

    def add(self, name: str, every_s: float, work: Work, *, at_end: Work | None = None) -> None:
        """Before `run`. The first call is at once."""
        if any(job.name == name for job in self.jobs):
            raise ValueError(f"two recurring jobs are named {name!r}")
        self.jobs.append(Job(name, every_s, work, at_end))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                for job in self.jobs:
                    group.start_soon(self._keep_on, job)
        finally:
            with anyio.CancelScope(shield=True):
                await self._end()

    async def once(self, name: str | None = None) -> None:
        """Each job, or the one of that name, once, in their order; for stories. Failures are kept as in `run`."""
        for job in self.jobs:
            if name in {None, job.name}:
                await self._call(job)

    def problems(self) -> dict[str, str]:
        """Job and what is wrong with it; empty: all is well."""
        found = {job.name: job.problem for job in self.jobs if job.problem}
        for job in self.jobs:
            if job.began_s is not None and self._world.monotonic() - job.began_s > STUCK_S:
                found[job.name] = STUCK
        return found

    async def _keep_on(self, job: Job) -> None:
        while True:
            await self._call(job)
            await self._world.sleep(job.every_s)

    async def _call(self, job: Job) -> None:
        job.calls += 1
        job.began_s = self._world.monotonic()
        try:
            await job.work()
        except Exception as problem:
            job.failures += 1
            job.problem = f"{type(problem).__name__}: {problem}"[:500]
            if job.failures == 1:
                log.exception("recurring job failed", extra={"values": {"job": job.name}})
        else:
            if job.failures:
                values = {"job": job.name, "failures": job.failures}
                log.info("recurring job works again", extra={"values": values})
            job.failures, job.problem = 0, ""
        finally:
            job.began_s = None

    async def _end(self) -> None:
        for job in self.jobs:
            if job.at_end is None:
                continue
            try:
                with anyio.fail_after(END_S):
                    await job.at_end()
            except Exception:
                log.exception("recurring job did not end well", extra={"values": {"job": job.name}})
