"""What the Supervisor's answers prove about a release. Pure.

"Reported as this release" is not enough: with a reused registry repository a real Supervisor renames the old
container to the new release and reports it Running (recorded). So the image of each service is compared by digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baserunner.app_update.machine import Release
    from baserunner.neighbours.supervisor import State


def same_image(one: str, other: str) -> bool:
    """Whether two references name the same content: by digest where both have one."""
    one_digest, other_digest = one.rpartition("@")[2], other.rpartition("@")[2]
    if one_digest.startswith("sha256:") and other_digest.startswith("sha256:"):
        return one_digest == other_digest
    return one == other


def is_staged(state: State, release: Release) -> bool:
    """Whether every image of the release is on the device. A release without images is never called staged."""
    downloaded = [image.name for image in state.images if image.status == "Downloaded"]
    return bool(release.images) and all(
        any(same_image(image, name) for name in downloaded) for _, image in release.images
    )


def is_applied(state: State, release: Release) -> bool:
    """Whether the Supervisor reports this release as applied, each service made from its image."""
    return state.release == release.commit and state.applied and not _wrong_images(state, release)


def why_unhealthy(state: State, release: Release) -> str:
    """Empty when every service of the release runs; else which does not, in words."""
    if state.release != release.commit:
        return f"the Supervisor reports release {state.release or 'none'}"
    running = {container.service: container.status for container in state.containers}
    wanted = [service for service, _ in release.images] or sorted(running)
    faults = [
        f"service {service} is {running.get(service, 'missing')}"
        for service in wanted
        if running.get(service) != "Running"
    ]
    faults += [
        f"service {service} does not run its image" for service in _wrong_images(state, release)
    ]
    return "; ".join(faults)


def is_whole(state: State, commit: str | None) -> bool:
    """Whether the release `commit` still runs as a whole: nothing has been taken apart yet."""
    return (
        commit is not None
        and state.release == commit
        and bool(state.containers)
        and all(container.status == "Running" for container in state.containers)
    )


def _wrong_images(state: State, release: Release) -> list[str]:
    names = {image.image_id: image.name for image in state.images if image.image_id is not None}
    made_from = {
        container.service: names.get(container.image_id, "")
        for container in state.containers
        if container.image_id is not None
    }
    return [
        service
        for service, image in release.images
        if service not in made_from or not same_image(image, made_from[service])
    ]
