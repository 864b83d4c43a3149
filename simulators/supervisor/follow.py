"""Following the source of targets: poll it, ask it when told to, and take what it says.

Rules:
- A target that has changed cancels and restarts the apply that runs; one that has not (304) leaves it alone (README 7).
- `cancel` ends the back-off of an apply that waits. Without it, `POST /v1/update` does nothing to such an apply.
- A target that is refused changes nothing, and only the log stream hears of it.
- Before the first poll it joins; a failure there is tried again after a fixed wait, for ever.
- After a failed poll it waits 15, 30, 60, ... s, at most the poll interval (code).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from interfaces.target_verdict import TargetRejectedError
from interfaces.world import new_id
from simulators.supervisor.settings import TRUE, Settings
from simulators.supervisor.sources import SourceUnavailableError, TargetSource
from simulators.supervisor.target import NotOursError, Target, read_target

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

FEATURE_API: Final = "io.balena.features.supervisor-api"


class Follower:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._local = Target()
        self._looking = anyio.Lock()
        self._joined = False
        self.refused: tuple[str, ...] = ()
        """Why the last target was refused; the real one says it in its log stream alone."""

    async def follow(self, source: TargetSource) -> None:
        """Join, then report and poll for ever."""
        self._joined = False
        if source.takes_logs:
            await self._supervisor.engine.spend(self._supervisor.setup.timings.wake_s)
        await self._join(source)
        self._joined = True
        self._supervisor.spawn(partial(self._supervisor.reports.run, source))
        if not self._supervisor.settings.instant_updates:
            await self._supervisor.engine.spend(self._until_next_poll_s(0))
        await self._poll(source)

    async def _join(self, source: TargetSource) -> None:
        supervisor = self._supervisor
        while True:
            try:
                said = await source.join(supervisor.kept, supervisor.setup.host)
            except SourceUnavailableError:
                supervisor.keep()
                await supervisor.engine.spend(supervisor.setup.timings.join_retry_s)
                continue
            if said is not None:
                supervisor.teller.say(said)
            supervisor.keep()
            return

    async def _poll(self, source: TargetSource) -> None:
        """Ask for the target for ever: at the interval with jitter, after a failure with back-off."""
        failures = 0
        while True:
            try:
                await self._look(source, force=False, cancel=False, asked=False)
                failures = 0
            except SourceUnavailableError:
                failures += 1
            await self._supervisor.engine.spend(self._until_next_poll_s(failures))

    def _until_next_poll_s(self, failures: int) -> float:
        timings = self._supervisor.setup.timings
        interval_s = self._supervisor.settings.poll_interval_s
        if failures:
            return min(timings.poll_retry_s * 2.0 ** min(failures - 1, 10), interval_s)
        return interval_s + self._supervisor.world.uniform(0, timings.poll_jitter_s)

    def notice(self, *, force: bool, cancel: bool) -> None:
        """What `POST /v1/update` sets going; whatever becomes of it, nobody hears."""
        source = self._supervisor.source
        if source is not None and self._joined:
            noticed = partial(self._noticed, source, force=force, cancel=cancel)
            self._supervisor.spawn(noticed)

    async def _noticed(self, source: TargetSource, *, force: bool, cancel: bool) -> None:
        await self._supervisor.engine.spend(self._supervisor.setup.timings.notice_s)
        with suppress(SourceUnavailableError):
            await self._look(source, force=force, cancel=cancel, asked=True)

    async def _look(self, source: TargetSource, *, force: bool, cancel: bool, asked: bool) -> None:
        """Fetch the target, and do what follows. Raises SourceUnavailableError."""
        supervisor = self._supervisor
        async with self._looking:
            body = await source.fetch(supervisor.kept.identity)
        if body is not None:
            self._accept(body, force=force)
        elif asked and cancel and supervisor.applier.waits:
            supervisor.applier.hurry(force=force)
        elif asked and not supervisor.fleeting.applying:
            supervisor.begin_apply(force=force)

    def _accept(self, body: object, *, force: bool) -> None:
        try:
            target = read_target(self._supervisor.kept.identity.uuid, body)
        except TargetRejectedError as rejected:
            self.refused = rejected.faults
            if not isinstance(rejected, NotOursError):
                self._supervisor.teller.rejected(rejected.faults)
            return
        self.refused = ()
        self._set(target, force=force)

    def set_local_target(self, target: Target) -> None:
        """What `POST /v2/local/target-state` does, in local mode and without a backend."""
        self._local = target
        config = target.config or self._supervisor.kept.target.config
        self._set(replace(target, config=config) if self._supervisor.managed else target)

    def _set(self, target: Target, *, force: bool = False) -> None:
        """Take this target and apply it. In local mode, apps come from the local target alone."""
        local = Settings.of(target.config).local_mode
        kept = self._supervisor.kept
        kept.target = replace(target, apps=self._local.apps) if local else target
        self._make_keys()
        self._supervisor.keep()
        self._supervisor.begin_apply(force=force)

    def _make_keys(self) -> None:
        kept = self._supervisor.kept
        for app in kept.target.apps:
            for service in app.services:
                if service.labels.get(FEATURE_API) in TRUE:
                    name = (app.app_id, service.name)
                    kept.service_keys.setdefault(name, new_id(self._supervisor.world))
