"""What each state of an app update does: look at the Supervisor, act once, return the one fact that happened.

Source of the sequence: DESIGN section 4, "The app update on a real Supervisor"; it was run on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from baserunner.app_update.evidence import is_applied, is_staged, is_whole, why_unhealthy
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
        progressed: Callable[[str, int], None],
        poll_s: float,
    ) -> None:
        self._supervisor = supervisor
        self._lock = lock
        self._world = world
        self._desired = desired
        self._progressed = progressed
        self._poll_s = poll_s
        self._run_started = world.monotonic()
        self._told: dict[tuple[str, int], float] = {}
        self._healthy_since: float | None = None
        self._crashes = 0

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
        if self._supervisor is None:
            return Later(
                60.0, "no Supervisor: BALENA_SUPERVISOR_ADDRESS and BALENA_SUPERVISOR_API_KEY"
            )
        state = await self._supervisor.state()
        return self._happened(attempt, "admitted", running=state.release)

    async def admitted(self, attempt: Attempt) -> Outcome:
        if self._superseded(attempt):
            return self._give_way(attempt)
        self._lock.take()
        return self._happened(attempt, "download-requested")

    async def downloading(self, attempt: Attempt) -> Outcome:
        state = await self._look()
        target = attempt.believed.target
        if is_applied(state, target):
            return self._happened(attempt, "found-applied")
        if is_staged(state, target):
            return self._happened(attempt, "staged")
        if self._superseded(attempt):
            return self._give_way(attempt)
        if self._overdue(attempt):
            return self._happened(
                attempt, "download-failed", reason=await self._why_not_downloaded()
            )
        under_way = not state.applied
        if self._should_tell(attempt, idle=not under_way, may_have=under_way):
            self._lock.take()
            await self._tell(attempt)
        self._note_progress(attempt, state)
        return Later(self._poll_s)

    async def staged(self, attempt: Attempt) -> Outcome:
        state = await self._look()
        if is_applied(state, attempt.believed.target):
            return self._happened(attempt, "found-applied")
        if self._superseded(attempt):
            return self._give_way(attempt)
        if not is_staged(state, attempt.believed.target):
            return self._happened(attempt, "staging-lost", reason="an image is no longer there")
        if self._lock.exists() and not self._lock.is_ours():
            return Later(self._poll_s, "someone else holds the update lock in our lock directory")
        return self._happened(attempt, "apply-requested")

    async def applying(self, attempt: Attempt) -> Outcome:
        believed = attempt.believed
        state = await self._look_if_there(attempt)
        if state is not None and is_applied(state, believed.target):
            return self._happened(attempt, "applied")
        old_is_whole = state is not None and is_whole(state, believed.previous)
        if self._overdue(attempt):
            return self._apply_overdue(attempt, old_is_whole=old_is_whole)
        # Ours released already and not in this run: an earlier run may have told the Supervisor.
        if self._should_tell(attempt, idle=old_is_whole, may_have=not self._lock.exists()):
            self._lock.release()
            await self._tell(attempt, cancel=True, force=believed.forced)
        return Later(self._poll_s)

    def _apply_overdue(self, attempt: Attempt, *, old_is_whole: bool) -> Outcome:
        believed = attempt.believed
        if not old_is_whole:
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
        policy = attempt.believed.policy
        state = await self._look_if_there(attempt)
        fault = (
            "the Supervisor does not answer"
            if state is None
            else why_unhealthy(state, attempt.believed.target)
        )
        if (
            state is not None
            and state.release != attempt.believed.target.commit
            and self._superseded(attempt)
        ):
            return self._give_way(attempt)
        now = self._world.monotonic()
        if fault:
            self._crashes += self._healthy_since is not None
            self._healthy_since = None
        elif self._healthy_since is None:
            self._healthy_since = now
        if self._healthy_since is not None and now - self._healthy_since >= policy.health_soak_s:
            return self._leave_verifying(attempt, "health-passed", soak_s=policy.health_soak_s)
        if self._crashes >= MAX_CRASHES:
            return self._leave_verifying(
                attempt, "health-failed", reason=f"{fault} (stopped {self._crashes} times)"
            )
        if self._overdue(attempt):
            return self._leave_verifying(
                attempt, "health-failed", reason=fault or "the soak was never passed"
            )
        return Later(self._poll_s, fault)

    def _leave_verifying(self, attempt: Attempt, kind: str, **data: object) -> Happened:
        self._healthy_since, self._crashes = None, 0
        return self._happened(attempt, kind, **data)

    async def rollback_needed(self, attempt: Attempt) -> Outcome:
        wanted = self._wanted()
        if wanted is None or wanted.deployment == attempt.believed.deployment:
            return Later(30.0, "Cloudly has not turned the target back yet")
        if wanted.rollback_of != attempt.believed.deployment:
            return self._give_way(attempt)
        return self._happened(
            attempt,
            "rollback-requested",
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
        if self._should_tell(
            attempt,
            idle=state is not None and state.applied,
            may_have=not self._lock.exists(),
        ):
            self._lock.release()
            await self._tell(attempt, cancel=True)
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
        """Whether the state has lasted longer than it may.

        The soak starts again with each run, so time in which nobody looked does not count against it.
        """
        limit_s = deadline_s(attempt.state, attempt.believed)
        if limit_s is None:
            return False
        lasted_s = elapsed_s(attempt, self._world, self._run_started)
        if attempt.state == "verifying":
            lasted_s = min(lasted_s, self._world.monotonic() - self._run_started)
        return lasted_s >= limit_s

    def _should_tell(self, attempt: Attempt, *, idle: bool, may_have: bool) -> bool:
        """Whether the Supervisor is to be told now: once per fact, and again only if it has been idle for long.

        `may_have`: an earlier run may have told it; then it is given the time to act on that first.
        """
        now = self._world.monotonic()
        key = (attempt.name, attempt.facts)
        if key not in self._told:
            self._told = {key: now}
            return not may_have
        if idle and now - self._told[key] >= RETELL_POLLS * self._poll_s:
            self._told[key] = now
            return True
        return False

    async def _tell(self, attempt: Attempt, *, force: bool = False, cancel: bool = False) -> None:
        assert self._supervisor is not None  # noqa: S101 - never admitted without one
        try:
            await self._supervisor.update(force=force, cancel=cancel)
        except Exception:
            self._told.pop((attempt.name, attempt.facts), None)
            raise

    async def _why_not_downloaded(self) -> str:
        assert self._supervisor is not None  # noqa: S101 - never admitted without one
        device = await self._supervisor.device()
        if device.update_failed:
            return "the Supervisor reports update_failed while images are missing"
        return "the images were not all downloaded in time"

    def _note_progress(self, attempt: Attempt, state: State) -> None:
        if state.progress_percent is not None:
            self._progressed(attempt.name, round(state.progress_percent))

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

    def _happened(self, attempt: Attempt, kind: str, **data: object) -> Happened:
        return Happened(kind, {"deployment": attempt.believed.deployment, **data})


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
