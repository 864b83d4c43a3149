"""A database that was restored from a backup is noticed: at the start, and by each node that has seen more."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from cloudly.store import incarnation
from cloudly.store.store import FILE, MOST_OBSERVED, Store
from tests.cloudly.given import UUID, Device, Plane

pytestmark = pytest.mark.anyio


def back_up(plane: Plane, to: Path) -> None:
    """While it is served, as the operator would."""
    source, copy = sqlite3.connect(plane.directory / FILE), sqlite3.connect(to)
    source.backup(copy)
    source.close()
    copy.close()


def restore(plane: Plane, backup: Path) -> Plane:
    """The server ends, the backup is put in the database's place, another server begins."""
    plane.end()
    for name in (FILE, FILE + "-wal", FILE + "-shm"):
        (plane.directory / name).unlink(missing_ok=True)
    shutil.copy(backup, plane.directory / FILE)
    return Plane.begin(plane.directory, world=plane.world)


async def test_a_database_that_is_restored_begins_another_incarnation(
    directory: Path, tmp_path: Path
) -> None:
    plane = Plane.begin(directory)
    before = plane.store.incarnation
    back_up(plane, tmp_path / "backup.db")

    plane = restore(plane, tmp_path / "backup.db")
    first = plane.store.incarnation
    plane = plane.again()

    assert first != before
    assert plane.store.incarnation == first  # once: the new life goes on
    plane.end()


async def test_a_server_that_is_killed_leaves_enough_behind_to_notice_it(
    directory: Path, tmp_path: Path
) -> None:
    plane = Plane.begin(directory)
    back_up(plane, tmp_path / "backup.db")
    device = await plane.device().enroll()
    for _ in range(3):
        await plane.world.sleep(20)
        await device.beat()
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(directory / incarnation.FILE, killed)
    shutil.copy(tmp_path / "backup.db", killed / FILE)

    after = Plane.begin(killed, world=plane.world)

    assert after.store.incarnation != plane.store.incarnation
    plane.end()
    after.end()


@pytest.mark.parametrize("content", [None, "", "\xff torn", "somebody-else 1\n", "x"])
async def test_a_database_without_the_file_that_belongs_to_it_begins_another_incarnation(
    directory: Path, content: str | None
) -> None:
    plane = Plane.begin(directory)
    before = plane.store.incarnation
    plane.end()
    file = directory / incarnation.FILE
    file.unlink() if content is None else file.write_bytes(content.encode("latin-1"))

    plane = Plane.begin(directory, world=plane.world)

    assert plane.store.incarnation != before
    assert file.read_text().split()[0] == plane.store.incarnation
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 or content is not None
    plane.end()


async def test_a_file_that_lags_behind_the_database_is_no_restore(directory: Path) -> None:
    plane = Plane.begin(directory)
    lagging = (directory / incarnation.FILE).read_bytes()
    plane = plane.again()
    plane.end()
    (directory / incarnation.FILE).write_bytes(lagging)

    later = Plane.begin(directory, world=plane.world)

    assert later.store.incarnation == plane.store.incarnation
    later.end()


async def test_who_works_beside_the_server_begins_no_life(plane: Plane) -> None:
    before = (plane.directory / incarnation.FILE).read_bytes()

    Store.open(plane.directory, plane.world, serves=False).close()

    assert (plane.directory / incarnation.FILE).read_bytes() == before


async def has_seen(device: Device, generation: int) -> tuple[int, str | None]:
    """Generation and deployment that the node is told, after it has told which it has seen."""
    answer = await device.beat(reported={"observed_generation": generation})
    assert answer.status_code == 200, answer.text
    desired = answer.json()["desired"]
    return desired["generation"], desired["app"] and desired["app"]["deployment"]


async def test_a_node_that_has_seen_more_gets_the_same_target_above_it_as_a_new_deployment(
    directory: Path, tmp_path: Path
) -> None:
    plane = Plane.begin(directory)
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)
    await device.beat()
    back_up(plane, tmp_path / "backup.db")
    for version in ("2.0.0", "3.0.0"):
        plane.release(version, UUID)
    assert (await has_seen(device, 3))[0] == 3

    device.plane = plane = restore(plane, tmp_path / "backup.db")
    generation, deployment = await has_seen(device, 3)
    again = await has_seen(device, 3)

    assert generation == 4
    assert deployment not in {first, None}
    assert again == (generation, deployment)  # once
    assert plane.node()["wanted_version"] == "1.0.0"
    assert "restored from a backup" in plane.node()["needs_operator"]
    plane.end()


async def test_what_a_restore_left_to_check_stays_until_the_operator_says_what_is_wanted(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    plane.release("1.0.0", UUID)
    _, deployment = await has_seen(device, 9)

    await device.tell("app-update/1", "applying", "succeeded", deployment=deployment)
    succeeded = plane.node()
    plane.release("1.0.0", UUID)

    assert (succeeded["last_good"], plane.node()["needs_operator"]) == ("1.0.0", None)
    assert "restored" in succeeded["needs_operator"]


async def test_a_node_without_a_target_that_has_seen_one_is_marked_too(plane: Plane) -> None:
    device = await plane.device().enroll()

    assert await has_seen(device, 5) == (6, None)
    assert "restored from a backup" in plane.node()["needs_operator"]


async def test_a_generation_that_nobody_can_have_given_is_not_believed(plane: Plane) -> None:
    device = await plane.device().enroll()
    first = plane.release("1.0.0", UUID)

    for impossible in (MOST_OBSERVED + 1, 2**53):
        assert await has_seen(device, impossible) == (1, first)
    assert plane.node()["needs_operator"] is None
