"""What an opening finds in the WAL may be in memory only: it is written again before it is called durable.

After a sync that failed Linux shows the pages, and never writes them again (tests/faults has a disk that does so).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from journal import connection, schema
from journal.connection import connect
from journal.problems import NotWritable
from journal.reader import open_reader
from tests.journal.given import copy_as_killed, everything, open_at, write_story


def test_what_an_earlier_writer_left_in_the_wal_is_in_the_database_once_it_is_open(
    place: Path, tmp_path: Path
) -> None:
    with open_at(place) as journal:
        written = write_story(journal)
        killed = copy_as_killed(place, tmp_path / "killed")

    with open_at(killed):
        (tmp_path / "without its wal").mkdir()
        alone = tmp_path / "without its wal" / schema.FILE
        alone.write_bytes((killed / schema.FILE).read_bytes())

    with open_reader(alone) as reader:
        assert reader.facts() == written


def test_a_reader_in_the_way_of_that_is_waited_for(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = [(n, 50, 50) if n == "busy_timeout" else (n, v, s) for n, v, s in connection.SETTINGS]
    monkeypatch.setattr(connection, "SETTINGS", tuple(hurried))
    with open_at(place) as journal:
        written = write_story(journal)
        killed = copy_as_killed(place, tmp_path / "killed")

    with closing(connect(killed / schema.FILE, mode="ro")) as slow:
        slow.execute("BEGIN")
        slow.execute("SELECT count(*) FROM core").fetchall()
        with pytest.raises(NotWritable, match="somebody has been reading it"):
            open_at(killed)

    with open_at(killed) as journal:
        assert everything(journal) == written
