"""An older program's journal is read as it is and migrated by the first writer; a newer one says who may write it."""

from __future__ import annotations

import gzip
from itertools import count
from pathlib import Path

import pytest

from journal import schema
from journal.facts import Lane, Stamp
from journal.journal import Journal
from journal.reader import open_reader
from journal.recall import recall
from journal.verify import verify
from tests.journal.given import EPOCH, MACHINE, open_at, tampering, write_story

RECORDED = Path(__file__).parent / "recorded" / "version-1.db.gz"
"""Made by the first version of this room: one update, three heartbeats, half an update; the first update acked."""


@pytest.fixture
def old(place: Path) -> Path:
    (place / "journal.db").write_bytes(gzip.decompress(RECORDED.read_bytes()))
    return place


def test_a_reader_reads_a_journal_of_version_1_and_leaves_it_as_it_is(old: Path) -> None:
    before = (old / "journal.db").read_bytes()

    with open_reader(old) as reader:
        report = verify(reader)
        states = {info.name: info.state for info in reader.streams()}

    assert report.ok
    assert report.events == 13
    assert states == {
        "app-update/1": "succeeded",
        "app-update/2": "applying",
        "heartbeat/1": "resting",
    }
    assert (old / "journal.db").read_bytes() == before


def test_a_writer_migrates_version_1_and_goes_on_with_its_open_attempt(old: Path) -> None:
    with open_at(old) as journal:
        stream = recall(journal, "app-update/2", MACHINE)
        stream.record("succeeded")
        acked = journal.acked(Lane.CORE).seq

    with open_reader(old) as reader:
        assert verify(reader).ok
        assert reader._rows("PRAGMA user_version", ()) == [(schema.VERSION,)]
        assert reader.epoch == EPOCH
    assert stream.state == "succeeded"
    assert acked == 4


def test_a_fact_tells_how_far_its_wall_clock_can_be_trusted(place: Path) -> None:
    ticks, known = count(1), [None, -12, 3_600_000]

    def stamp() -> Stamp:
        tick = next(ticks)
        return Stamp(1_000 * tick, "boot", 1_000 * tick, known[tick % 3])

    with Journal.open(place, stamp=stamp, new_epoch=lambda: EPOCH) as journal:
        written = write_story(journal)

        assert journal.facts() == written
        assert {fact.skew_ms for fact in written} == set(known)
        assert verify(journal).ok


def test_a_skew_that_was_changed_afterwards_breaks_the_chain(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal)

    with tampering(place) as foreign:
        foreign.execute("UPDATE core SET skew_ms = 7 WHERE seq = 2")

    with open_reader(place) as reader:
        assert verify(reader).problems[0].seq == 2


def test_a_newer_journal_that_older_programs_may_write_is_gone_on_with(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal, upto=3)
    with tampering(place) as newer:
        newer.execute("ALTER TABLE core ADD COLUMN mood TEXT")
        newer.execute("PRAGMA user_version=99")

    with open_at(place) as journal:
        stream = recall(journal, "app-update/1", MACHINE)
        stream.record("succeeded")

        assert stream.ended
        assert journal._rows("PRAGMA user_version", ()) == [(99,)]
