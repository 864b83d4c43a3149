"""Bits flip anywhere in a journal's file: what reads it says so, or is told so, and a new epoch can always begin."""

from __future__ import annotations

import random  # noqa: TID251 - seeded: the same damage each time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal.facts import Lane
from journal.pages import PAGE_BYTES
from journal.problems import JournalProblem
from journal.reader import open_reader
from journal.recall import recall
from journal.salvage import salvage
from journal.succession import begin_epoch
from journal.survey import open_survey
from journal.verify import verify, what_is_wrong
from tests.journal.damage import Original, write_original
from tests.journal.given import MACHINE, open_at, ticking

FLIPS = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return write_original(tmp_path_factory.mktemp("flipped"), updates=12, ack=0.5)


def flip(place: Path, chance: random.Random) -> None:
    """Some bits of bytes that are not zero; the first pages, which say what the others are, more often than others."""
    file = place / "journal.db"
    data = bytearray(file.read_bytes())
    pages = [at for at in range(0, len(data), PAGE_BYTES) if any(data[at : at + PAGE_BYTES])]
    for _ in range(chance.choice((1, 1, 1, 4, 16))):
        page = chance.choice(pages if chance.random() < 0.6 else pages[:3])
        at = chance.choice([at for at in range(page, page + PAGE_BYTES) if data[at]])
        data[at] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    if chance.random() < 0.5:
        file.with_name("journal.db-wal").unlink(missing_ok=True)


def read(place: Path) -> None:
    with open_reader(place) as reader:
        reader.facts()
        for info in reader.streams("app-update"):
            recall(reader, info.name, MACHINE)
        verify(reader)


def survey(place: Path) -> None:
    with open_survey(place) as told:
        told.facts()


def write(place: Path) -> None:
    with open_at(place) as journal:
        journal.streams()
        journal.append("other/1", "began", "new", "begun")


def all_that_is_left(place: Path) -> None:
    found = salvage(place)
    assert all(fact for lane in Lane for fact in found.facts(lane))


def unsaid(act: Callable[[Path], None], place: Path) -> Iterator[str]:
    """Errors that neither say what is wrong with the journal nor are explained by a look at it."""
    try:
        act(place)
    except JournalProblem:
        return
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        try:
            with open_reader(place) as reader:
                wrong = what_is_wrong(reader)
        except JournalProblem as problem:
            wrong = str(problem)
        if not wrong:
            yield f"{act.__name__}: {error!r}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_flipped_it_is_said_and_a_new_epoch_begins(
    original: Original, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    for _ in range(FLIPS):
        place = original.copy(tmp_path / "copy")
        flip(place, chance)

        assert [said for act in (read, survey, write) for said in unsaid(act, place)] == []
        all_that_is_left(place)

        begin_epoch(
            place, stamp=ticking(), new_epoch=lambda: "f" * 32, why="salvaged", problem="", wanted=lambda _: True,
        )  # fmt: skip
        with open_at(place) as journal:
            assert journal.epoch == "f" * 32
            assert verify(journal).ok
