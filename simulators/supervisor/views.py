"""The bodies of the Supervisor's answers about its state. Pure; keys in the recorded order, so that ETags agree.

Oddities, each recorded:
- `commit` of /v1/device is absent while an apply runs; `release` of /v2/state/status is the OLD one until the end;
  `commit` of /v2/applications/state is the TARGET's.
- Work in progress comes before what is at rest; an image that is Downloading or Deleting has no `dockerImageId`, one
  that is Deleting has no progress either.
- /v1/device shows the state of the service with the lowest image id, and says Idle for Running.
"""

from __future__ import annotations

from typing import Any

from simulators.supervisor.state import (
    VERSION,
    Container,
    Fleeting,
    HostFacts,
    Image,
    Kept,
    Work,
    image_of,
)
from simulators.supervisor.target import AppTarget, ServiceTarget

Body = dict[str, Any]

BEING_INSTALLED = ("Installing", "Installed", "Starting")


def images_at_work(kept: Kept, fleeting: Fleeting) -> list[Work]:
    """Every image with its status, work in progress first."""
    busy = [work.image.key for work in fleeting.images]
    resting = [Work(image, "Downloaded") for image in kept.images if image.key not in busy]
    return [*fleeting.images, *resting]


def status_of(container: Container, fleeting: Fleeting) -> str:
    return fleeting.services.get(container.id, str(container.life))


def device(kept: Kept, fleeting: Fleeting, host: HostFacts) -> Body:
    """GET /v1/device."""
    body: Body = {
        "api_port": host.api_port,
        "ip_address": host.ip_address,
        "os_version": host.os_version,
        "mac_address": host.mac_address,
        "supervisor_version": VERSION,
        "update_pending": fleeting.update_pending,
        "update_failed": fleeting.update_failed,
        "update_downloaded": fleeting.update_downloaded,
    }
    commit = next(iter(kept.commits.values()), None)
    if commit is not None and not fleeting.applying:
        body["commit"] = commit
    services = _services_by_image(kept, fleeting, None)
    if services:
        first = services[min(services)]
        body["status"] = "Idle" if first["status"] == "Running" else first["status"]
        if "download_progress" in first:
            body["download_progress"] = first["download_progress"]
    return body


def state_status(kept: Kept, fleeting: Fleeting) -> Body:
    """GET /v2/state/status."""
    images = images_at_work(kept, fleeting)
    progress = [work.progress for work in images if work.progress is not None]
    body: Body = {
        "status": "success",
        "appState": "applying" if fleeting.applying else "applied",
        "overallDownloadProgress": sum(progress) // len(progress) if progress else None,
        "containers": [_container(held, fleeting) for held in reversed(kept.containers)],
        "images": [_image(work) for work in images],
    }
    commit = next(iter(kept.commits.values()), None)
    if commit is not None:
        body["release"] = commit
    return body


def _container(container: Container, fleeting: Fleeting) -> Body:
    return {
        "status": status_of(container, fleeting),
        "serviceName": container.service,
        "appId": container.app_id,
        "imageId": container.image.image_id,
        "serviceId": container.service_id,
        "containerId": container.id,
        "createdAt": container.created_at,
    }


def _image(work: Work) -> Body:
    image = work.image
    body: Body = {
        "name": image.name,
        "appId": image.app_id,
        "serviceName": image.service,
        "imageId": image.image_id,
    }
    if work.status == "Downloaded":
        body["dockerImageId"] = image.docker_id
    body["status"] = work.status
    if work.status != "Deleting":
        body["downloadProgress"] = work.progress
    return body


def application(kept: Kept, fleeting: Fleeting, app_id: int) -> Body:
    """GET /v2/applications/:id/state, keyed by image id in ascending order, as JavaScript keeps such keys."""
    services = _services_by_image(kept, fleeting, app_id)
    ordered = {str(image_id): services[image_id] for image_id in sorted(services)}
    body: Body = {"local": {str(app_id): {"services": ordered}}}
    commit = kept.commits.get(app_id)
    return body if commit is None else {"commit": commit, **body}


def _services_by_image(kept: Kept, fleeting: Fleeting, app_id: int | None) -> dict[int, Body]:
    services: dict[int, Body] = {}
    for work in images_at_work(kept, fleeting):
        if app_id is None or work.image.app_id == app_id:
            services.setdefault(work.image.image_id, _service(work))
    for container in kept.containers:
        _overlay(services, container.image, status_of(container, fleeting), app_id)
    for image in fleeting.installing:
        _overlay(services, image, "Installing", app_id)
    return services


def _service(work: Work) -> Body:
    body: Body = {"status": work.status, "releaseId": work.image.release_id}
    if work.status != "Deleting":
        body["download_progress"] = work.progress
    return body


def _overlay(services: dict[int, Body], image: Image, status: str, app_id: int | None) -> None:
    if app_id is None or image.app_id == app_id:
        services[image.image_id] = {
            "status": status,
            "releaseId": image.release_id,
            "download_progress": None,
        }


def applications(kept: Kept, fleeting: Fleeting) -> Body:
    """GET /v2/applications/state, keyed by app name."""
    return {app.name: _application(kept, fleeting, app) for app in kept.target.apps}


def _application(kept: Kept, fleeting: Fleeting, app: AppTarget) -> Body:
    images = [work for work in images_at_work(kept, fleeting) if _of_release(work.image, app)]
    services = {s.name: _service_of(kept, fleeting, app, s, images) for s in reversed(app.services)}
    shown = [service["status"] for service in services.values()]
    pulled = [work.status for work in images if work.status == "Downloading"]
    return {
        "appId": app.app_id,
        "appUuid": app.uuid,
        "commit": app.commit,
        "updateStatus": update_status(shown + pulled),
        "services": services,
    }


def _of_release(image: Image, app: AppTarget) -> bool:
    return image.app_id == app.app_id and image.commit == app.commit


def _service_of(
    kept: Kept, fleeting: Fleeting, app: AppTarget, service: ServiceTarget, images: list[Work]
) -> Body:
    """One service of the target. Before its image is known it counts as Downloading; of two images the last wins."""
    body: Body = {
        "status": "Downloading",
        "image": service.image,
        "downloadProgress": 0,
        "releaseId": app.release_id,
    }
    for work in images:
        if work.image.service == service.name:
            body |= {
                "status": work.status,
                "image": work.image.name,
                "downloadProgress": work.progress,
            }
    status = running_status(kept, fleeting, image_of(app, service))
    return body if status is None else body | {"status": status, "downloadProgress": None}


def running_status(kept: Kept, fleeting: Fleeting, image: Image) -> str | None:
    """The status of the container made of this image, or about to be."""
    if any(coming.key == image.key for coming in fleeting.installing):
        return "Installing"
    container = kept.container(image.app_id, image.service)
    if container is not None and container.image.key == image.key:
        return status_of(container, fleeting)
    return None


def update_status(statuses: list[str]) -> str:
    """How far a release is, from the statuses of its services."""
    if "Downloading" in statuses:
        return "downloading"
    if "Downloaded" in statuses:
        return "downloaded"
    if any(status in BEING_INSTALLED for status in statuses):
        return "applying changes"
    return "done"
