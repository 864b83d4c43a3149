"""A belief goes into text and comes back the same; what is no belief of this program is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from journal.belief import from_text, to_text
from journal.facts import Lane
from journal.journal import Journal
from journal.problems import Parked
from journal.recall import freezer, recall
from journal.retention import UNKNOWN, Limits
from tests.journal.given import BEATING, MACHINE, MACHINES, Update


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Inner:
    pairs: tuple[tuple[str, int], ...] = ()
    mood: Mood = Mood.GOOD


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    other: Inner | None = None
    share: float = 0.0
    seen: frozenset[str] = frozenset()
    by_name: dict[str, Inner] = field(default_factory=dict)
    pair: tuple[str, int] = ("", 0)
    moods: list[Mood] = field(default_factory=list)


FULL = Outer(
    inner=Inner((("a", 1), ("b", 2)), Mood.BAD),
    other=Inner(mood=Mood.BAD),
    share=0.25,
    seen=frozenset({"x", "y"}),
    by_name={"one": Inner((("c", 3),))},
    pair=("p", 7),
    moods=[Mood.BAD, Mood.GOOD],
)


@pytest.mark.parametrize("belief", [Outer(), FULL, Outer(share=3)])
def test_a_belief_with_all_that_may_be_in_one_comes_back_the_same(belief: Outer) -> None:
    again = from_text(to_text(belief), Outer)

    assert again == belief
    assert to_text(again) == to_text(belief).replace('"share":3}', '"share":3.0}')


@pytest.mark.parametrize("belief", [0, 17, "words", True])
def test_plain_values_are_beliefs_too(belief: object) -> None:
    assert from_text(to_text(belief), type(belief)) == belief


def test_a_field_that_an_older_program_did_not_know_takes_its_default() -> None:
    assert from_text('{"share": 0.5}', Outer) == Outer(share=0.5)


@pytest.mark.parametrize(
    "text",
    [
        '{"share": 0.5, "wishes": []}',
        '{"inner": {"mood": "sour"}}',
        "[]",
        "null",
        "{",
        '{"share": "1"}',
    ],
)
def test_what_is_no_belief_of_this_program_is_refused(text: str) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_text(text, Outer)


def beating(journal: Journal, beats: int) -> None:
    stream = recall(journal, "heartbeat/1", BEATING)
    for _ in range(beats):
        stream.record("sent", soon=True)
        stream.record("answered", soon=True)


SMALL = Limits(keep_log=0, keep_core=0, keep_attempts=2, step=16)


def retain_all(journal: Journal, limits: Limits = SMALL) -> int:
    """Everything that Cloudly has, at any rate."""
    gone = 0
    while True:
        for lane in Lane:
            journal.ack(lane, *journal.durable_head(lane))
        step = journal.retain(limits, freezer(journal, MACHINES))
        gone += step.forgotten
        if not step.more:
            return gone


def test_an_open_stream_whose_beginning_went_goes_on_from_what_it_believed(
    journal: Journal,
) -> None:
    beating(journal, 40)
    journal.sync()
    before = recall(journal, "heartbeat/1", BEATING)

    assert retain_all(journal) >= 64

    after = recall(journal, "heartbeat/1", BEATING)
    assert (after.state, after.believed) == (before.state, before.believed) == ("resting", 40)
    assert after.facts < before.facts
    beating(journal, 3)
    assert recall(journal, "heartbeat/1", BEATING).believed == 43


def test_an_ended_attempt_whose_facts_went_is_still_known_with_all_it_believed(
    journal: Journal,
) -> None:
    beliefs = []
    for attempt in range(1, 9):
        stream = recall(journal, f"app-update/{attempt}", MACHINE)
        for kind in ("offered", "staged", "apply-requested", "asked-again", "succeeded"):
            stream.record(kind, {"release": f"1.0.{attempt}"})
        beliefs.append(stream.believed)

    assert retain_all(journal) >= 32

    names = [info.name for info in journal.streams("app-update")]
    assert names[-2:] == ["app-update/7", "app-update/8"], "the newest are kept"
    assert "app-update/1" not in names
    for name, believed in zip(("app-update/7", "app-update/8"), beliefs[-2:], strict=True):
        again = recall(journal, name, MACHINE)
        assert (again.believed, again.ended) == (believed, True)
    assert journal.next_stream_name("app-update") == "app-update/9"


def test_a_stream_trimmed_by_a_program_that_could_not_read_it_is_parked(journal: Journal) -> None:
    beating(journal, 40)
    journal.sync()
    journal.ack(Lane.LOG, *journal.head(Lane.LOG))

    assert journal.retain(SMALL, freezer(journal, {})).forgotten

    info = journal.stream("heartbeat/1")
    assert info is not None
    assert info.belief == UNKNOWN
    with pytest.raises(Parked, match="trimmed by a program that could not read it"):
        recall(journal, "heartbeat/1", BEATING)


def test_a_belief_that_a_newer_program_kept_parks_the_stream(journal: Journal) -> None:
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "1"})
    with journal._pen.transaction("a newer program", soon=False) as newer:
        newer.execute("UPDATE stream SET belief = '{\"wishes\":[]}', carried = 'new'")

    with pytest.raises(Parked, match="unknown here"):
        recall(journal, "app-update/1", MACHINE)


def test_freezing_and_thawing_is_the_machines_own_affair() -> None:
    believed = Update("2.0.0", 3, ("offered",))

    assert MACHINE.thaw(MACHINE.freeze(believed)) == believed
    assert BEATING.thaw(BEATING.freeze(4)) == 4
