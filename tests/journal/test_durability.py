"""Soon facts wait for their flush, but not for ever: with the next durable one, by `sync`, by number, or by time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from journal.facts import Lane, Stamp
from journal.journal import SOON_FACTS, SOON_MS, Journal
from tests.journal.given import EPOCH, beat, open_at, write_story


def waiting(journal: Journal) -> int:
    return journal.head(Lane.LOG).seq - journal.durable_head(Lane.LOG).seq


def test_sync_makes_what_was_written_soon_shippable(journal: Journal) -> None:
    beat(journal, 3)
    assert waiting(journal) == 6

    assert journal.sync()

    assert waiting(journal) == 0
    assert not journal.sync(), "a second flush would be for nothing"


def test_sync_has_nothing_to_do_after_a_durable_fact(journal: Journal) -> None:
    beat(journal, 3)
    write_story(journal, upto=1)

    assert waiting(journal) == 0
    assert not journal.sync()


def test_sync_is_told_to_no_chain(journal: Journal) -> None:
    beat(journal, 1)
    before = journal.facts()

    journal.sync()
    beat(journal, 1)
    journal.sync()

    assert journal.facts()[:2] == before
    assert journal.newest_n() == 4


def test_never_more_than_so_many_facts_wait(journal: Journal) -> None:
    most = 0
    for _ in range(2 * SOON_FACTS):
        beat(journal, 1)
        most = max(most, waiting(journal))

    assert most == SOON_FACTS


def settable() -> tuple[dict[str, int], Callable[[], Stamp]]:
    now = {"ms": 0}
    return now, lambda: Stamp(now["ms"], "boot", now["ms"])


def test_a_fact_that_has_waited_long_takes_the_next_one_along(place: Path) -> None:
    now, stamp = settable()
    with Journal.open(place, stamp=stamp, new_epoch=lambda: EPOCH) as journal:
        beat(journal, 1)
        now["ms"] += SOON_MS - 1
        beat(journal, 1)
        assert waiting(journal) == 4

        now["ms"] += 1
        beat(journal, 1)

        assert waiting(journal) == 1, "the first of the two was flushed with all before it"


def test_closing_makes_everything_durable(place: Path) -> None:
    journal = open_at(place)
    beat(journal, 3)
    journal.close()

    with open_at(place) as again:
        assert again.meta("clean") == "0"
        assert (again.head(Lane.LOG).seq, waiting(again)) == (6, 0)
