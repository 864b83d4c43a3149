"""Waking up is reading: what is recalled is what was believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from journal.chart import Chart
from journal.facts import Fact
from journal.journal import Journal
from journal.problems import NotWritable, Parked
from journal.reader import open_reader
from journal.recall import Machine, recall
from tests.journal.given import CHART, MACHINE, Update, everything, fold, open_at, write_story


def test_a_stream_that_nobody_wrote_to_is_new(journal: Journal) -> None:
    stream = recall(journal, "app-update/1", MACHINE)

    assert (stream.state, stream.believed, stream.facts) == ("new", Update(), 0)
    assert (stream.entered, stream.last, stream.ended) == (None, None, False)


def test_what_is_recalled_is_what_was_believed(journal: Journal, place: Path) -> None:
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "2.0.0"})
    stream.record("staged")
    journal.note("app-update/1", "progressed", {"percent": 50})
    stream.record("apply-requested")
    stream.record("asked-again")
    journal.close()

    with open_at(place) as again:
        recalled = recall(again, "app-update/1", MACHINE)

    assert recalled.believed == stream.believed
    assert (recalled.state, recalled.facts) == (stream.state, stream.facts) == ("applying", 4)
    assert (recalled.entered, recalled.last) == (stream.entered, stream.last)


def test_every_prefix_of_a_story_resumes_to_the_same_story(tmp_path: Path) -> None:
    story = ["offered", "staged", "apply-requested", "asked-again", "succeeded"]
    ends = []

    for cut in range(len(story) + 1):
        home = tmp_path / str(cut)
        home.mkdir()
        with open_at(home) as first:
            begun = recall(first, "app-update/1", MACHINE)
            for kind in story[:cut]:
                begun.record(kind, {"release": "2.0.0"})
        with open_at(home) as second:
            resumed = recall(second, "app-update/1", MACHINE)
            for kind in story[cut:]:
                resumed.record(kind, {"release": "2.0.0"})
            ends.append((resumed.believed, resumed.state, resumed.facts, resumed.ended))

    assert ends == [ends[0]] * len(ends)
    assert ends[0][3]


def test_a_fact_that_stays_in_its_state_does_not_enter_it_again(journal: Journal) -> None:
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "2.0.0"})
    stream.record("staged")
    entered = stream.record("apply-requested").stamp

    again = stream.record("asked-again")

    assert stream.entered == entered
    assert stream.last == again


def test_a_fact_that_the_fold_cannot_digest_is_never_written(journal: Journal) -> None:
    stream = recall(journal, "app-update/1", MACHINE)

    with pytest.raises(KeyError):
        stream.record("offered", {"no": "release"})

    assert everything(journal) == []
    assert stream.state == "new"


def older(*, without: str) -> Machine[Update]:
    """The same machine as an older agent knows it."""
    chart = replace(CHART, arrows=tuple(arrow for arrow in CHART.arrows if arrow.kind != without))
    return Machine(chart, Update(), fold)


def test_a_kind_from_a_newer_agent_parks_the_stream_and_is_named(journal: Journal) -> None:
    write_story(journal, upto=3)
    journal.append("app-update/1", "asked-again", "applying", "applying")
    journal.append("app-update/1", "succeeded", "applying", "succeeded")

    with pytest.raises(Parked, match="asked-again") as parked:
        recall(journal, "app-update/1", older(without="asked-again"))

    assert parked.value.stream == "app-update/1"
    assert parked.value.fact is not None
    assert parked.value.fact.seq == 4


def test_an_arrow_that_leads_elsewhere_parks_the_stream(journal: Journal) -> None:
    journal.append("app-update/1", "offered", "new", "staged", {"release": "2.0.0"})

    with pytest.raises(Parked, match="'new' to 'staged', ours to 'offered'"):
        recall(journal, "app-update/1", MACHINE)


def test_data_that_the_fold_cannot_read_parks_the_stream(journal: Journal) -> None:
    journal.append("app-update/1", "offered", "new", "offered", {"image": "2.0.0"})

    with pytest.raises(Parked, match="release"):
        recall(journal, "app-update/1", MACHINE)


def test_other_streams_are_no_part_of_the_story(journal: Journal) -> None:
    one, other = (recall(journal, f"app-update/{n}", MACHINE) for n in (1, 2))
    one.record("offered", {"release": "1"})
    other.record("offered", {"release": "2"})
    one.record("staged")

    recalled = recall(journal, "app-update/1", MACHINE)

    assert recalled.believed.release == "1"
    assert recalled.facts == 2


def test_a_reader_recalls_and_cannot_record(journal: Journal, place: Path) -> None:
    write_story(journal, upto=2)

    with open_reader(place) as reader:
        stream = recall(reader, "app-update/1", MACHINE)
        assert stream.state == "staged"

        with pytest.raises(NotWritable):
            stream.record("apply-requested")

    assert len(everything(journal)) == 2


def test_a_fold_sees_on_recording_exactly_what_it_will_see_on_recall(journal: Journal) -> None:
    seen: list[Fact] = []

    def watching(_believed: None, fact: Fact) -> None:
        seen.append(fact)

    machine: Machine[None] = Machine(CHART, None, watching)
    recall(journal, "app-update/1", machine).record("offered", {"release": ("2", 0), "big": 2**60})
    recall(journal, "app-update/1", machine)

    recorded, recalled = seen
    assert recorded == recalled


def test_a_chart_without_the_recalled_state_parks_the_stream(journal: Journal) -> None:
    journal.append("app-update/1", "offered", "new", "offered", {"release": "1"})
    elsewhere = Chart(
        name="app-update",
        initial="asleep",
        arrows=tuple(replace(a, src="asleep" if a.src == "new" else a.src) for a in CHART.arrows),
        waits={("asleep" if s == "new" else s): w for s, w in CHART.waits.items()},
        final=CHART.final,
    )

    with pytest.raises(Parked, match="from 'new'"):
        recall(journal, "app-update/1", Machine(elsewhere, Update(), fold))
