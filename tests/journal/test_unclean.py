"""After a stop without a close an opening looks closer, for a bounded time; what is damaged is said, and left alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import opening
from journal.facts import Lane, Stamp
from journal.journal import Journal
from journal.problems import Damaged
from journal.reader import open_reader
from journal.verify import verify
from tests.journal.given import EPOCH, copy_as_killed, files, open_at, tampering, write_story

STORIES = 400


def killed(place: Path, to: Path, *, stories: int = STORIES) -> Path:
    """A journal whose writer died: nearly all of it is in the database, its newest facts are in the WAL."""
    journal = open_at(place)
    for attempt in range(1, stories + 1):
        write_story(journal, attempt=attempt, soon=True)
    died = copy_as_killed(place, to)
    journal.close()
    return died


@pytest.fixture
def died(place: Path, tmp_path: Path) -> Path:
    return killed(place, tmp_path / "died")


def a_page_of_old_facts(place: Path) -> tuple[int, int]:
    """Where it lies in the file: not where a look at the newest facts would read."""
    at = (place / "journal.db").read_bytes().find(b"app-update/30offered")
    assert at > 0
    return at - at % 4096, at - at % 4096 + 4096


def test_the_file_says_whether_it_was_closed(place: Path, tmp_path: Path) -> None:
    journal = open_at(place)
    write_story(journal)
    copy = copy_as_killed(place, tmp_path / "copy")
    journal.close()

    with open_reader(place) as closed, open_reader(copy) as cut:
        assert opening.was_closed(closed)
        assert not opening.was_closed(cut)
    with open_at(copy):
        pass
    with open_reader(copy) as mended:
        assert opening.was_closed(mended)


def test_a_kill_alone_is_no_damage(died: Path) -> None:
    with open_at(died) as journal:
        assert verify(journal).ok
        assert journal.head(Lane.CORE).seq == 4 * STORIES


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda page: bytes(len(page)), id="zeroed"),
        pytest.param(lambda page: b"\xff" * len(page), id="overwritten"),
    ],
)
def test_old_pages_that_are_damaged_are_noticed_at_open(
    died: Path, damage: Callable[[bytes], bytes]
) -> None:
    first, last = a_page_of_old_facts(died)
    whole = (died / "journal.db").read_bytes()
    (died / "journal.db").write_bytes(whole[:first] + damage(whole[first:last]) + whole[last:])
    before = files(died)

    with pytest.raises(Damaged) as caught:
        open_at(died)

    assert "quick_check" in caught.value.seen or "SQLITE_CORRUPT" in caught.value.seen
    assert "nothing was changed" in caught.value.todo
    after = files(died)
    assert all(after[name] == before[name] for name in ("journal.db", "journal.db-wal"))


def test_after_a_proper_close_the_same_damage_is_left_to_verify(
    place: Path, tmp_path: Path
) -> None:
    """What opening costs there does not grow with the journal; the look is what the missing mark buys."""
    killed(place, tmp_path / "died")
    first, last = a_page_of_old_facts(place)
    whole = (place / "journal.db").read_bytes()
    (place / "journal.db").write_bytes(whole[:first] + bytes(last - first) + whole[last:])

    with open_at(place) as journal:
        assert not verify(journal).ok


def test_a_changed_old_fact_is_noticed_by_the_chain_though_sqlite_sees_nothing(died: Path) -> None:
    with tampering(died) as bits:
        bits.execute('UPDATE core SET data = \'{"release":"6.6.6"}\' WHERE seq = 5')
        assert bits.execute("PRAGMA quick_check").fetchall() == [("ok",)]

    with pytest.raises(Damaged, match="core: fact 5 is not what was written"):
        open_at(died)


def test_a_torn_wal_loses_its_tail_and_nothing_hangs_apart(died: Path) -> None:
    wal = (died / "journal.db-wal").read_bytes()
    (died / "journal.db-wal").write_bytes(wal[: len(wal) // 3] + bytes(len(wal) - len(wal) // 3))

    with open_at(died) as journal:
        assert verify(journal).ok
        assert journal.head(Lane.CORE).seq <= 4 * STORIES


def test_the_look_ends_when_its_time_is_over_and_the_newest_facts_are_looked_at_all_the_same(
    died: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stamp() -> Stamp:
        asked.append(1)
        return Stamp(1, "boot", len(asked) * opening.QUICK_CHECK_MS)

    monkeypatch.setattr(opening, "_STEPS", 10)
    Journal.open(died, stamp=stamp, new_epoch=lambda: EPOCH).close()
    assert 2 < len(asked) < 12, "it was not ended by its time"

    with tampering(died) as bits:
        bits.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
        bits.execute("UPDATE core SET data = '[]' WHERE seq = (SELECT max(seq) FROM core)")
    with pytest.raises(Damaged):
        Journal.open(died, stamp=stamp, new_epoch=lambda: EPOCH)


def test_a_long_journal_is_looked_at_as_far_back_as_the_bound_says(
    died: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tampering(died) as bits:
        bits.execute("UPDATE core SET data = '{}' WHERE seq = 5")
    again = tmp_path / "again"
    shutil.copytree(died, again)

    monkeypatch.setattr(opening, "LONGER_TAIL", 100)
    open_at(died).close()

    monkeypatch.setattr(opening, "LONGER_TAIL", 4 * STORIES)
    with pytest.raises(Damaged):
        open_at(again)
