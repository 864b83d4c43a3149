"""What goes, in which order, what stays in its place; and that it happens wholly or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from journal.facts import Fact, Lane, Stamp
from journal.journal import Journal
from journal.reader import open_reader
from journal.recall import freezer, recall
from journal.retention import DAY_MS, Limits, Retained
from journal.space import PAGES
from journal.summary import DAY_S, EVER_S, HOUR_S, KIND
from journal.tombstone import MOST, Tombstone
from journal.verify import verify
from tests.journal.given import (
    BEATING,
    EPOCH,
    MACHINE,
    MACHINES,
    beat,
    copy_as_killed,
    everything,
    open_at,
    write_story,
)

ROOMY = Limits(keep_log=10, keep_core=10, keep_attempts=3, step=20)
NO_ROOM = Limits(max_bytes=0, step=20, keep_attempts=3)


def ack_all(journal: Journal) -> None:
    journal.sync()
    for lane in Lane:
        journal.ack(lane, *journal.head(lane))


def retain(journal: Journal, limits: Limits) -> Retained:
    return journal.retain(limits, freezer(journal, MACHINES))


def retain_all(journal: Journal, limits: Limits, most: int = 500) -> list[Retained]:
    done = [retain(journal, limits)]
    while done[-1].more:
        done.append(retain(journal, limits))
        assert len(done) < most, "it never comes to an end"
    return done


def told(journal: Journal) -> list[Fact]:
    return [fact for fact in journal.facts(lane=Lane.LOG) if fact.kind == KIND]


def slow(
    step_ms: int, *, skew_ms: int | None = None, start_ms: int = 1_700_002_800_000
) -> Callable[[], Stamp]:
    """A clock that goes on by so much at every look; it begins at the beginning of an hour."""
    ticks = count(0)

    def stamp() -> Stamp:
        tick = next(ticks)
        return Stamp(start_ms + step_ms * tick, "boot", step_ms * tick, skew_ms)

    return stamp


# -- what goes first -----------------------------------------------------------------------------


def test_what_cloudly_has_not_stays_while_there_is_room(journal: Journal) -> None:
    write_story(journal)
    beat(journal, 200)

    assert retain(journal, ROOMY) == Retained()
    assert len(everything(journal)) == 404


def test_log_goes_before_core_and_both_keep_their_newest(journal: Journal) -> None:
    for attempt in range(1, 11):
        write_story(journal, attempt=attempt)
    beat(journal, 50)
    ack_all(journal)

    steps = [retain(journal, ROOMY) for _ in range(5)]
    core_then = journal.oldest(Lane.CORE)
    retain_all(journal, ROOMY)

    assert [step.forgotten for step in steps[:4]] == [20] * 4
    assert core_then == 1, "core waits for log"
    assert 10 <= len(journal.facts(lane=Lane.CORE)) < 10 + 10
    assert verify(journal).ok
    assert journal.tombstones(Lane.LOG) == journal.tombstones(Lane.CORE) == []


def test_an_attempt_that_goes_on_is_never_touched_whatever_the_pressure(journal: Journal) -> None:
    story = write_story(journal, upto=3)
    for attempt in range(2, 12):
        write_story(journal, attempt=attempt)
    beat(journal, 30)
    ack_all(journal)

    retain_all(journal, NO_ROOM)

    assert journal.facts(lane=Lane.CORE)[:3] == story
    assert recall(journal, "app-update/1", MACHINE).state == "applying"


def test_without_room_log_goes_before_its_ack_then_ended_stories_and_each_leaves_a_tombstone(
    journal: Journal, place: Path
) -> None:
    for attempt in range(1, 11):
        write_story(journal, attempt=attempt)
    beat(journal, 50)
    acked_hash = journal.prev_hash(Lane.LOG, 21)
    journal.sync()
    journal.ack(Lane.LOG, 20, acked_hash)

    steps = retain_all(journal, NO_ROOM)

    order = [bool(step.dropped) for step in steps if step.forgotten]
    (log,) = journal.tombstones(Lane.LOG)
    (core,) = journal.tombstones(Lane.CORE)
    assert order[0] is False, "what is acked goes first"
    assert (log.first_seq, log.why) == (21, "space")
    assert log.last_seq == journal.oldest(Lane.LOG) - 1
    assert log.kinds["sent"] + log.kinds["answered"] >= 70
    assert (core.first_seq, core.last_seq) == (1, 39), "the newest fact stays, and names with it"
    assert core.kinds["succeeded"] == 9
    assert [info.name for info in journal.streams("app-update")] == [
        "app-update/8",
        "app-update/9",
        "app-update/10",
    ]
    journal.close()
    with open_reader(place) as reader:
        assert reader.tombstones(Lane.LOG) == [log]
        assert reader.tombstones(Lane.LOG, after=log.last_seq) == []
        assert verify(reader).ok


def test_a_drop_is_durable_with_its_tombstone(journal: Journal) -> None:
    beat(journal, 50)
    assert journal.durable_head(Lane.LOG).seq == 0

    assert retain(journal, NO_ROOM).dropped == 20

    assert journal.durable_head(Lane.LOG) == journal.head(Lane.LOG)


def test_a_tombstone_goes_when_cloudly_has_passed_it(journal: Journal) -> None:
    beat(journal, 50)
    retain(journal, NO_ROOM)
    (stone,) = journal.tombstones(Lane.LOG)

    journal.ack(Lane.LOG, stone.last_seq, journal.prev_hash(Lane.LOG, stone.last_seq + 1))

    assert journal.tombstones(Lane.LOG) == []


def test_tombstones_of_a_lane_are_bounded_by_becoming_one(journal: Journal) -> None:
    from journal.tombstone import bury

    with journal._pen.transaction("many gaps", soon=True) as connection:
        for at in range(1, 100):
            why = "space" if at % 2 else "age"
            stone = Tombstone(Lane.LOG, 10 * at, 10 * at + 4, why, {f"k{at}": 5}, at, at + 1)
            bury(connection, stone)

    stones = journal.tombstones(Lane.LOG)
    assert len(stones) == MOST
    assert (stones[0].first_seq, stones[0].since_ms, stones[0].why) == (10, 1, "space")
    assert stones[-1].first_seq == 990
    assert sum(sum(stone.kinds.values()) for stone in stones) == 99 * 5
    assert max(len(stone.kinds) for stone in stones) <= 50


# -- summaries -----------------------------------------------------------------------------------


def test_heartbeats_become_one_note_per_hour_of_device_time(place: Path) -> None:
    with Journal.open(place, stamp=slow(150_000), new_epoch=lambda: EPOCH) as journal:
        beat(journal, 120)
        ack_all(journal)

        assert retain(journal, Limits(keep_log=20, step=200)).forgotten == 200

        hours = [fact.values for fact in told(journal)]
        counted: Counter[str] = Counter()
        for hour in hours:
            counted.update(hour["kinds"])
            assert hour["width_s"] == HOUR_S
            assert hour["since_ms"] // 3_600_000 == hour["until_ms"] // 3_600_000
        assert counted == {"sent": 100, "answered": 100}
        assert len(hours) == 9
        assert [hour["first_seq"] for hour in hours[1:]] == [h["last_seq"] + 1 for h in hours[:-1]]


def test_hours_become_days_and_days_one_sum_and_nothing_is_counted_twice_or_lost(
    place: Path,
) -> None:
    limits = Limits(keep_log=60, step=100)
    with Journal.open(place, stamp=slow(150_000), new_epoch=lambda: EPOCH) as journal:
        for _ in range(60):
            beat(journal, 50)
            ack_all(journal)
            while retain(journal, limits).forgotten:
                ack_all(journal)

        left = journal.facts(lane=Lane.LOG)
        counted = Counter(fact.kind for fact in left if fact.kind != KIND)
        for fact in told(journal):
            counted.update(fact.values["kinds"])
        widths = {fact.values["width_s"] for fact in told(journal)}

        assert (counted["sent"], counted["answered"]) == (3_000, 3_000)
        assert widths == {HOUR_S, DAY_S, EVER_S}
        assert len(left) < 250


def test_a_clock_that_jumps_about_leaves_no_more_notes_than_a_step_may_write(place: Path) -> None:
    years = count(1)

    def wild() -> Stamp:
        tick = next(years)
        return Stamp((tick * 7_919 % 80) * 365 * DAY_MS, "boot", tick)

    with Journal.open(place, stamp=wild, new_epoch=lambda: EPOCH) as journal:
        beat(journal, 100)
        ack_all(journal)

        assert retain(journal, Limits(keep_log=0, step=200)).forgotten == 200

        (one,) = told(journal)
        assert one.values["width_s"] == EVER_S
        assert one.values["kinds"] == {"sent": 100, "answered": 100}


# -- age -----------------------------------------------------------------------------------------

OLD = Limits(max_age_ms=2 * DAY_MS, step=100)


@pytest.mark.parametrize(
    ("skew_ms", "start_ms"),
    [
        pytest.param(0, 1_700_002_800_000, id="right"),
        pytest.param(1_700_002_800_000, 0, id="booted-in-1970-and-told-the-time"),
    ],
)
def test_what_is_known_to_be_too_old_goes_even_before_its_ack(
    place: Path, skew_ms: int, start_ms: int
) -> None:
    clock = slow(3_600_000, skew_ms=skew_ms, start_ms=start_ms)
    with Journal.open(place, stamp=clock, new_epoch=lambda: EPOCH) as journal:
        write_story(journal)
        beat(journal, 100)
        retain_all(journal, OLD)

        left = len(journal.facts(lane=Lane.LOG)) - len(told(journal))
        assert 40 <= left <= 50 + OLD.step // 2, "two days, and what is not yet worth a step"
        assert [stone.why for stone in journal.tombstones(Lane.LOG)] == ["age"]
        assert len(journal.facts(lane=Lane.CORE)) == 4, (
            "a story never goes for its age before its ack"
        )


def test_a_clock_that_nobody_has_set_right_makes_nothing_old(place: Path) -> None:
    """1970, then 2080, then 1970: without Cloudly's time, how old a fact is is not known."""
    jumps = iter([0, 3_471_292_800_000])
    at = {"ms": next(jumps)}

    def stamp() -> Stamp:
        return Stamp(at["ms"], "boot", 1)

    with Journal.open(place, stamp=stamp, new_epoch=lambda: EPOCH) as journal:
        beat(journal, 100)
        at["ms"] = next(jumps)
        assert retain(journal, OLD) == Retained()

        at["ms"] = 0
        assert retain(journal, OLD) == Retained()


# -- the last lines of what failed ---------------------------------------------------------------


def failing(journal: Journal, attempt: int, *, lines: int) -> None:
    stream = recall(journal, f"app-update/{attempt}", MACHINE)
    stream.record("offered", {"release": "1"})
    for line in range(lines):
        journal.note(stream.name, "progressed", {"percent": line})
        journal.note(stream.name, "supervisor-said", {"line": line, "attempt": attempt})
    stream.record("failed")


def test_the_last_lines_of_the_last_failed_attempts_survive_every_pressure(
    journal: Journal,
) -> None:
    for attempt in range(1, 8):
        failing(journal, attempt, lines=30)
    beat(journal, 300)
    limits = Limits(
        max_bytes=0,
        step=50,
        keep_attempts=10,
        progress=frozenset({"progressed"}),
        failed=frozenset({"failed"}),
        failed_attempts=2,
        failure_lines=5,
    )

    for _ in range(4):
        retain_all(journal, limits)
        beat(journal, 100)

    lines = [fact for fact in journal.facts(lane=Lane.LOG) if fact.kind == "supervisor-said"]
    kept = {(fact.stream, fact.values["line"]) for fact in lines}
    wanted = {(f"app-update/{attempt}", line) for attempt in (6, 7) for line in range(25, 30)}
    assert kept >= wanted
    assert {stream for stream, _ in kept} == {"app-update/6", "app-update/7"}
    assert all(fact.values["written"]["seq"] < fact.seq for fact in lines), "when it was first said"
    assert "progressed" not in {fact.kind for fact in journal.facts(lane=Lane.LOG)}
    (stone,) = journal.tombstones(Lane.LOG)
    assert stone.kinds["progressed"] == 210


def test_long_failure_lines_at_the_beginning_do_not_keep_what_is_behind_them(
    journal: Journal,
) -> None:
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "1"})
    for line in range(30):
        journal.note(stream.name, "lines", {"line": line, "text": "x" * 16_000})
    stream.record("failed")
    beat(journal, 600)
    limits = Limits(max_bytes=0, step=50, failed=frozenset({"failed"}), failure_lines=20)

    steps = retain_all(journal, limits)

    lines = [fact for fact in journal.facts(lane=Lane.LOG) if fact.kind == "lines"]
    assert [fact.values["line"] for fact in lines] == list(range(10, 30))
    assert steps[0].forgotten < 20, "what one step moves is bounded in bytes too"
    assert len(journal.facts(lane=Lane.LOG)) < 200


# -- wholly or not at all, and space -------------------------------------------------------------


def test_a_drop_happens_wholly_or_not_at_all(place: Path, tmp_path: Path) -> None:
    shots: list[Path] = []
    taking = {"pictures": False}

    def snapshot(at: str) -> None:
        if taking["pictures"]:
            shots.append(copy_as_killed(place, tmp_path / f"{len(shots)}-{at.replace(':', '-')}"))

    journal = open_at(place, points=snapshot)
    stream = recall(journal, "heartbeat/1", BEATING)
    for _ in range(30):
        stream.record("sent", soon=True)
        stream.record("answered", soon=True)
    before = everything(journal)
    taking["pictures"] = True
    retain(journal, NO_ROOM)
    after = everything(journal)
    journal.close()

    assert len(shots) == 2
    for shot, facts, stones in zip(shots, (before, after), (0, 1), strict=True):
        with open_at(shot) as again:
            assert everything(again) == facts
            assert len(again.tombstones(Lane.LOG)) == stones
            assert recall(again, "heartbeat/1", BEATING).believed == 30
            assert verify(again).ok


def test_after_a_big_shrink_the_file_shrinks_too_and_keeps_room_for_a_full_disk(
    journal: Journal, place: Path
) -> None:
    for _ in range(3_000):
        journal.note("app-update/1", "supervisor-said", {"line": "x" * 3_000})
    ack_all(journal)
    journal.close()
    large = (place / "journal.db").stat().st_size

    with open_at(place) as again:
        steps = retain_all(again, Limits(keep_log=100, step=500))
        left, free = again.used_bytes(), again.free_bytes()
        assert again.facts(lane=Lane.LOG)
        assert verify(again).ok
    small = (place / "journal.db").stat().st_size

    assert large > 11 << 20
    assert sum(step.freed_bytes for step in steps) > 8 << 20
    assert max(step.freed_bytes for step in steps) <= PAGES * 4096
    assert small < 4 << 20
    assert left < 2 << 20
    assert free >= 2 << 20, "a full disk needs it"
    with open_at(place) as at_last:
        assert verify(at_last).ok


def test_a_file_from_before_it_could_shrink_keeps_its_size_and_takes_new_facts(
    place: Path,
) -> None:
    open_at(place).close()
    import sqlite3

    older = sqlite3.connect(place / "journal.db", isolation_level=None)
    older.execute("PRAGMA journal_mode=DELETE")
    older.execute("PRAGMA auto_vacuum=NONE")
    older.execute("VACUUM")
    older.close()
    with open_at(place) as journal:
        for _ in range(1_500):
            journal.note("app-update/1", "supervisor-said", {"line": "x" * 3_000})
        ack_all(journal)
        full = journal.used_bytes() + journal.free_bytes()

        steps = retain_all(journal, Limits(keep_log=100, step=500))

        assert not journal.can_shrink()
        assert sum(step.freed_bytes for step in steps) == 0
        assert journal.used_bytes() + journal.free_bytes() == full


def test_keeping_under_the_limit_ends_there(journal: Journal) -> None:
    for _ in range(1_000):
        journal.note("app-update/1", "supervisor-said", {"line": "x" * 1_000})
    limits = Limits(max_bytes=300_000, step=50)

    retain_all(journal, limits)

    assert 200_000 < journal.used_bytes() <= 300_000
    assert retain(journal, limits) == Retained()


def test_the_newest_streams_are_found_without_reading_the_others(journal: Journal) -> None:
    for attempt in range(1, 8):
        write_story(journal, attempt=attempt)
    beat(journal, 2)

    newest = journal.streams("app-update", newest=2)

    assert [info.name for info in newest] == ["app-update/6", "app-update/7"]
    assert newest == journal.streams("app-update")[-2:]
    assert [info.name for info in journal.streams(newest=1)] == ["app-update/7", "heartbeat/1"]
    assert journal.machines() == ["app-update", "heartbeat"]
    assert journal.streams("reboot", newest=3) == []
