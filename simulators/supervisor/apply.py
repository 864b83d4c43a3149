"""The apply: step after step towards the target, and back-off while a step does not work.

Rules:
- A failed step (an update lock above all) makes the whole apply wait 1, 2, 4, 8, 16, 32 s, ... and start over.
- `force` in a request does nothing to an apply that waits; `cancel` ends the wait, and then `force` counts.
- The settings change first, in one step; then volumes and networks are made, and then the services follow.
- Update locks are taken before the first step that touches a service, and released after the last, or when one is held.
- The three update flags turn false together, when the apply has come to its end, and not before.

Source: `TIMELINE_update_r2_to_r3_{locked,force,force_cancel}.json`, `TIMELINE_update_release2.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import anyio

from simulators.supervisor.device_config import Changes, kept_as
from simulators.supervisor.engine import ApplyError, Engine
from simulators.supervisor.locks import Locks, UpdatesLockedError
from simulators.supervisor.plan import (
    Adopt,
    Commit,
    Configure,
    Fetch,
    Forget,
    Kill,
    Make,
    Remove,
    Rename,
    Start,
    Step,
    next_step,
)
from simulators.supervisor.state import Container
from simulators.supervisor.teller import compact

QUICK = (Adopt, Rename)
AT_ONCE = (Configure, Make)


class Applier:
    """At most one apply at a time; a new one takes the place of the one that runs."""

    def __init__(
        self, engine: Engine, locks: Locks, *, keep: Callable[[], None], poll_s: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._locks = locks
        self._keep = keep
        self._poll_s = poll_s
        self._apply: anyio.CancelScope | None = None
        self._wait: anyio.CancelScope | None = None
        self._force = False
        self._failures = 0
        self._locked = False

    @property
    def waits(self) -> bool:
        """An apply failed, and sits out its back-off."""
        return self._wait is not None

    def hurry(self, *, force: bool) -> None:
        """End the back-off, as `{"cancel": true}` does. The next one starts at 1 s again."""
        if self._wait is not None:
            self._force = force
            self._failures = 0
            self._wait.cancel()

    def abandon(self) -> None:
        """Stop where it is: whatever was in progress has not happened."""
        if self._apply is not None:
            self._apply.cancel()
            self._apply = self._wait = None
        self._engine.fleeting.rest()

    async def apply(self, *, force: bool) -> None:
        """Apply the target, however long it takes."""
        self.abandon()
        with anyio.CancelScope() as self._apply:
            self._force, self._failures = force, 0
            self._engine.journal.supervisor("[info]    Applying target state")
            self._engine.fleeting.applying = self._engine.fleeting.update_pending = True
            self._locked = False
            while not await self._tried():
                await self._back_off()
            self._succeed()

    async def _tried(self) -> bool:
        try:
            await self._engine.spend(self._engine.timings.look_s)
            self._keep()
            while (step := next_step(self._engine.kept)) is not None:
                self._engine.journal.supervisor(f"[event]   Event: {type(step).__name__}")
                await self._take(step)
                self._keep()
                await self._engine.spend(self._settle_s(step))
        except (ApplyError, UpdatesLockedError) as problem:
            self._failures += 1
            if isinstance(problem, UpdatesLockedError):
                self._say_locked(problem)
            self._engine.journal.supervisor(f"[error]   Updating failed, will try again: {problem}")
            self._engine.fleeting.update_failed = True
            self._engine.fleeting.rest()
            self._keep()
            return False
        return True

    def _settle_s(self, step: Step) -> float:
        timings = self._engine.timings
        if isinstance(step, AT_ONCE):
            return 0.0
        return timings.rename_s if isinstance(step, QUICK) else timings.settle_s

    def _back_off_s(self) -> float:
        return self._engine.timings.back_off_s(self._failures, at_most_s=self._poll_s())

    def _say_locked(self, problem: UpdatesLockedError) -> None:
        wait = compact(self._back_off_s())
        self._engine.teller.say(f"Updates are locked, retrying in {wait}. Reason: {problem}")

    async def _back_off(self) -> None:
        seconds = self._back_off_s()
        with anyio.CancelScope() as self._wait:
            await self._engine.spend(seconds)
        self._wait = None

    def _succeed(self) -> None:
        self.release_locks()
        fleeting = self._engine.fleeting
        fleeting.applying = fleeting.update_pending = False
        fleeting.update_failed = fleeting.update_downloaded = False
        self._engine.journal.supervisor("[success] Device state apply success")
        self._apply = None
        self._keep()

    async def _take(self, step: Step) -> None:
        kept = self._engine.kept
        match step:
            case Configure(changed):
                await self._configure(changed)
            case Make(what):
                self._engine.make(what)
            case Fetch() | Remove() | Start() | Kill() | Rename():
                await self._touch(step)
            case Adopt(image):
                kept.images = [row for row in kept.images if row.key != image.key] + [image]
            case Commit(app):
                self.release_locks()
                kept.commits[app.app_id] = app.commit or ""
                kept.app_uuids[app.app_id] = app.uuid
            case Forget(app_id):
                self._forget(app_id)
            case _:
                assert_never(step)

    async def _touch(self, step: Fetch | Remove | Start | Kill | Rename) -> None:
        match step:
            case Fetch():
                await self._engine.pull(step)
            case Remove(image):
                await self._engine.delete(image)
            case Rename(container, image):
                self._take_locks()
                container.image = image
            case Kill(container):
                self.ask_locks(container.app_id, force=self._force)
                await self._engine.stop(container)
            case Start():
                self._take_locks()
                await self._engine.start(step)
            case _:
                assert_never(step)

    async def _configure(self, changed: Changes) -> None:
        for warning in changed.warnings:
            self._engine.teller.say(warning)
        self._engine.teller.config("Applying", changed.told)
        await self._engine.spend(self._engine.timings.configure_s)
        for name, value in changed.told.items():
            self._engine.kept.config[name] = kept_as(name, value)
        self._engine.teller.config("Applied", changed.told)

    def _forget(self, app_id: int) -> None:
        """Oddity (README 12): an app whose uuid is digits only is never gone."""
        if self._engine.kept.app_uuids[app_id].isdigit():
            raise ApplyError(f"app {app_id} is still there")
        kept = self._engine.kept
        del kept.app_uuids[app_id]
        kept.volumes = [made for made in kept.volumes if not made.startswith(f"{app_id} ")]
        self._engine.kept.commits.pop(app_id, None)

    def ask_locks(self, app_id: int, *, force: bool) -> None:
        """Go on only if no service of the app is locked.

        Raises:
            UpdatesLockedError: one is, and there is no force.

        """
        self._take_locks()
        services: list[Container] = self._engine.kept.containers_of(app_id)
        try:
            for container in services:
                self._locks.check(app_id, container.service, force=force)
        except UpdatesLockedError:
            self.release_locks()
            raise

    def _take_locks(self) -> None:
        if not self._locked:
            self._locked = True
            self._engine.teller.say("Taking update locks")

    def release_locks(self) -> None:
        """What was taken is free again."""
        if self._locked:
            self._locked = False
            self._engine.teller.say("Releasing update locks")
