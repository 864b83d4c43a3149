"""The anchor outside the data directory notices a journal that is older than it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from baserunner.anchor import FILE, Anchor
from baserunner.problems import EpochOver
from journal.facts import Lane
from tests.journal.given import beat, open_at, write_story

OTHER = "ffeeddccbbaa99887766554433221100"


@pytest.fixture
def anchor(tmp_path: Path) -> Anchor:
    (tmp_path / "outside").mkdir()
    return Anchor(tmp_path / "outside")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_a_restored_copy_of_the_journal_has_lost_its_tail(anchor: Anchor, place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal)
    shutil.copytree(place, place.parent / "backup")
    with open_at(place) as journal:
        write_story(journal, attempt=2)
        anchor.hold(journal)

    with open_at(place.parent / "backup") as restored, pytest.raises(EpochOver) as over:
        anchor.check(restored)

    assert over.value.why == "tail-lost"
    assert "ends at 4, and had come to 8" in str(over.value)


def test_a_journal_that_went_another_way_is_forked(anchor: Anchor, place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal)
    shutil.copytree(place, place.parent / "backup")
    with open_at(place) as journal:
        write_story(journal, attempt=2)
        anchor.hold(journal)

    with open_at(place.parent / "backup") as restored:
        write_story(restored, attempt=3)
        with pytest.raises(EpochOver) as over:
            anchor.check(restored)

    assert over.value.why == "forked"


def test_another_epoch_is_an_old_copy_unless_it_says_that_it_follows(
    anchor: Anchor, place: Path
) -> None:
    with open_at(place) as journal:
        write_story(journal)
        anchor.hold(journal)
    (place.parent / "a").mkdir()
    (place.parent / "b").mkdir()

    with open_at(place.parent / "a", epoch=OTHER) as strange:
        write_story(strange)
        with pytest.raises(EpochOver, match="an old copy"):
            anchor.check(strange)
    with open_at(place.parent / "b", epoch=OTHER) as follower:
        follower.append("epoch/1", "epoch-began", "", "", {"from": journal.epoch})
        anchor.check(follower)


def test_facts_that_a_power_cut_may_take_are_not_held(anchor: Anchor, place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal)
        beat(journal, 5)
        anchor.hold(journal)

        held = json.loads((place.parent / "outside" / FILE).read_text())

        assert held["lanes"]["log"]["seq"] == 0
        assert journal.head(Lane.LOG).seq == 10


def anchored(epoch: str = '"e"', seq: str = "9", before: str = "[]") -> bytes:
    lane = f'{{"seq": {seq}, "hash": "{"00" * 32}"}}'
    lanes = f'{{"core": {lane}, "log": {lane}}}'
    return f'{{"epoch": {epoch}, "lanes": {lanes}, "before": {before}}}'.encode()


HOSTILE = [
    anchored(seq="1e999"),
    anchored(seq="-5"),
    anchored(seq="9" * 30),
    anchored(epoch='"' + "x" * 5000 + '"'),
    anchored(epoch='"\\ud800"'),
    anchored(before='["x"]'),
    anchored(before="5"),
    b"[" * 10_000,
    b" " * 1_000_000,
]
"""No agent wrote these: each of them ended the agent, or would have begun an epoch for nothing."""


def test_a_pipe_in_the_anchors_place_holds_up_nobody(anchor: Anchor, place: Path) -> None:
    os.mkfifo(place.parent / "outside" / FILE)

    with open_at(place) as journal:
        anchor.check(journal)

    assert json.loads((place.parent / "outside" / FILE).read_text())["epoch"] == journal.epoch


@pytest.mark.parametrize("is_new", [False, True], ids=["with a journal", "with a new journal"])
@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_an_anchor_of_nonsense_stops_nothing(
    anchor: Anchor, place: Path, content: bytes, *, is_new: bool
) -> None:
    (place.parent / "outside" / FILE).write_bytes(content)

    with open_at(place) as journal:
        if not is_new:
            write_story(journal)
        anchor.check(journal)

    assert json.loads((place.parent / "outside" / FILE).read_text())["epoch"] == journal.epoch


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"epoch": 1}', b"\xff" * 10])
def test_an_anchor_that_says_nothing_stops_nothing(
    anchor: Anchor, place: Path, content: bytes
) -> None:
    (place.parent / "outside" / FILE).write_bytes(content)

    with open_at(place) as journal:
        write_story(journal)
        anchor.check(journal)

    assert json.loads((place.parent / "outside" / FILE).read_text())["epoch"] == journal.epoch


def test_without_a_place_there_is_no_anchor(place: Path) -> None:
    nowhere = Anchor(None)

    with open_at(place) as journal:
        write_story(journal)
        nowhere.check(journal)
        nowhere.hold(journal)


def test_a_place_that_cannot_be_written_is_said_and_stops_nothing(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Anchor(place / "no such folder")

    with open_at(place) as journal:
        gone.check(journal)
        gone.hold(journal)

    assert caplog.text.count("cannot be written") == 1


def test_a_new_journal_on_a_device_that_had_another_says_so_first(
    anchor: Anchor, place: Path
) -> None:
    with open_at(place) as journal:
        write_story(journal)
        anchor.hold(journal)
    (place.parent / "new disk").mkdir()

    with open_at(place.parent / "new disk", epoch=OTHER) as fresh:
        anchor.check(fresh)
        first = fresh.facts()[0]

    assert first.kind == "epoch-began"
    assert first.values["from"] == journal.epoch
    assert first.values["lanes"]["core"]["lost"] == [[1, 4]]
