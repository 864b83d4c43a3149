"""A power cut during a migration: the old schema or the new one, never half of it, at any of its writes.

The files are taken before every statement of the migration and after the last, and from each of these the WAL is cut
back by every half frame: that is all that a power cut can leave, since the database itself is only written by a
checkpoint. Each copy must open, and be whole.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journal import schema
from journal.connection import connect, settle
from journal.facts import Lane
from journal.reader import open_reader
from journal.recall import recall
from journal.verify import verify
from tests.journal.given import MACHINE, open_at

RECORDED = Path(__file__).parent / "recorded" / "version-1.db.gz"
FRAME = 24 + 4096
WAL_HEADER = 32


@pytest.fixture
def old(place: Path) -> Path:
    (place / "journal.db").write_bytes(gzip.decompress(RECORDED.read_bytes()))
    return place


class Watched(sqlite3.Connection):
    """A connection that tells of every statement before it runs: that is where a process dies, or a medium."""

    watch: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        type(self).watch()
        return super().execute(sql, *args)


def cuts(place: Path, to: Path, migrate: Callable[[sqlite3.Connection], None]) -> Iterator[Path]:
    """Copies of the files before each statement of the migration and after the last, and of each with a shorter WAL."""
    shots: list[dict[str, bytes]] = []

    def shoot() -> None:
        names = ("journal.db", "journal.db-wal")
        shots.append({n: (place / n).read_bytes() for n in names if (place / n).exists()})

    # By no other descriptor of this process may the database be opened while it is open: a copy is read elsewhere.
    address = f"file:{place / 'journal.db'}?psow=0&mode=rw"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, factory=Watched)
    settle(connection)
    Watched.watch = staticmethod(shoot)
    try:
        migrate(connection)
        shoot()
    finally:
        Watched.watch = staticmethod(lambda: None)
        connection.close()
    seen: set[tuple[tuple[str, bytes], ...]] = set()
    for shot in shots:
        wal = shot.get("journal.db-wal", b"")
        for end in (*range(WAL_HEADER, len(wal), FRAME // 2), len(wal)):
            files = {**shot, "journal.db-wal": wal[:end]}
            if (key := tuple(sorted(files.items()))) in seen:
                continue
            seen.add(key)
            copy = to / str(len(seen))
            copy.mkdir(parents=True)
            for name, content in files.items():
                (copy / name).write_bytes(content)
            yield copy


def shape(place: Path) -> tuple[int, bool, bool, int]:
    """The version, whether the new table and the new columns are there, and how many steps are recorded."""
    with closing(connect(place / "journal.db", mode="ro")) as reading:
        (version,) = reading.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in reading.execute("SELECT name FROM sqlite_master")}
        columns = {row[1] for row in reading.execute("PRAGMA table_info(core)")}
        (steps,) = reading.execute("SELECT count(*) FROM _sqlite_migrations").fetchone()
    return version, "tombstone" in tables, "skew_ms" in columns, steps


OLD, NEW = (1, False, False, 1), (2, True, True, 2)


def test_a_migration_that_is_cut_anywhere_has_happened_wholly_or_not_at_all(
    old: Path, tmp_path: Path
) -> None:
    found = {OLD: 0, NEW: 0}

    for copy in cuts(old, tmp_path / "cuts", schema.migrate):
        found[shape(copy)] += 1
        with open_at(copy) as journal:
            assert recall(journal, "app-update/2", MACHINE).record("succeeded").seq == 8
            assert journal.acked(Lane.CORE).seq == 4
            assert shape(copy) == NEW
        with open_reader(copy) as reader:
            assert verify(reader).ok
        shutil.rmtree(copy)

    assert found[OLD] >= 5, "the cuts came too late to be in the middle"
    assert found[NEW] >= 1


def test_that_harness_sees_a_migration_of_many_transactions(old: Path, tmp_path: Path) -> None:
    """The planted defect: each statement is committed by itself, as it was before they were one transaction."""

    class Bare:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.execute = connection.execute

    def in_pieces(connection: sqlite3.Connection) -> None:
        schema._second(Bare(connection))  # type: ignore[arg-type]
        connection.execute(f"PRAGMA user_version={schema.VERSION}")

    shapes = {shape(copy) for copy in cuts(old, tmp_path / "cuts", in_pieces)}

    assert shapes - {OLD, NEW}


def test_a_migration_that_is_recorded_without_its_version_is_finished(old: Path) -> None:
    """An earlier program wrote the version in a transaction of its own."""
    with closing(sqlite3.connect(old / "journal.db", isolation_level=None)) as earlier:
        schema.migrate(earlier)
        earlier.execute("PRAGMA user_version=1")

    with open_at(old) as journal:
        assert recall(journal, "app-update/2", MACHINE).record("succeeded").seq == 8
    assert shape(old) == NEW
