"""The body of a state report: all there is to say, and what of it differs from the last report that was taken. Pure.

Rules:
- The difference is taken on the first level below the uuid: `apps` is sent whole as soon as anything in it changed.
  So a release or a service that is gone is told by not being in it, and a key that is gone is not told at all.
- Empty parts are left out: `apps: {}` is never sent (README 9).
- Of an app: `release_uuid` (the release that was applied to its end), and each release of which there is an image or a
  container, with `update_status` and its services; an image of the target that is not here yet is Downloading, 0.
- `update_pending`, `update_downloaded` and `update_failed` are never in it; in local mode, `apps` and `logs_channel`
  are not either.

Source: the PATCHes of `backend/first-boot.json` and `backend/updates.json`; the order of precedence of `update_status`
and the buckets of metrics: (code).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulators.supervisor import views
from simulators.supervisor.metrics import NAMES, metrics, significant, switched_off
from simulators.supervisor.state import VERSION, Work, image_of
from simulators.supervisor.target import AppTarget

if TYPE_CHECKING:
    from simulators.supervisor.supervisor import Supervisor

Body = dict[str, Any]
PENDING = ("Downloading", 0)
STEPS = ("Installing", "Installed", "Awaiting handover")


def full_report(supervisor: Supervisor, last: Mapping[str, Any]) -> Body:
    """All there is to report; `last` is the last report that was taken."""
    host, kept = supervisor.setup.host, supervisor.kept
    measured = switched_off()
    if supervisor.settings.hardware_metrics:
        now_s = supervisor.world.monotonic()
        measured = metrics(kept.identity.uuid, now_s, moving=supervisor.setup.moving_metrics)
    report: Body = {
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
        **significant(last, measured),
        "is_undervolted": False,
        "apps": _apps(supervisor),
    }
    if supervisor.local_mode:
        del report["apps"], report["logs_channel"]
    return report


@dataclass(frozen=True, slots=True)
class Difference:
    told: Body
    gone: bool
    """Something is no longer reported at all; that counts, but is not told."""

    @property
    def is_metrics_alone(self) -> bool:
        """Whether this waits for the metrics' own time."""
        return not self.gone and all(name in NAMES for name in self.told)


def difference(last: Mapping[str, Any], now: Mapping[str, Any]) -> Difference | None:
    """What to send; None when nothing differs."""
    changed = {key: value for key, value in now.items() if key not in last or last[key] != value}
    told = {key: value for key, value in changed.items() if value != {}}
    gone = any(key not in now for key in last)
    return Difference(told, gone) if told or gone else None


def _apps(supervisor: Supervisor) -> Body:
    apps: Body = {}
    for app in supervisor.kept.target.apps:
        releases = _releases(supervisor, app)
        if releases:
            commit = supervisor.kept.commits.get(app.app_id)
            known = {} if commit is None else {"release_uuid": commit}
            apps[app.uuid] = {**known, "releases": releases}
    return apps


def _releases(supervisor: Supervisor, app: AppTarget) -> Body:
    """Of two images of one service in one release the last is told, and both count for the status."""
    states: dict[str, list[tuple[str, Body]]] = {}
    for commit, service, state in _service_states(supervisor, app):
        states.setdefault(commit, []).append((service, state))
    return {
        commit: {
            "update_status": update_status([state for _, state in of_release]),
            "services": dict(of_release),
        }
        for commit, of_release in states.items()
    }


def _service_states(supervisor: Supervisor, app: AppTarget) -> list[tuple[str, str, Body]]:
    """Images without a container first, as the recorded reports have them."""
    kept, fleeting = supervisor.kept, supervisor.fleeting
    works = [it for it in views.images_at_work(kept, fleeting) if it.image.app_id == app.app_id]
    running: dict[tuple[str, str], Body] = {}
    for work in works:
        status = views.running_status(kept, fleeting, work.image)
        if status is not None:
            place = (work.image.commit, work.image.service)
            running[place] = {"image": work.image.name, "status": status}
    resting = [
        (work.image.commit, work.image.service, _image_state(work))
        for work in works
        if (work.image.commit, work.image.service) not in running
    ]
    known = {(commit, service) for commit, service, _ in resting} | running.keys()
    pending = [
        (app.commit or "", service.name, _image_state(Work(image_of(app, service), *PENDING)))
        for service in app.services
        if (app.commit or "", service.name) not in known
    ]
    return [*resting, *pending, *((*place, state) for place, state in running.items())]


def _image_state(work: Work) -> Body:
    state: Body = {"image": work.image.name, "status": work.status}
    return state if work.progress is None else state | {"download_progress": work.progress}


def update_status(services: list[Mapping[str, Any]]) -> str:
    """How far a release is, from what is told of its services."""
    statuses = [service["status"] for service in services]
    if any(service.get("download_progress", 100) != 100 for service in services):
        return "downloading"
    if "Downloaded" in statuses:
        return "downloaded"
    return "applying changes" if any(status in STEPS for status in statuses) else "done"
