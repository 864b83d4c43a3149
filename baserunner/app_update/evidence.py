"""What the Supervisor's answers prove about a release. Pure.

"Reported as this release" is not enough: with a reused registry repository a real Supervisor never pulls the new
image. It gives the old content the new name, renames the old container and reports it Running (recorded). So the image
of each service is compared by digest, and one whose content is another name's too was never pulled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baserunner.app_update.machine import Release
    from baserunner.neighbours.supervisor import State


MAX_REMEMBERED = 50
"""Services whose images are remembered; with the longest names that are taken they still fit into one fact."""


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


def why_not_pulled(state: State, release: Release) -> str:
    """Empty as long as each image of the release may be what its name says; else which cannot be, in words."""
    for _, image in release.images:
        contents = {held.content for held in state.images if held.name == image} - {None}
        for held in state.images:
            if held.content in contents and _is_another_of_its_repository(held.name, image):
                return (
                    f"{image} was never pulled: the Supervisor gave that name to what {held.name} is; "
                    "each image needs a registry repository of its own"
                )
    return ""


def _is_another_of_its_repository(one: str, other: str) -> bool:
    return one.partition("@")[0] == other.partition("@")[0] and not same_image(one, other)


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


def running_images(state: State) -> list[list[str]]:
    """What runs, as (service, image) pairs: what is to be found again if an update is not applied."""
    images = _images_by_service(state)
    return [
        [container.service, images[container.service]]
        for container in state.containers[:MAX_REMEMBERED]
        if container.status == "Running" and images.get(container.service)
    ]


def is_whole(state: State, before: Release) -> bool:
    """Whether the release that ran `before` still runs, or runs again: nothing of it has been taken apart.

    Its name alone proves nothing: for 1.5 s a new container runs under the old release's name (recorded).
    """
    return bool(before.commit and before.images) and not why_unhealthy(state, before)


def is_untouched(state: State, before: Release) -> bool:
    """Whether the device still is as it was before the apply: the old release, or nothing at all."""
    if not before.commit:
        return state.release is None and not state.containers
    return is_whole(state, before)


def _wrong_images(state: State, release: Release) -> list[str]:
    made_from = _images_by_service(state)
    return [
        service
        for service, image in release.images
        if service not in made_from or not same_image(image, made_from[service])
    ]


def _images_by_service(state: State) -> dict[str, str]:
    """What each container was made from; empty where no row says it."""
    names = {image.image_id: image.name for image in state.images if image.image_id is not None}
    return {
        container.service: names.get(container.image_id, "")
        for container in state.containers
        if container.image_id is not None
    }
