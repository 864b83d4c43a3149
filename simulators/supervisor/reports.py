"""The Supervisor's state reports to its backend: differences to the last one that was accepted.

Rules:
- A report goes out at most every 10 s, and only when something differs. `update_failed` and locks are never in one.
- A device whose target has no app reports nothing of apps (README 9).
- Oddity (README 6): `Retry-After: 5` on a 429 is taken for 5 milliseconds.
- 404 means that this backend takes no reports: it is not asked again until the Supervisor restarts. (The real one goes
  on every 15 s; ours is quiet for the sake of the logs.)

Source: the PATCHes of `backend/first-boot.json` and `updates.json`, and `backend-error-behaviour.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from simulators.supervisor import views
from simulators.supervisor.sources import Reported, SourceUnavailableError, TargetSource
from simulators.supervisor.state import VERSION

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor


class Reports:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._accepted: dict[str, Any] = {}
        self._changed = anyio.Event()

    def something_changed(self) -> None:
        """There may be something to report."""
        self._changed.set()

    async def run(self, source: TargetSource) -> None:
        """Report for as long as the backend takes reports."""
        engine = self._supervisor.engine
        self._accepted = {}
        while True:
            answer, self._changed = None, anyio.Event()
            if self._supervisor.kept.identity.device_id is not None or source.needs_no_registration:
                answer = await self._hand_in(source)
            if answer is None:
                await self._changed.wait()
                continue
            if answer.status == 404:
                return
            await engine.spend(self._pause_s(answer))

    async def _hand_in(self, source: TargetSource) -> Reported | None:
        """How the difference was taken; None when there was none."""
        now = full_report(self._supervisor)
        accepted = self._accepted
        difference = {
            key: value
            for key, value in now.items()
            if key not in accepted or accepted[key] != value
        }
        if not difference:
            return None
        identity = self._supervisor.kept.identity
        try:
            answer = await source.report(identity, {identity.uuid: difference})
        except SourceUnavailableError:
            return Reported(0)
        if 200 <= answer.status < 300:
            self._accepted = now
        return answer

    def _pause_s(self, answer: Reported) -> float:
        timings = self._supervisor.setup.timings
        if 200 <= answer.status < 300:
            return timings.report_every_s
        if answer.retry_after is not None and answer.retry_after.isdigit():
            return int(answer.retry_after) / 1000
        return timings.report_retry_s


def full_report(supervisor: Supervisor) -> dict[str, Any]:
    """All there is to report; what metrics there are stand still."""
    host, kept = supervisor.setup.host, supervisor.kept
    report: dict[str, Any] = {
        "ip_address": host.ip_address,
        "mac_address": host.mac_address,
        "api_port": host.api_port,
        "api_secret": kept.global_key,
        "os_version": host.os_version,
        "os_variant": host.os_variant,
        "supervisor_version": VERSION,
        "provisioning_progress": None,
        "provisioning_state": "",
        "status": "Idle",
        "logs_channel": None,
        "cpu_usage": 1,
        "memory_usage": 1075,
        "memory_total": 24105,
        "storage_block_device": "",
        "cpu_temp": 0,
        "is_undervolted": False,
    }
    apps = _apps(supervisor)
    return {**report, "apps": apps} if apps else report


def _apps(supervisor: Supervisor) -> dict[str, Any]:
    apps: dict[str, Any] = {}
    for app in supervisor.kept.target.apps:
        commit = supervisor.kept.commits.get(app.app_id)
        known = {} if commit is None else {"release_uuid": commit}
        apps[app.uuid] = {**known, "releases": _releases(supervisor, app.app_id)}
    return apps


def _releases(supervisor: Supervisor, app_id: int) -> dict[str, Any]:
    """Every release that has an image or a container here, the target's included."""
    services: dict[str, dict[str, Any]] = {}
    for commit, service, state in _service_states(supervisor, app_id):
        services.setdefault(commit, {})[service] = state
    return {
        commit: {
            "update_status": views.update_status([state["status"] for state in named.values()]),
            "services": named,
        }
        for commit, named in services.items()
    }


def _service_states(
    supervisor: Supervisor, app_id: int
) -> list[tuple[str, str, Mapping[str, Any]]]:
    kept, fleeting = supervisor.kept, supervisor.fleeting
    states: list[tuple[str, str, Mapping[str, Any]]] = []
    for work in views.images_at_work(kept, fleeting):
        image = work.image
        if image.app_id != app_id:
            continue
        state: dict[str, Any] = {"image": image.name, "status": work.status}
        if work.progress is not None:
            state["download_progress"] = work.progress
        running = views.running_status(kept, fleeting, image)
        if running is not None:
            state["status"] = running
        states.append((image.commit, image.service, state))
    return states
