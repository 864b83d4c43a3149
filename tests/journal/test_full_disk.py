"""A full disk: nothing is half written, there is room to say so, and it goes on by itself when there is room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal import reserve
from journal.facts import Lane
from journal.journal import Journal
from journal.problems import NoSpace
from journal.reader import open_reader
from journal.retention import Limits
from journal.verify import verify
from tests.journal.given import everything, open_at, write_story


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB. A tmpfs says ENOSPC as ext4 does (reliability note)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "journal-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root with CAP_SYS_ADMIN")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Until not a byte more fits."""
    filler = disk / "somebody-elses.log"
    with filler.open("ab", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"x" * 4096)
    with filler.open("ab", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"x")
    return filler


def append_until_full(journal: Journal) -> int:
    """How many updates were acknowledged, each of four facts, before the disk said no."""
    for attempt in range(1, 20_000):
        try:
            write_story(journal, attempt=attempt)
        except NoSpace:
            return attempt
    pytest.fail("the disk was never full: the fault did not fire")


def test_a_full_disk_loses_nothing_and_the_reserve_makes_room_for_last_words(
    small_disk: Path,
) -> None:
    journal = open_at(small_disk)
    filler = fill(small_disk)
    attempt = append_until_full(journal)
    acknowledged = everything(journal)

    with pytest.raises(NoSpace):
        journal.append("doctor/1", "disk-full", "well", "ill", {"room": "x" * 6000})
    assert journal.spend_reserve()
    told = journal.append("doctor/1", "disk-full", "well", "ill")

    assert everything(journal) == [*acknowledged, told]
    assert not journal.spend_reserve(), "it is spent once"
    assert not journal.has_reserve

    filler.unlink()
    journal.append("doctor/1", "well-again", "ill", "well", final=True)
    write_story(journal, attempt=attempt + 1)
    assert journal.restore_reserve()
    assert journal.has_reserve
    assert verify(journal).ok
    journal.close()


def test_the_free_pages_of_a_new_journal_carry_thousands_of_facts_on_a_full_disk(
    small_disk: Path,
) -> None:
    journal = open_at(small_disk)
    fill(small_disk)

    append_until_full(journal)

    # The note's figure for this is 5,103 facts of the same size.
    assert journal.head(Lane.CORE).seq > 3_000
    journal.close()


def test_a_fact_that_did_not_fit_leaves_its_stream_where_it_was(small_disk: Path) -> None:
    journal = open_at(small_disk)
    filler = fill(small_disk)
    append_until_full(journal)
    before = journal.streams(), journal.head(Lane.CORE)

    with pytest.raises(NoSpace):
        journal.append("big/1", "k", "x", "y", {"much": "x" * 60_000})

    assert (journal.streams(), journal.head(Lane.CORE)) == before
    filler.unlink()
    assert journal.append("big/1", "k", "x", "y", {"much": "x" * 60_000}).seq == before[1].seq + 1
    journal.close()


def test_on_a_full_disk_a_journal_opens_at_the_price_of_its_reserve(small_disk: Path) -> None:
    with open_at(small_disk) as journal:
        written = write_story(journal)
        assert journal.has_reserve
    fill(small_disk)

    with open_at(small_disk) as again:
        assert everything(again) == written
        assert not again.has_reserve
        assert write_story(again, attempt=2)


def test_on_a_full_disk_without_reserve_opening_says_so_and_changes_nothing(
    small_disk: Path,
) -> None:
    with open_at(small_disk) as journal:
        written = write_story(journal)
        journal.spend_reserve()
    filler = fill(small_disk)
    whole = (small_disk / "journal.db").read_bytes()

    with pytest.raises(NoSpace):
        open_at(small_disk)

    assert (small_disk / "journal.db").read_bytes() == whole
    with open_reader(small_disk) as reader:
        assert reader.facts() == written, "a reader needs no room"
    filler.unlink()
    with open_at(small_disk) as again:
        assert everything(again) == written


def test_a_new_device_with_a_full_disk_is_told_and_has_no_half_journal(small_disk: Path) -> None:
    filler = fill(small_disk)

    with pytest.raises(NoSpace):
        open_at(small_disk)

    assert not (small_disk / "journal.db").exists()
    filler.unlink()
    with open_at(small_disk) as journal:
        assert write_story(journal)


def test_the_reserve_is_not_taken_from_a_disk_that_has_little_to_spare(small_disk: Path) -> None:
    with open_at(small_disk) as journal:
        journal.spend_reserve()
        filler = fill(small_disk)
        os.truncate(filler, filler.stat().st_size - 2 * reserve.BYTES)

        assert not journal.restore_reserve()

        filler.unlink()
        assert journal.restore_reserve()


def test_the_reserve_is_there_from_the_first_opening(place: Path) -> None:
    with open_at(place) as journal:
        assert journal.has_reserve
        assert (place / "ballast").stat().st_blocks * 512 >= reserve.BYTES, "no holes in it"


def test_on_a_full_disk_the_reserve_is_room_enough_to_forget_and_go_on_for_long(
    small_disk: Path,
) -> None:
    journal = open_at(small_disk)
    fill(small_disk)
    attempt = append_until_full(journal)
    journal.ack(Lane.CORE, *journal.durable_head(Lane.CORE))
    with pytest.raises(NoSpace):
        journal.retain(Limits(keep_core=100, keep_attempts=2))

    assert journal.spend_reserve()
    forgotten = 0
    while (step := journal.retain(Limits(keep_core=100, keep_attempts=2))).forgotten:
        forgotten += step.forgotten

    assert forgotten > 2_000
    for more in range(1, 500):
        write_story(journal, attempt=attempt + more)
    assert verify(journal).ok
    journal.close()


def test_on_a_full_disk_even_what_cloudly_has_not_can_go_and_a_tombstone_says_so(
    small_disk: Path,
) -> None:
    journal = open_at(small_disk)
    fill(small_disk)
    attempt = append_until_full(journal)

    assert journal.spend_reserve()
    step = journal.retain(Limits(max_bytes=0, keep_attempts=2))

    assert step.dropped == 500
    (stone,) = journal.tombstones(Lane.CORE)
    assert (stone.first_seq, stone.last_seq, stone.why) == (1, 500, "space")
    for more in range(1, 100):
        write_story(journal, attempt=attempt + more)
    assert verify(journal).ok
    journal.close()
