"""Readers beside the writer: they see all of it, block nothing, leave no file, and cannot make it lose anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from journal.facts import Lane
from journal.journal import Journal
from journal.problems import Damaged, NoJournal, NotWritable
from journal.reader import open_reader
from tests.journal.given import beat, copy_as_killed, everything, open_at, write_story


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_a_reader_beside_a_live_writer_sees_every_fact_at_once(
    journal: Journal, place: Path
) -> None:
    with open_reader(place) as reader:
        for attempt in range(1, 6):
            written = write_story(journal, attempt=attempt)
            beat(journal, 1)
            assert reader.facts(stream=f"app-update/{attempt}") == written
            assert reader.facts() == everything(journal)
            assert reader.streams() == journal.streams()
            assert reader.head(Lane.LOG) == journal.head(Lane.LOG)
    assert reader.epoch == journal.epoch


def test_a_reader_leaves_no_file_and_takes_none_away(journal: Journal, place: Path) -> None:
    write_story(journal)
    before = names(place)

    with open_reader(place) as reader:
        assert len(reader.facts()) == 4
        assert names(place) == before

    assert names(place) == before


def test_a_journal_that_was_closed_is_read_without_a_trace(place: Path) -> None:
    with open_at(place) as journal:
        written = write_story(journal)
    before = names(place)

    with open_reader(place) as reader:
        assert reader.facts() == written

    assert names(place) == before
    assert "journal.db-wal" not in before


def test_a_closed_journal_on_a_read_only_place_can_be_read(place: Path) -> None:
    with open_at(place) as journal:
        written = write_story(journal)
    place.chmod(0o555)
    (place / "journal.db").chmod(0o444)

    with open_reader(place / "journal.db") as reader:
        assert reader.facts() == written

    place.chmod(0o755)


def test_a_reader_that_came_before_the_writer_sees_what_it_writes(place: Path) -> None:
    open_at(place).close()
    with open_reader(place) as reader:
        assert reader.facts() == []

        with open_at(place) as journal:
            written = write_story(journal)
            assert reader.facts() == written

        assert reader.facts() == written
        assert reader.tail(1) == written[-1:]


def test_what_a_killed_writer_left_is_read_whole(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    written = write_story(journal)
    killed = copy_as_killed(place, tmp_path / "after")

    with open_reader(killed) as reader:
        assert reader.facts() == written


def test_a_reader_holds_nothing_that_lets_the_wal_grow(journal: Journal, place: Path) -> None:
    with open_reader(place) as reader:
        for attempt in range(1, 100):
            write_story(journal, attempt=attempt)
            reader.tail(1)
        pages = reader.pages(Lane.CORE, size=10)
        next(pages)  # a page half-way through the journal is no snapshot either
        for attempt in range(100, 200):
            write_story(journal, attempt=attempt)

        assert (place / "journal.db-wal").stat().st_size < 1_500_000


def test_a_reader_in_the_middle_of_a_query_does_not_block_the_writer(
    journal: Journal, place: Path
) -> None:
    write_story(journal)
    reader = open_reader(place)
    reader.facts()
    assert reader._connection is not None
    held = reader._connection.execute("SELECT seq FROM core")
    held.fetchone()

    written = write_story(journal, attempt=2)

    assert len(written) == 4
    held.close()
    reader.close()


def test_a_reader_cannot_write(journal: Journal, place: Path) -> None:
    write_story(journal)

    with open_reader(place) as reader, pytest.raises(NotWritable, match="SQLITE_READONLY"):
        reader._rows("DELETE FROM core", ())

    assert len(everything(journal)) == 4


def test_there_is_no_journal_to_read(place: Path) -> None:
    with pytest.raises(NoJournal):
        open_reader(place)

    assert names(place) == set()


def test_a_damaged_page_in_the_middle_is_said_when_it_is_read(place: Path) -> None:
    with open_at(place) as journal:
        for attempt in range(1, 120):
            write_story(journal, attempt=attempt)
    whole = bytearray((place / "journal.db").read_bytes())
    at = whole.index(b"app-update/50") // 4096 * 4096
    whole[at : at + 4096] = bytes(4096)
    (place / "journal.db").write_bytes(whole)

    with open_reader(place) as reader, pytest.raises(Damaged, match="SQLITE_CORRUPT"):
        reader.facts()


ONLOOKER = """
import pathlib, sys
from journal.facts import Lane
from journal.reader import open_reader
from journal.verify import verify
last, looks = 0, 0
with open_reader(pathlib.Path(sys.argv[1])) as reader:
    while last < 1200:
        facts = reader.facts(lane=Lane.CORE)
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))
        assert len(facts) >= last, "a fact that was seen is gone"
        assert verify(reader).ok
        last, looks = len(facts), looks + 1
print(looks)
"""


def test_an_onlooker_in_another_process_always_sees_a_whole_journal(
    journal: Journal, place: Path
) -> None:
    onlooker = subprocess.Popen(
        [sys.executable, "-c", ONLOOKER, str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    for attempt in range(1, 301):
        write_story(journal, attempt=attempt)

    looks, said = onlooker.communicate(timeout=60)
    assert onlooker.returncode == 0, said
    assert int(looks) > 0


CLI = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM core').fetchall(); c.close()"
AGENT = f"""
import os, pathlib, subprocess, sys
import tests.journal.given as given
from journal.facts import Lane
from journal.verify import verify
place = pathlib.Path(sys.argv[1])
journal = given.open_at(place)
given.write_story(journal)
for used in (journal.facts, journal.streams, journal.quick_check, lambda: verify(journal), journal.restore_reserve):
    used()
if sys.argv[2] == "open":
    (place / "journal.db").open("rb").close()      # "is this an SQLite file?"
subprocess.run([sys.executable, "-c", {CLI!r}, str(place / "journal.db")], check=True)
for attempt in range(2, 22):
    given.write_story(journal, attempt=attempt)
print(journal.head(Lane.CORE).seq, flush=True)
os._exit(9)
"""


def acknowledged_and_there(place: Path, how: str) -> tuple[int, int]:
    """A program that opens the journal for writing and closes it, beside a live agent that is then killed."""
    run = subprocess.run(
        [sys.executable, "-c", AGENT, str(place), how], capture_output=True, text=True, check=False
    )
    assert run.returncode == 9, run.stderr
    with open_at(place) as journal:
        return int(run.stdout), journal.head(Lane.CORE).seq


def test_another_program_that_opens_and_closes_the_journal_costs_no_fact(place: Path) -> None:
    acknowledged, there = acknowledged_and_there(place, "never open")

    assert there == acknowledged == 84


def test_that_harness_sees_the_facts_lost_when_the_file_is_opened_by_other_means(
    place: Path,
) -> None:
    acknowledged, there = acknowledged_and_there(place, "open")

    assert acknowledged == 84
    assert there < acknowledged


WATCHED = """
import pathlib, sys
import tests.journal.given as given
from journal import export
from journal.facts import Lane
from journal.reader import open_reader
from journal.verify import verify
place = pathlib.Path(sys.argv[1])
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
with given.open_at(place) as journal:
    given.write_story(journal)
    given.beat(journal, 400)
    head = journal.head(Lane.LOG)
    journal.ack(Lane.LOG, *head)
    journal.trim(keep=10)
    verify(journal)
    list(export.lines(journal))
    journal.spend_reserve(), journal.restore_reserve()
    with open_reader(place) as reader:
        reader.facts()
given.open_at(place).close()
with open_reader(place) as reader:
    reader.facts()
print(*sorted({pathlib.Path(path).name for path in opened if "data" in path}))
"""


def test_nothing_of_ours_opens_the_database_by_other_means_than_sqlite(place: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(place)], capture_output=True, text=True, check=True
    )

    opened = set(run.stdout.split())
    assert "journal.lock" in opened, "the watcher must see what is opened"
    assert not {name for name in opened if name.startswith("journal.db")}, run.stdout
