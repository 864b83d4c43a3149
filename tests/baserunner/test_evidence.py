"""What the Supervisor's answers prove about a release."""

from __future__ import annotations

from typing import Any

from baserunner.app_update.evidence import (
    is_applied,
    is_staged,
    is_untouched,
    is_whole,
    running_images,
    same_image,
    why_not_pulled,
    why_unhealthy,
)
from baserunner.app_update.machine import Release
from baserunner.neighbours.supervisor import State

NEW = "sha256:" + "b" * 64
OLD = "sha256:" + "a" * 64
TARGET = Release(commit="bbbb", version="2", images=(("main", f"registry/two@{NEW}"),))


def a_state(**changes: Any) -> State:
    return State.model_validate(
        {
            "appState": "applied",
            "release": "bbbb",
            "containers": [{"status": "Running", "serviceName": "main", "imageId": 2}],
            "images": [{"name": f"registry/two@{NEW}", "imageId": 2, "status": "Downloaded"}],
            **changes,
        }
    )


def test_the_release_applied_with_its_image_is_applied_and_healthy() -> None:
    assert is_applied(a_state(), TARGET)
    assert why_unhealthy(a_state(), TARGET) == ""


def test_applying_is_not_applied() -> None:
    assert not is_applied(a_state(appState="applying"), TARGET)


def test_the_old_container_renamed_to_the_new_release_is_not_applied() -> None:
    renamed = a_state(
        images=[{"name": f"registry/two@{OLD}", "imageId": 2, "status": "Downloaded"}]
    )

    assert not is_applied(renamed, TARGET)
    assert "does not run its image" in why_unhealthy(renamed, TARGET)


def test_a_service_that_exited_is_named() -> None:
    exited = a_state(containers=[{"status": "exited", "serviceName": "main", "imageId": 2}])

    assert why_unhealthy(exited, TARGET) == "service main is exited"


def test_a_service_without_a_container_is_missing() -> None:
    assert "service main is missing" in why_unhealthy(a_state(containers=[]), TARGET)


def test_staged_is_every_image_downloaded_while_another_release_runs() -> None:
    assert is_staged(a_state(release="aaaa", appState="applying"), TARGET)


def test_an_image_still_downloading_is_not_staged() -> None:
    downloading = a_state(
        images=[{"name": f"registry/two@{NEW}", "imageId": 2, "status": "Downloading"}]
    )

    assert not is_staged(downloading, TARGET)


def test_a_release_without_images_is_never_called_staged() -> None:
    assert not is_staged(a_state(), Release(commit="bbbb"))


def test_the_same_digest_from_another_repository_is_the_same_image() -> None:
    assert same_image(f"one@{NEW}", f"two@{NEW}")
    assert not same_image(f"one@{NEW}", f"one@{OLD}")
    assert not same_image("one:tag", f"one@{NEW}")


BEFORE = Release(commit="aaaa", images=(("main", f"registry/one@{OLD}"),))
OLD_ROW = {"name": f"registry/one@{OLD}", "imageId": 2, "status": "Downloaded"}


def test_the_old_release_is_whole_when_every_service_runs_its_image() -> None:
    assert is_whole(a_state(release="aaaa", images=[OLD_ROW]), BEFORE)
    assert not is_whole(a_state(release="aaaa", images=[OLD_ROW], containers=[]), BEFORE)


def test_a_new_container_under_the_old_releases_name_is_not_the_old_release() -> None:
    """Recorded: 7.1 to 8.6 s after the POST the new container runs, and `release` is still the old one."""
    assert not is_whole(a_state(release="aaaa"), BEFORE)


def test_what_ran_is_remembered_by_service_and_image() -> None:
    assert running_images(a_state()) == [["main", f"registry/two@{NEW}"]]
    assert running_images(a_state(images=[])) == []


def test_a_device_without_an_app_is_untouched_as_long_as_it_has_none() -> None:
    assert is_untouched(a_state(release=None, containers=[]), Release())
    assert not is_untouched(a_state(release=None), Release())
    assert not is_whole(a_state(release=None, containers=[]), Release())


def test_an_image_with_the_content_of_another_one_of_its_repository_was_never_pulled() -> None:
    """Recorded: TIMELINE_update_release2, oddity 4."""
    rows = [
        {
            "name": f"registry/two@{digest}",
            "imageId": n,
            "status": "Downloaded",
            "dockerImageId": "x",
        }
        for n, digest in enumerate((OLD, NEW))
    ]

    assert "was never pulled" in why_not_pulled(a_state(images=rows), TARGET)


def test_two_repositories_may_well_hold_the_same_content() -> None:
    rows = [
        {"name": name, "imageId": n, "status": "Downloaded", "dockerImageId": "x"}
        for n, name in enumerate((f"registry/one@{OLD}", f"registry/two@{NEW}"))
    ]

    assert why_not_pulled(a_state(images=rows), TARGET) == ""
