"""After damage, and on a full disk, a new epoch begins: each old fact is carried, is evidence, or is told as lost."""

from __future__ import annotations

import random  # noqa: TID251 - seeded: the same damage each time
import shutil
from pathlib import Path

import pytest

from journal import carrying
from journal.facts import Fact, Lane
from journal.problems import NoSpace
from journal.recall import recall
from journal.reserve import Reserve
from journal.succession import Succession
from journal.verify import verify
from tests.journal.damage import Original, write_original
from tests.journal.given import MACHINE, beat, everything, open_at, tampering, write_story
from tests.journal.test_full_disk import fill, small_disk
from tests.journal.test_salvage import BY_KIND, SEED, Expected
from tests.journal.test_succession import NEW, begin, told

__all__ = ["small_disk"]
TRIALS = 3


@pytest.fixture(scope="session")
def acked(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """Two thirds of what the database holds is acked; the newest facts are in the WAL alone."""
    return write_original(tmp_path_factory.mktemp("acked"), updates=60, ack=0.66)


def seqs(ranges: list[list[int]]) -> set[int]:
    return {seq for first, last in ranges for seq in range(first, last + 1)}


def check_the_account(original: Original, begun: Succession, facts: list[Fact]) -> int:
    """Where each fact behind Cloudly's ack has gone, by what the device tells; how many had to be told as lost."""
    lost = 0
    copies = {told(fact) for fact in facts}
    for lane in Lane:
        account = begun.began["lanes"][lane.value]
        carried = {seq for seq, fact in original.facts[lane].items() if told(fact) in copies}
        evidence = {
            fact.values["seq"]
            for fact in facts
            if fact.kind == "salvaged" and fact.values["lane"] == lane
        }
        assert evidence == seqs(account["evidence"])
        gone = seqs(account["lost"])
        assert not gone & (carried | evidence), "what is called lost is not there"
        for seq in original.facts[lane]:
            # What the device cannot know of, Cloudly knows by its own ack and what it has heard.
            assert (
                seq <= account["acked"] or seq in carried | evidence | gone or seq > account["head"]
            )
        lost += len(gone)
    assert lost == begun.lost
    return lost


@pytest.mark.parametrize("row", BY_KIND)
def test_every_fact_is_carried_or_evidence_or_told_as_lost(
    acked: Original, row: Expected, tmp_path: Path
) -> None:
    for trial in range(TRIALS):
        print("seed", SEED + trial)  # noqa: T201 - pytest shows it when the trial fails
        place = acked.copy(tmp_path / "damaged")
        row.damage(acked, place, random.Random(SEED + trial))  # noqa: S311

        begun = begin(place)

        with open_at(place) as journal:
            assert journal.epoch == NEW
            assert verify(journal).ok
            check_the_account(acked, begun, everything(journal))
            write_story(journal, attempt=journal.newest_attempt("app-update") + 1)
            names = [fact.stream for fact in everything(journal) if fact.kind == "offered"]
            assert len(names) == len(set(names)), "no name is given twice"


def test_that_test_turns_red_when_evidence_is_neither_kept_nor_told(
    acked: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "_EVIDENCE", frozenset())
    monkeypatch.setattr(carrying, "_lost", lambda *_: [])
    place = acked.copy(tmp_path / "damaged")
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM core WHERE seq IN (200, 210)")

    begun = begin(place)

    with open_at(place) as journal, pytest.raises(AssertionError):
        check_the_account(acked, begun, everything(journal))


def test_a_hole_before_the_ack_costs_no_fact_that_cloudly_lacks(
    acked: Original, tmp_path: Path
) -> None:
    place = acked.copy(tmp_path / "damaged")
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM core WHERE seq BETWEEN 10 AND 20")

    begun = begin(place)

    core = begun.began["lanes"]["core"]
    assert (core["lost"], core["evidence"]) == ([], [])
    assert core["carried"] == [core["acked"] + 1, core["head"]]


# ------------------------------------------------------------------------------------------ broken streams


@pytest.fixture
def under_way(place: Path) -> Path:
    """An update that is under way, with another one begun after it, so that both lie side by side."""
    with open_at(place) as journal:
        write_story(journal, attempt=1, upto=2)
        write_story(journal, attempt=2, upto=1)
        journal.append("app-update/1", "apply-requested", "staged", "applying")
        journal.append("app-update/1", "asked-again", "applying", "applying")
        journal.append("app-update/2", "staged", "offered", "staged")
    return place


def test_a_stream_with_damage_inside_its_story_is_not_folded_and_a_note_says_so(
    under_way: Path,
) -> None:
    with tampering(under_way) as foreign:
        foreign.execute("UPDATE core SET at_ms = 1 WHERE seq = 4")

    begun = begin(under_way)

    assert set(begun.broken) == {"app-update/1", "app-update/2"}
    with open_at(under_way) as journal:
        assert journal.open_streams() == []
        assert journal.next_stream_name("app-update") == "app-update/3"
        notes = [fact for fact in everything(journal) if fact.kind == "stream-lost"]
        assert [fact.values for fact in notes] == [
            {"stream": "app-update/1", "lane": "core", "state": "applying", "verified": "staged"},
            {"stream": "app-update/2", "lane": "core", "state": "staged", "verified": "offered"},
        ]
        evidence = [fact.values for fact in everything(journal) if fact.kind == "salvaged"]
        assert [(each["seq"], each["trust"]) for each in evidence] == [(5, "proven"), (6, "proven")]
        assert verify(journal).ok


def test_a_stream_whose_tail_alone_is_lost_goes_on_from_where_it_is_verified(
    under_way: Path,
) -> None:
    with tampering(under_way) as foreign:
        foreign.execute("DELETE FROM core WHERE seq > 4")

    begun = begin(under_way)

    assert begun.broken == ()
    with open_at(under_way) as journal:
        assert recall(journal, "app-update/1", MACHINE).state == "applying"
        assert recall(journal, "app-update/2", MACHINE).state == "offered"


def test_a_stream_whose_end_was_lost_is_not_opened_again(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal)
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM core WHERE seq = 4")

    begun = begin(place, wanted=lambda _: True)

    assert begun.broken == ("app-update/1",)
    assert begun.began["lanes"]["core"]["lost"] == [[4, 4]]
    with open_at(place) as journal:
        assert journal.open_streams() == []


def test_evidence_is_bounded_and_the_rest_of_it_is_told_as_lost(place: Path) -> None:
    with open_at(place) as journal:
        for attempt in range(1, 201):
            write_story(journal, attempt=attempt)
        beat(journal, 10)
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM core WHERE seq = 5")

    begun = begin(place)

    core = begun.began["lanes"]["core"]
    assert begun.evidence == carrying.EVIDENCE_FACTS
    assert core["evidence"] == [[301, 800]]
    assert core["lost"] == [[5, 300]]


def test_damage_in_many_places_is_told_in_few_ranges(place: Path) -> None:
    with open_at(place) as journal:
        for attempt in range(1, 151):
            write_story(journal, attempt=attempt)
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM core WHERE seq % 2 = 0")

    begun = begin(place)

    core = begun.began["lanes"]["core"]
    assert core["lost"] == [[2, 600]]
    assert begun.evidence == 0


# ------------------------------------------------------------------------------------------ full disks


def test_on_a_full_disk_a_new_epoch_begins_from_the_reserve(small_disk: Path) -> None:
    with open_at(small_disk) as journal:
        write_story(journal, attempt=1)
        write_story(journal, attempt=2, upto=2)
    assert Reserve(small_disk).is_there()
    fill(small_disk)

    begun = begin(small_disk)

    assert begun.carried == 6
    assert begun.began["short_of_space"]
    assert not Reserve(small_disk).is_there()
    with open_at(small_disk) as journal:
        assert recall(journal, "app-update/2", MACHINE).state == "staged"
        assert verify(journal).ok


def test_where_there_is_room_for_little_less_is_carried_and_the_rest_is_told(
    small_disk: Path,
) -> None:
    with open_at(small_disk) as journal:
        for attempt in range(1, 40):
            journal.append(
                f"app-update/{attempt}",
                "failed",
                "offered",
                "failed",
                {"log": "x" * 30_000},
                final=True,
            )
    fill(small_disk)

    begun = begin(small_disk)

    core = begun.began["lanes"]["core"]
    assert (begun.carried, core["lost"]) == (0, [[1, 39]])
    assert begun.began["short_of_space"]
    with open_at(small_disk) as journal:
        assert journal.next_stream_name("app-update") == "app-update/40"


def test_where_nothing_can_be_written_the_old_journal_is_left_as_it_is(
    small_disk: Path,
) -> None:
    with open_at(small_disk) as journal:
        written = write_story(journal)
    Reserve(small_disk).spend()
    filler = fill(small_disk)

    with pytest.raises(NoSpace, match="begin a new epoch"):
        begin(small_disk)

    filler.unlink()
    with open_at(small_disk) as journal:
        assert everything(journal) == written
    assert not list(small_disk.glob("journal.succession*"))
    shutil.rmtree(small_disk / "kept", ignore_errors=True)
