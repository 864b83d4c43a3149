"""Opening says yes, or the one reason why not; and where it says no, it has changed nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import connection, schema
from journal.facts import Lane
from journal.journal import Journal
from journal.lock import holder
from journal.problems import (
    AlreadyRunning,
    Damaged,
    Foreign,
    FromTheFuture,
    NoJournal,
    NotDurable,
    NotWritable,
)
from journal.reader import open_reader
from tests.journal.given import (
    EPOCH,
    beat,
    copy_as_killed,
    everything,
    files,
    open_at,
    tampering,
    write_story,
)


def unchanged(before: dict[str, bytes], place: Path) -> bool:
    """Shared memory is rebuilt from the rest, an empty WAL says nothing, and the lock names who tried last."""
    passing = {"journal.db-shm", "journal.lock"}
    after = {name: seen for name, seen in files(place).items() if name not in passing and seen}
    return after == {name: seen for name, seen in before.items() if name not in passing and seen}


def test_the_epoch_is_drawn_once(place: Path) -> None:
    with open_at(place, epoch=EPOCH) as first:
        assert first.epoch == EPOCH

    with open_at(place, epoch="another") as second:
        assert second.epoch == EPOCH


def test_every_opening_is_counted(place: Path) -> None:
    for _ in range(3):
        open_at(place).close()

    with tampering(place) as look:
        assert look.execute("SELECT value FROM meta WHERE name = 'opened'").fetchone() == ("3",)


def test_a_second_writer_is_refused_and_the_first_is_named(journal: Journal, place: Path) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        open_at(place)

    assert caught.value.pid == os.getpid()
    assert caught.value.since is not None
    assert holder(place) == os.getpid()
    assert write_story(journal)


def test_the_lock_dies_with_its_process(place: Path) -> None:
    program = (
        "import os, pathlib, tests.journal.given as g\n"
        f"journal = g.open_at(pathlib.Path({str(place)!r})); g.write_story(journal); os._exit(9)"
    )
    died = subprocess.run([sys.executable, "-c", program], check=False)

    assert died.returncode == 9
    assert holder(place) is None
    with open_at(place) as journal:
        assert len(everything(journal)) == 4


def test_who_only_looks_for_the_writer_does_not_keep_one_from_starting(place: Path) -> None:
    import fcntl

    open_at(place).close()
    looking = os.open(place / "journal.lock", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    let_go_after = iter(range(5))

    def yielding() -> None:
        if next(let_go_after, None) is None:
            fcntl.flock(looking, fcntl.LOCK_UN)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_yield", yielding)
        open_at(place).close()

    os.close(looking)
    assert next(let_go_after, None) is None


def test_a_lock_held_without_a_name_in_it_is_still_a_lock(journal: Journal, place: Path) -> None:
    (place / "journal.lock").write_bytes(b"")

    with pytest.raises(AlreadyRunning, match="another process is writing") as caught:
        open_at(place)

    assert caught.value.pid is None
    journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"\0" * 100 + whole[100:], id="header-zeroed"),
        pytest.param(lambda whole: b"\xff" * 4096 + whole[4096:], id="first-page-overwritten"),
        pytest.param(lambda _: b"this is no database, it is a text\n" * 200, id="not-a-database"),
        pytest.param(lambda _: b"", id="truncated-to-nothing"),
        pytest.param(lambda whole: whole[:4096], id="truncated-to-a-page"),
        pytest.param(lambda whole: bytes(len(whole)), id="all-nulls"),
        pytest.param(lambda whole: whole[:70_000] + bytes(len(whole) - 70_000), id="tail-zeroed"),
    ],
)
def test_a_damaged_journal_is_refused_and_left_as_it_is(
    place: Path, damage: Callable[[bytes], bytes]
) -> None:
    with open_at(place) as journal:
        for attempt in range(1, 120):
            write_story(journal, attempt=attempt)
    whole = (place / "journal.db").read_bytes()
    (place / "journal.db").write_bytes(damage(whole))
    before = files(place)

    with pytest.raises(Damaged) as caught:
        open_at(place)

    assert "nothing was changed" in caught.value.todo
    assert unchanged(before, place)
    assert holder(place) is None


def test_a_database_of_somebody_else_is_refused_and_never_salvaged(place: Path) -> None:
    with tampering(place) as other:
        other.execute("CREATE TABLE theirs (x)")
    before = files(place)

    with pytest.raises(Foreign, match="not a journal") as caught:
        open_at(place)
    with pytest.raises(Foreign):
        open_reader(place)

    assert not isinstance(caught.value, Damaged)
    assert "move it away" in caught.value.todo
    assert unchanged(before, place)


def test_a_journal_that_lost_its_application_id_is_damaged_and_not_somebody_elses(
    place: Path,
) -> None:
    open_at(place).close()
    with tampering(place) as bits:
        bits.execute("PRAGMA application_id=0")

    with pytest.raises(Damaged, match="a journal's tables"):
        open_at(place)


def test_a_wal_whose_journal_is_gone_is_not_taken_for_a_new_device(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    write_story(journal)
    killed = copy_as_killed(place, tmp_path / "after")
    (killed / "journal.db").unlink()
    before = files(killed)

    with pytest.raises(Damaged, match="still there"):
        open_at(killed)

    assert unchanged(before, killed)


def test_a_journal_from_the_future_is_refused_and_left_as_it_is(place: Path) -> None:
    open_at(place).close()
    with tampering(place) as newer:
        newer.execute(f"PRAGMA user_version={schema.VERSION + 1}")
        newer.execute("UPDATE meta SET value = '99' WHERE name = 'oldest_writer'")
        newer.execute("ALTER TABLE core ADD COLUMN mood TEXT")
    before = files(place)

    with pytest.raises(FromTheFuture) as caught:
        open_at(place)
    with pytest.raises(FromTheFuture):
        open_reader(place)

    assert (caught.value.found, caught.value.known) == (schema.VERSION + 1, schema.VERSION)
    assert unchanged(before, place)


@pytest.mark.parametrize(
    "sql",
    [
        'UPDATE core SET data = \'{"release":"6.6.6"}\' WHERE seq = 3',
        "DELETE FROM core WHERE seq = 3",
        "UPDATE cursor SET seq = 99 WHERE lane = 'core'",
        "UPDATE cursor SET seq = 4, hash = zeroblob(32) WHERE lane = 'core'",
        "DELETE FROM base",
        "DELETE FROM core; DELETE FROM base",
    ],
)
def test_a_tail_that_does_not_hang_together_is_refused(place: Path, sql: str) -> None:
    with open_at(place) as journal:
        write_story(journal)
    with tampering(place) as changing:
        changing.executescript(sql)

    with pytest.raises(Damaged):
        open_at(place)


def test_a_missing_directory_is_named_and_not_made(tmp_path: Path) -> None:
    nowhere = tmp_path / "data"

    with pytest.raises(NotWritable, match="No such file or directory"):
        open_at(nowhere)
    with pytest.raises(NoJournal):
        open_reader(nowhere)

    assert not nowhere.exists()


AS_NOBODY = """
import os, pathlib, sys
import tests.journal.given as given
from journal.problems import NotWritable
os.setgid(65534); os.setuid(65534)
try: given.open_at(pathlib.Path(sys.argv[1]))
except NotWritable as problem: print(problem)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become somebody without rights")
@pytest.mark.parametrize("locked", ["directory", "journal"])
def test_a_place_of_somebody_else_is_refused(place: Path, locked: str) -> None:
    open_at(place).close()
    for path in (*place.parents, place)[-4:]:
        path.chmod(0o755)
    if locked == "journal":
        place.chmod(0o777)
        (place / "journal.lock").chmod(0o666)
        (place / "journal.db").chmod(0o444)

    run = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(place)], capture_output=True, text=True, check=False
    )

    assert "check the volume's mount" in run.stdout or "mount the data volume" in run.stdout, run


def test_a_creation_that_was_cut_short_is_begun_again(place: Path) -> None:
    (place / "journal.db.new").write_bytes(b"half")
    (place / "journal.db.new-wal").write_bytes(b"of it")

    with open_at(place) as journal:
        assert write_story(journal)
        assert not list(place.glob("*.new*"))


def test_a_place_that_cannot_do_wal_is_refused() -> None:
    # SQLite has no WAL in memory, whatever it is asked for.
    in_memory = sqlite3.connect(":memory:", isolation_level=None)

    with pytest.raises(NotDurable, match="journal_mode=WAL reads back as 'memory'"):
        connection.settle(in_memory)

    in_memory.close()


class Deaf(sqlite3.Connection):
    """An SQLite that does not take synchronous=FULL, as some builds are configured."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *args)


def test_a_place_that_does_not_sync_is_refused(place: Path) -> None:
    open_at(place).close()
    deaf = sqlite3.connect(place / "journal.db", isolation_level=None, factory=Deaf)

    with pytest.raises(NotDurable, match="synchronous=FULL reads back as 0"):
        connection.settle(deaf)

    deaf.close()


def test_a_journal_left_in_delete_mode_is_written_in_wal_with_full_sync_again(place: Path) -> None:
    open_at(place).close()
    with tampering(place) as other:
        assert other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)

    with open_at(place) as journal:
        assert journal._rows("PRAGMA journal_mode", ()) == [("wal",)]
        assert journal._rows("PRAGMA synchronous", ()) == [(2,)]


def test_the_wal_is_at_its_working_size_from_the_start_and_stays_there(place: Path) -> None:
    with open_at(place) as journal:
        from_the_start = connection.wal_bytes(place / "journal.db")
        for attempt in range(1, 200):
            write_story(journal, attempt=attempt)
        later = connection.wal_bytes(place / "journal.db")

    assert from_the_start > 900_000
    assert later <= from_the_start * 1.2


def test_the_tables_are_strict_and_a_fact_costs_no_index(journal: Journal) -> None:
    indices = journal._rows("SELECT tbl_name FROM sqlite_master WHERE type = 'index'", ())
    tables: dict[str, str] = dict(
        journal._rows("SELECT name, sql FROM sqlite_master WHERE type = 'table'", ())
    )

    assert not {"core", "log"} & {name for (name,) in indices}
    assert "STRICT" in tables["core"]
    assert tables["core"].replace("core", "log", 1) == tables["log"]
    assert "sqlite_sequence" not in tables
    assert "_sqlite_migrations" in tables


def test_migrating_what_is_up_to_date_changes_nothing(place: Path) -> None:
    open_at(place).close()
    before = files(place)["journal.db"]

    with tampering(place) as again:
        schema.migrate(again)

    assert files(place)["journal.db"] == before


def test_an_older_schema_is_brought_up_to_date_with_its_facts(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_at(place) as journal:
        written = write_story(journal)

    def _mood(db: Any) -> None:
        db.execute("CREATE TABLE mood (said TEXT) STRICT")

    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, _mood))
    monkeypatch.setattr(schema, "VERSION", 3)
    with open_at(place) as newer:
        assert everything(newer) == written
        assert newer._rows("PRAGMA user_version", ()) == [(3,)]
        assert newer._rows("SELECT count(*) FROM mood", ()) == [(0,)]


def test_what_was_open_goes_on_after_opening_again(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal, upto=2)
        beat(journal, 2)

    with open_at(place) as again:
        assert [info.name for info in again.open_streams()] == ["app-update/1", "heartbeat/1"]
        assert again.append("app-update/1", "apply-requested", "staged", "applying").n == 7
        assert again.head(Lane.LOG).seq == 4
        assert len(again.open_streams()) == 2


@pytest.mark.parametrize("name", ["CAST(x'C2C2' AS TEXT)", "'log'"], ids=["no text", "text"])
def test_a_schema_that_sqlite_quotes_in_its_complaint_is_damage(place: Path, name: str) -> None:
    with open_at(place) as journal:
        write_story(journal)
    with tampering(place) as foreign:
        foreign.execute("PRAGMA writable_schema=ON")
        garbled = f"UPDATE sqlite_schema SET name={name}, sql='CREATE no sense' WHERE name='log'"  # noqa: S608
        foreign.execute(garbled)

    with pytest.raises(Damaged):
        open_at(place)
    with pytest.raises(Damaged), open_reader(place) as reader:
        reader.facts()
