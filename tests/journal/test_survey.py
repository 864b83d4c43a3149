"""A survey answers what a slow and simple reading of everything answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.boots import Sought
from journal.facts import Fact, Lane, Stamp
from journal.journal import Journal
from journal.survey import Survey, open_survey

DAY_MS = 86_400_000


class Boots:
    """Stamps of three boots: one that knows the time, one told late, one never told, each an hour or a day apart."""

    def __init__(self) -> None:
        self.boot, self.mono_ms, self.true_ms = 0, 0, 20 * DAY_MS

    def __call__(self) -> Stamp:
        self.mono_ms += 1_000
        wall_ms = self.true_ms + self.mono_ms + (-7_000, -19 * DAY_MS, -5 * DAY_MS)[self.boot]
        told = (True, self.mono_ms > 4_000, False)[self.boot]
        skew_ms = self.true_ms + self.mono_ms - wall_ms if told else None
        return Stamp(wall_ms, f"boot-{self.boot}", self.mono_ms, skew_ms)

    def next(self) -> None:
        self.boot, self.mono_ms = self.boot + 1, 0
        self.true_ms += DAY_MS


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    directory: Path = tmp_path_factory.mktemp("survey")
    stamps = Boots()
    with Journal.open(directory, stamp=stamps, new_epoch=lambda: "e" * 32) as journal:
        for number in range(1, 7):
            name = f"app-update/{number}"
            journal.append(name, "offered", "new", "offered", {"deployment": f"d{number}"})
            journal.append(f"beat/{number}", "began", "new", "on", lane=Lane.LOG, soon=True)
            journal.note(name, "progressed", {"percent": number})
            journal.append(name, "done", "offered", "done", final=True)
            if number % 2 == 0 and number < 6:
                stamps.next()
    return open_survey(directory)


def everything(survey: Survey) -> list[Fact]:
    return survey.facts()


def believed(fact: Fact) -> int:
    """By what the fixture knows; the last boot was never told."""
    if fact.boot_id == "boot-2":
        return fact.at_ms
    return 20 * DAY_MS + int(fact.boot_id[-1]) * DAY_MS + fact.mono_ms


def naive(survey: Survey, sought: Sought) -> list[int]:
    return [
        fact.n
        for fact in everything(survey)
        if (sought.machine is None or fact.stream.partition("/")[0] == sought.machine)
        and (sought.streams is None or fact.stream in sought.streams)
        and (sought.since_ms is None or believed(fact) >= sought.since_ms)
        and (sought.until_ms is None or believed(fact) <= sought.until_ms)
        and fact.n > sought.after
        and (sought.before is None or fact.n < sought.before)
    ]


times = st.none() | st.integers(14 * DAY_MS, 24 * DAY_MS)
places = st.integers(0, 30)
asked = st.builds(
    Sought,
    machine=st.sampled_from([None, "app-update", "beat", "app"]),
    streams=st.none() | st.sampled_from([("app-update/1",), ("beat/2", "app-update/3"), ()]),
    since_ms=times,
    until_ms=times,
    after=places,
    before=st.none() | places,
)


@settings(max_examples=100, deadline=None)
@given(sought=asked, count=st.integers(0, 40))
def test_it_finds_what_a_reading_of_everything_finds(
    survey: Survey, sought: Sought, count: int
) -> None:
    expected = naive(survey, sought)

    assert [fact.n for fact in survey.each(sought)] == expected
    assert [fact.n for fact in survey.each(sought, newest=True)] == expected[::-1]
    assert [f.n for f in survey.find(sought, count)] == (expected[-count:] if count else [])
    assert [f.n for f in survey.find(sought, count, newest=False)] == expected[:count]
    kinds: Counter[str] = Counter()
    for lane in Lane:
        for kind, facts, _ in survey.kinds(lane, sought):
            kinds[kind] += facts
        assert sum(row[1] for row in survey.days(lane, sought)) == sum(
            1 for fact in survey.each(sought) if fact.lane is lane
        )
    assert sum(kinds.values()) == len(expected)


def test_boots_are_found_from_the_newest_with_their_ends(survey: Survey) -> None:
    facts = everything(survey)

    assert [(b.boot_id, b.first.n, b.last.n) for b in survey.boots()] == [
        (boot, *(pick(f.n for f in facts if f.boot_id == boot) for pick in (min, max)))
        for boot in ("boot-2", "boot-1", "boot-0")
    ]


def test_what_a_boot_was_told_later_is_known_for_its_earlier_facts(survey: Survey) -> None:
    early = {f.boot_id: f for f in reversed(everything(survey))}

    assert early["boot-1"].skew_ms is None
    assert survey.told_after(early["boot-1"]) == 21 * DAY_MS
    assert survey.told_after(early["boot-2"]) is None


def test_a_story_has_its_notes_in_their_place_and_nothing_of_others(survey: Survey) -> None:
    for number in range(1, 7):
        name = f"app-update/{number}"
        assert [f.n for f in survey.story(name)] == [
            f.n for f in everything(survey) if f.stream == name
        ]


def test_attempts_come_newest_first_and_a_deployment_is_found_by_its_beginning(
    survey: Survey,
) -> None:
    names = [attempt.info.name for attempt in survey.attempts()]

    assert names == [
        f"{machine}/{n}" for n in range(6, 0, -1) for machine in ("beat", "app-update")
    ]
    assert [a.info.name for a in survey.attempts("beat")] == [f"beat/{n}" for n in range(6, 0, -1)]
    assert survey.of_deployment("d3") == ("app-update/3",)
    assert len(survey.of_deployment("d")) == 6


def test_a_survey_sees_what_was_written_since_it_last_looked(tmp_path: Path) -> None:
    stamps = Boots()
    for number in (1, 2):
        with Journal.open(tmp_path, stamp=stamps, new_epoch=lambda: "e" * 32) as journal:
            journal.append(f"a/{number}", "began", "new", "on")
        if number == 1:
            there = open_survey(tmp_path)
            assert there.newest_n() == 1

    assert there.newest_n() == 2
    there.close()
