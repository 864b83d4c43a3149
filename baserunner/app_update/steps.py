"""What each state of an app update does: look at the Supervisor, act once, return the one fact that happened.

Source of the sequence: DESIGN section 4, "The app update on a real Supervisor"; it was run on one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from baserunner.app_update.evidence import (
    is_applied,
    is_staged,
    is_untouched,
    is_whole,
    running_images,
    why_not_pulled,
    why_unhealthy,
)
from baserunner.app_update.machine import AppUpdate, deadline_s
from baserunner.drive import Happened, Later, Step, elapsed_s
from baserunner.locks import UpdateLock
from baserunner.neighbours.supervisor import State, Supervisor
from baserunner.problems import NeighbourProblem
from interfaces.desired import AppTarget, DesiredState
from interfaces.world import World
from journal.recall import Stream

Attempt = Stream[AppUpdate]
Outcome = Happened | Later

RETELL_POLLS = 20
"""Told, and idle for so many looks: told again. At the default of 2 s a look this is 40 s, longer than the
Supervisor's longest recorded back-off of 32 s."""
UNSEEN_POLLS, UNSEEN_S = 5, 10.0
"""Health that nobody looked at for so many looks, and for so long, was not seen: the soak begins again."""
SILENT = "the Supervisor does not answer"
MAX_CRASHES = 5
"""So many times found not running after it ran, within one soak: unhealthy, without waiting for the deadline."""


class AppUpdateSteps:
    """The steps of one run of the agent; what is remembered here may be forgotten by a restart."""

    def __init__(  # noqa: PLR0913 - its neighbours, each once
        self,
        *,
        supervisor: Supervisor | None,
        lock: UpdateLock,
        world: World,
        desired: Callable[[], DesiredState | None],
        why_not: Callable[[], str],
        held_up: Callable[[], str],
        progressed: Callable[[str, int], None],
        poll_s: float,
        found: Attempt | None,
    ) -> None:
        """`found`: the attempt that an earlier run left open. `held_up`: which update locks of neighbours are held."""
        self._found = (found.name, found.facts) if found is not None else ("", 0)
        self._supervisor = supervisor
        self._lock = lock
        self._world = world
        self._desired = desired
        self._why_not = why_not
        self._held_up = held_up
        self._progressed = progressed
        self._poll_s = poll_s
        self._run_started = world.monotonic()
        self._told: dict[tuple[str, int], float] = {}
        self._healthy_since: float | None = None
        self._healthy_seen = 0.0
        self._crashes = 0
        self._soak_of = ""

    @property
    def steps(self) -> Mapping[str, Step[AppUpdate]]:
        return {
            "offered": self.offered,
            "admitted": self.admitted,
            "downloading": self.downloading,
            "staged": self.staged,
            "applying": self.applying,
            "unclear": self.unclear,
            "verifying": self.verifying,
            "rollback-needed": self.rollback_needed,
            "rolling-back": self.rolling_back,
        }

    async def offered(self, attempt: Attempt) -> Outcome:
        if self._superseded(attempt):
            return self._give_way(attempt)
        if why_not := self._why_not():
            return Later(60.0, why_not)
        if self._supervisor is None:
            return Later(
                60.0, "no Supervisor: BALENA_SUPERVISOR_ADDRESS and BALENA_SUPERVISOR_API_KEY"
            )
        state = await self._supervisor.state()
        return self._happened(
            attempt, "admitted", running=state.release, images=running_images(state)
        )

    async def admitted(self, attempt: Attempt) -> Outcome:
        if self._superseded(attempt):
            return self._give_way(attempt)
        self._lock.take()
        return self._happened(attempt, "download-requested")

    async def downloading(self, attempt: Attempt) -> Outcome:
        state = await self._look_if_there(attempt)
        if state is None:
            return self._happened(attempt, "download-failed", reason=SILENT)
        if found := self._what_came(attempt, state):
            return found
        if self._superseded(attempt):
            return self._give_way(attempt)
        if self._overdue(attempt):
            return self._happened(
                attempt, "download-failed", reason=await self._why_not_downloaded()
            )
        under_way = not state.applied
        if self._should_tell(attempt, idle=not under_way, may_have=under_way):
            self._lock.take()
            await self._tell()
        self._note_progress(attempt, state)
        return Later(self._poll_s)

    def _what_came(self, attempt: Attempt, state: State) -> Happened | None:
        """How the download has ended; None: it has not."""
        target = attempt.believed.target
        if is_applied(state, target):
            return self._happened(attempt, "found-applied")
        if never := why_not_pulled(state, target):
            return self._happened(attempt, "download-failed", reason=never)
        if is_staged(state, target):
            return self._happened(attempt, "staged")
        return None

    async def staged(self, attempt: Attempt) -> Outcome:
        state = await self._look()
        if is_applied(state, attempt.believed.target):
            return self._happened(attempt, "found-applied")
        if self._superseded(attempt):
            return self._give_way(attempt)
        if not is_staged(state, attempt.believed.target):
            return self._happened(attempt, "staging-lost", reason="an image is no longer there")
        if why_not := self._why_not():
            return Later(60.0, why_not)
        if self._lock.exists() and not self._lock.is_ours():
            return Later(self._poll_s, "someone else holds the update lock in our lock directory")
        return self._happened(attempt, "apply-requested", unless=self._held_up)

    async def applying(self, attempt: Attempt) -> Outcome:
        believed = attempt.believed
        state = await self._look_if_there(attempt)
        if state is not None and is_applied(state, believed.target):
            return self._happened(attempt, "applied")
        untouched = state is not None and is_untouched(state, believed.previous)
        if untouched and self._superseded(attempt):
            self._lock.take()
            return self._give_way(attempt)
        if self._overdue(attempt):
            return self._apply_overdue(attempt, untouched=untouched)
        # Our lock is gone: an earlier run may have told the Supervisor.
        if self._should_tell(attempt, idle=untouched, may_have=not self._lock.exists()):
            self._lock.release()
            await self._tell(cancel=True, force=believed.forced)
        return Later(self._poll_s)

    def _apply_overdue(self, attempt: Attempt, *, untouched: bool) -> Outcome:
        believed = attempt.believed
        if not untouched:
            return self._happened(
                attempt,
                "apply-unclear",
                reason="neither the new nor the old release is reported as a whole",
            )
        if believed.apply_attempts < believed.policy.max_apply_attempts:
            return self._happened(
                attempt, "apply-retried", reason="the old release still runs: nothing was applied"
            )
        return self._happened(
            attempt, "apply-failed", reason=f"not applied after {believed.apply_attempts} attempts"
        )

    async def unclear(self, attempt: Attempt) -> Outcome:
        state = await self._look_if_there(attempt)
        if state is not None and is_applied(state, attempt.believed.target):
            return self._happened(attempt, "applied")
        if state is not None and is_whole(state, attempt.believed.previous):
            return self._happened(
                attempt, "apply-failed", reason="the old release runs again as a whole"
            )
        if self._superseded(attempt):
            return self._give_way(attempt)
        if self._overdue(attempt):
            return self._happened(
                attempt, "apply-failed", reason="still unclear after the time given"
            )
        return Later(self._poll_s)

    async def verifying(self, attempt: Attempt) -> Outcome:
        self._lock.take()
        if self._soak_of != attempt.name:
            self._soak_of, self._healthy_since, self._crashes = attempt.name, None, 0
        policy = attempt.believed.policy
        state = await self._look_if_there(attempt)
        fault = SILENT if state is None else why_unhealthy(state, attempt.believed.target)
        if (
            state is not None
            and state.release != attempt.believed.target.commit
            and self._superseded(attempt)
        ):
            return self._give_way(attempt)
        if self._healthy_for_s(fault) >= policy.health_soak_s:
            return self._happened(attempt, "health-passed", soak_s=policy.health_soak_s)
        if self._crashes >= MAX_CRASHES:
            return self._happened(
                attempt, "health-failed", reason=f"{fault} (stopped {self._crashes} times)"
            )
        if self._overdue(attempt):
            return self._happened(
                attempt, "health-failed", reason=fault or "the soak was never passed"
            )
        return Later(self._poll_s, fault)

    def _healthy_for_s(self, fault: str) -> float:
        """For how long this and every look before it found all services running; -1 when this one did not."""
        now = self._world.monotonic()
        if fault:
            self._crashes += self._healthy_since is not None
            self._healthy_since = None
            return -1.0
        unseen_s = max(UNSEEN_POLLS * self._poll_s, UNSEEN_S)
        if self._healthy_since is None or now - self._healthy_seen > unseen_s:
            self._healthy_since = now
        self._healthy_seen = now
        return now - self._healthy_since

    async def rollback_needed(self, attempt: Attempt) -> Outcome:
        wanted = self._wanted()
        if wanted is None or wanted.deployment == attempt.believed.deployment:
            return Later(30.0, "Cloudly has not turned the target back yet")
        if wanted.rollback_of != attempt.believed.deployment:
            return self._give_way(attempt)
        return self._happened(
            attempt,
            "rollback-requested",
            unless=self._held_up,  # it would stop what runs, too
            rollback_deployment=wanted.deployment,
            **release_data(wanted),
        )

    async def rolling_back(self, attempt: Attempt) -> Outcome:
        good = attempt.believed.rollback
        state = await self._look_if_there(attempt)
        if state is not None and is_applied(state, good) and not why_unhealthy(state, good):
            self._lock.take()
            return self._happened(attempt, "rolled-back", release=good.commit)
        if self._overdue(attempt):
            return self._happened(
                attempt,
                "rollback-failed",
                reason=f"release {good.commit} was not reported as applied in time",
            )
        # Not only when it is idle: with the release that failed it may try for ever, and sit out ever longer back-offs.
        if self._should_tell(attempt, idle=state is not None, may_have=not self._lock.exists()):
            self._lock.release()
            await self._tell(cancel=True)
        return Later(self._poll_s)

    async def _look(self) -> State:
        assert self._supervisor is not None  # noqa: S101 - never admitted without one
        return await self._supervisor.state()

    async def _look_if_there(self, attempt: Attempt) -> State | None:
        """What the Supervisor says; None when it says nothing, once that has lasted too long to wait for."""
        try:
            return await self._look()
        except NeighbourProblem:
            if self._overdue(attempt):
                return None
            raise

    def _overdue(self, attempt: Attempt) -> bool:
        """Whether this run has seen the state last longer than it may."""
        limit_s = deadline_s(attempt.state, attempt.believed)
        return limit_s is not None and elapsed_s(attempt, self._world, self._run_started) >= limit_s

    def _should_tell(self, attempt: Attempt, *, idle: bool, may_have: bool) -> bool:
        """Whether the Supervisor is to be told now: once per fact, and again only if it has been idle for long.

        `may_have`: it looks as if an earlier run had told it; then it is given the time to act on that first. A tell
        that failed counts: it may have been heard.
        """
        now = self._world.monotonic()
        key = (attempt.name, attempt.facts)
        if key not in self._told:
            self._told = {key: now}
            return not may_have or self._is_of_this_run(attempt)
        if idle and now - self._told[key] >= RETELL_POLLS * self._poll_s:
            self._told[key] = now
            return True
        return False

    async def _tell(self, *, force: bool = False, cancel: bool = False) -> None:
        assert self._supervisor is not None  # noqa: S101 - never admitted without one
        await self._supervisor.update(force=force, cancel=cancel)

    def _is_of_this_run(self, attempt: Attempt) -> bool:
        """Whether the newest fact is our own, so that no earlier run can have acted on it."""
        return (attempt.name, attempt.facts) != self._found

    async def _why_not_downloaded(self) -> str:
        assert self._supervisor is not None  # noqa: S101 - never admitted without one
        device = await self._supervisor.device()
        if device.update_failed:
            return "the Supervisor reports update_failed while images are missing"
        return "the images were not all downloaded in time"

    def _note_progress(self, attempt: Attempt, state: State) -> None:
        percent = state.progress_percent
        if percent is not None and math.isfinite(percent):
            self._progressed(attempt.name, min(max(round(percent), 0), 100))

    def _wanted(self) -> AppTarget | None:
        desired = self._desired()
        return None if desired is None else desired.app

    def _superseded(self, attempt: Attempt) -> bool:
        desired = self._desired()
        if desired is None:
            return False
        return desired.app is None or desired.app.deployment != attempt.believed.deployment

    def _give_way(self, attempt: Attempt) -> Happened:
        wanted = self._wanted()
        by = "nothing: the target was withdrawn" if wanted is None else wanted.deployment
        return self._happened(attempt, "superseded", by=by, reason=f"superseded by {by}")

    def _happened(
        self, attempt: Attempt, kind: str, *, unless: Callable[[], str] = lambda: "", **data: object
    ) -> Happened:
        return Happened(kind, {"deployment": attempt.believed.deployment, **data}, unless=unless)


def offer(target: AppTarget, generation: int) -> dict[str, object]:
    """The data of the fact `offered`."""
    return {
        "deployment": target.deployment,
        "generation": generation,
        **release_data(target),
        "policy": target.policy.model_dump(),
    }


def release_data(target: AppTarget) -> dict[str, object]:
    """A release as facts carry it."""
    return {
        "release": target.release,
        "version": target.version,
        "images": [[image.service, image.image] for image in target.images],
    }
