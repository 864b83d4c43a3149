"""Bad days of the disk: nothing is done to the device, the agent stays up and says why, and goes on by itself."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from simulators.world import run_virtual
from tests.world.kit import Place, a_place

LONG_S = 1200.0
ROOM_BYTES, FACTS_BEFORE = 200_000, 30
Seen = tuple[int, list[str]]


def device(place: Place) -> Seen:
    """What was done to it: what its Supervisor was told, and which locks there are."""
    locks = sorted(path.name for path in (place.root / "locks").iterdir())
    return len(place.supervisor.told), locks


def said(log: pytest.LogCaptureFixture, word: str) -> list[str]:
    """What the agent's log said with this word in it, at WARNING or above."""
    return [
        record.getMessage()
        for record in log.records
        if record.name.startswith("baserunner")
        and record.levelno >= logging.WARNING
        and word in record.getMessage()
    ]


async def something_to_do(place: Place) -> None:
    """A device that runs 1.0.0 and is stopped, while the operator wants 1.1.0."""
    await place.runs("1.0.0")
    await place.stop_agent()
    place.set_release("1.1.0")


async def it_is_degraded(place: Place, log: pytest.LogCaptureFixture, reason: str) -> None:
    """Live through a long time of trouble, and find it as promised."""
    before = device(place)
    await place.world.sleep(LONG_S)
    assert device(place) == before
    assert not place.agent_ended.is_set()
    assert [reason in line for line in said(log, "degraded")] == [True]
    assert place.node().state == "degraded"
    assert reason in place.node().state_detail
    status = place.status()
    assert not status.healthy
    assert status.problems


async def it_is_well_again(place: Place) -> None:
    await place.until_state("app-update/2", "succeeded")
    await place.until(lambda: place.node().state == "online")
    assert place.status().healthy


# -- the journal's file ----------------------------------------------------------------------------


def overwrite_the_first_pages(file: Path) -> None:
    with file.open("r+b") as journal:
        journal.write(bytes(range(256)) * 32)


def come_from_the_future(file: Path) -> None:
    with closing(sqlite3.connect(file)) as journal:
        journal.execute("PRAGMA user_version = 999")
        journal.execute("UPDATE meta SET value = '999' WHERE name = 'oldest_writer'")
        journal.commit()


def be_no_database(file: Path) -> None:
    file.write_text("the quick brown fox jumps over the lazy dog\n" * 200)


def be_empty(file: Path) -> None:
    file.write_bytes(b"")


def test_a_journal_from_the_future_stops_everything_until_it_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await something_to_do(place)
            file = place.home / "journal.db"
            shutil.copy(file, tmp_path / "kept")
            come_from_the_future(file)
            caplog.clear()

            place.start_agent()
            await it_is_degraded(place, caplog, "schema is version 999")
            assert "schema is version 999" in " ".join(place.status().problems)

            shutil.copy(tmp_path / "kept", file)
            await it_is_well_again(place)

    run_virtual(story)


@pytest.mark.parametrize("spoil", [overwrite_the_first_pages, be_no_database, be_empty])
def test_a_broken_journal_is_kept_aside_and_life_goes_on_in_a_new_epoch(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await something_to_do(place)
            before = place.epoch()
            spoil(place.home / "journal.db")
            broken = (place.home / "journal.db").read_bytes()

            place.start_agent()
            await place.until(lambda: place.deployment_states()[-1] == "succeeded")
            await place.until(lambda: place.node().state == "online")

            first = place.facts()[0]
            kept = place.home / "kept" / first.values["kept_in"].rpartition("/")[2] / "journal.db"
            assert (first.kind, first.values["why"]) == ("epoch-began", "salvaged")
            assert "nothing was changed" not in first.values["problem"], "advice is no history"
            assert kept.read_bytes() == broken
            assert place.epoch() != before
            assert place.core_at_cloudly() == place.core_on_device()
            assert place.status().healthy

    run_virtual(story)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stream SET belief = 'no JSON', carried = 'staged' WHERE machine = 'app-update'",
        "UPDATE core SET data = 'no JSON' WHERE seq = 2",
        "UPDATE stream SET lane = 'gore' WHERE machine = 'enrollment'",
    ],
)
def test_a_row_that_no_program_wrote_is_damage_and_life_goes_on(
    tmp_path: Path, change: str
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await something_to_do(place)
            with closing(sqlite3.connect(place.home / "journal.db")) as other:
                other.execute(change)
                other.commit()

            place.start_agent()

            await it_is_well_again(place)

    run_virtual(story)


def test_an_error_of_the_program_over_a_whole_journal_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a mistake of the program")

    async def story() -> None:
        async with a_place(tmp_path) as place:
            await something_to_do(place)
            epoch = place.epoch()
            monkeypatch.setattr("baserunner.control.look_at_supervisor", fail)
            with pytest.raises(BaseExceptionGroup) as failed:
                await place.live()
            assert failed.group_contains(TypeError, match="a mistake of the program")
            assert place.epoch() == epoch

    run_virtual(story)


def test_a_journal_that_is_deleted_under_the_agent_stops_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            await place.runs("1.0.0")
            await place.world.sleep(10)

            place.data.rename(tmp_path / "elsewhere")
            await place.world.sleep(2)
            place.set_release("1.1.0")
            caplog.clear()
            await it_is_degraded(place, caplog, "is missing")

            (tmp_path / "elsewhere").rename(place.data)
            await it_is_well_again(place)

    run_virtual(story)


# -- the directory ---------------------------------------------------------------------------------


def test_without_a_data_directory_nothing_is_made_and_it_goes_on_when_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            before = device(place)
            place.start_agent(make_data=False)
            await place.world.sleep(LONG_S)

            assert not place.data.exists()
            assert device(place) == before
            assert len(said(caplog, "is missing; mount a volume there")) == 1
            assert place.to_cloudly.requests == []
            assert not place.status().healthy

            place.data.mkdir()
            await place.until_state("enrollment/1", "enrolled")

    run_virtual(story)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, as /data is."""
    where = tmp_path / "volume"
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(where)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.strip()}")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def remount(where: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(where)], check=True)


def test_a_volume_that_turns_read_only_stops_everything_until_it_is_writable_again(
    tmp_path: Path, volume: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ext4 does that to itself after an error: errors=remount-ro."""

    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.data_root = volume
            await something_to_do(place)
            remount(volume, "ro")
            caplog.clear()

            place.start_agent()
            await it_is_degraded(place, caplog, "Read-only file system")

            remount(volume, "rw")
            await it_is_well_again(place)

    run_virtual(story)


def fill(volume: Path) -> Path:
    """Write until nothing fits any more."""
    ballast = volume / "somebody's film"
    piece = 1 << 20
    with ballast.open("wb", buffering=0) as film:
        while piece:
            try:
                film.write(b"x" * piece)
            except OSError:
                piece //= 2
    return ballast


def test_a_volume_that_is_full_stops_everything_until_there_is_room(
    tmp_path: Path, volume: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.data_root = volume
            await something_to_do(place)
            (place.home / "ballast").unlink()  # the reserve has been spent already
            film = fill(volume)
            caplog.clear()

            place.start_agent()
            await it_is_degraded(place, caplog, "full")

            film.unlink()
            await it_is_well_again(place)

    run_virtual(story)


def test_a_volume_that_fills_up_while_the_agent_works_loses_nothing(
    tmp_path: Path, volume: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Opening it again makes room for a few facts more, so that it is degraded, and lives, in turns."""

    async def story() -> None:
        async with a_place(tmp_path, every_s=20) as place:
            place.data_root = volume
            await something_to_do(place)
            (place.home / "ballast").unlink()
            film = fill(volume)
            with film.open("r+b") as shorter:
                shorter.truncate(film.stat().st_size - ROOM_BYTES)
            caplog.clear()

            place.start_agent()
            await place.until(lambda: bool(said(caplog, "full")))
            before = [fact.hash for fact in place.facts()]
            assert len(before) > FACTS_BEFORE
            await place.world.sleep(LONG_S)
            assert not place.agent_ended.is_set()
            assert 1 < len(said(caplog, "degraded")) < LONG_S / 60

            film.unlink()
            await it_is_well_again(place)
            assert [fact.hash for fact in place.facts()][: len(before)] == before

    run_virtual(story)
