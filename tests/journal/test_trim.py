"""The log lane forgets what Cloudly has; the chain, the names and the stories hold."""

from __future__ import annotations

from pathlib import Path

from journal.facts import Lane
from journal.journal import Journal
from journal.recall import recall
from journal.verify import verify
from tests.journal.given import (
    BEATING,
    beat,
    copy_as_killed,
    everything,
    open_at,
    write_story,
)


def ack_all(journal: Journal) -> None:
    for lane in Lane:
        journal.ack(lane, *journal.head(lane))


def test_what_is_not_acked_is_never_forgotten(journal: Journal) -> None:
    beat(journal, 50)

    assert journal.trim(keep=0, step=10) == 0

    journal.ack(Lane.LOG, 20, journal.prev_hash(Lane.LOG, 21))
    while journal.trim(keep=0, step=10):
        pass
    assert journal.oldest(Lane.LOG) == 21


def test_one_summary_says_what_one_trim_forgot(journal: Journal) -> None:
    beat(journal, 50)
    ack_all(journal)

    gone = journal.trim(keep=40, step=60)

    (summary,) = (fact for fact in everything(journal) if fact.kind == "heartbeats-summarised")
    assert gone == 60
    assert journal.oldest(Lane.LOG) == 61
    assert summary.is_note
    assert summary.values["kinds"] == {"sent": 30, "answered": 30}
    assert (summary.values["first_seq"], summary.values["last_seq"]) == (1, 60)
    assert summary.values["since_ms"] < summary.values["until_ms"]


def test_summaries_add_up_when_they_are_forgotten_themselves(journal: Journal) -> None:
    for _ in range(12):
        beat(journal, 25)
        ack_all(journal)
        while journal.trim(keep=10, step=20):
            ack_all(journal)

    left = everything(journal)
    told = [fact.values["kinds"] for fact in left if fact.kind == "heartbeats-summarised"]
    beats = sum(fact.kind == "answered" for fact in left)

    assert len(told) < 8, "summaries do not pile up"
    assert sum(kinds.get("answered", 0) for kinds in told) + beats == 12 * 25
    assert journal.oldest(Lane.LOG) > 500


def test_core_is_kept_and_the_rest_still_hangs_together(journal: Journal, place: Path) -> None:
    written = write_story(journal)
    beat(journal, 50)
    ack_all(journal)
    head = journal.head(Lane.LOG)

    assert journal.trim(keep=10, step=100) == 90

    assert journal.facts(lane=Lane.CORE) == written
    assert journal.prev_hash(Lane.LOG, 91) == journal.base(Lane.LOG).hash
    assert verify(journal).ok
    journal.close()
    with open_at(place) as again:
        assert again.head(Lane.LOG).seq == head.seq + 1
        assert verify(again).ok


def test_a_stream_whose_beginning_was_forgotten_is_recalled_in_the_state_it_has(
    journal: Journal, place: Path
) -> None:
    stream = recall(journal, "heartbeat/1", BEATING)
    for _ in range(20):
        stream.record("sent", soon=True)
        stream.record("answered", soon=True)
    stream.record("sent", soon=True)
    ack_all(journal)

    assert journal.trim(keep=0, step=30) == 30
    part = recall(journal, "heartbeat/1", BEATING)
    ack_all(journal)
    assert journal.trim(keep=0, step=12) == 12
    nothing_left = recall(journal, "heartbeat/1", BEATING)

    assert (part.state, part.believed, part.facts) == ("sending", 5, 11)
    assert (nothing_left.state, nothing_left.facts, nothing_left.ended) == ("sending", 0, False)
    assert nothing_left.record("answered").dst == "resting"
    journal.close()
    with open_at(place) as again:
        assert recall(again, "heartbeat/1", BEATING).state == "resting"
        assert again.stream("heartbeat/1") == again.open_streams()[0]


def test_ended_streams_are_forgotten_with_their_facts_and_their_names_are_not_given_again(
    journal: Journal,
) -> None:
    for run in range(1, 5):
        stream = recall(journal, journal.next_stream_name("heartbeat"), BEATING)
        assert stream.name == f"heartbeat/{run}"
        for kind in ("sent", "answered", "sent", "answered", "stopped"):
            stream.record(kind, soon=True)
    ack_all(journal)

    assert journal.trim(keep=0, step=20) == 20

    assert [info.name for info in journal.streams("heartbeat")] == ["heartbeat/4"]
    assert journal.streams("heartbeat")[0].state == "ended"
    assert journal.streams("heartbeat")[0].ended
    assert journal.next_stream_name("heartbeat") == "heartbeat/5"


def test_notes_of_an_update_go_without_touching_its_story(journal: Journal) -> None:
    written = write_story(journal, upto=2)
    for percent in range(100):
        journal.note("app-update/1", "progressed", {"percent": percent})
    ack_all(journal)

    assert journal.trim(keep=10, step=100) == 90

    assert journal.facts(lane=Lane.CORE, stream="app-update/1") == written
    assert [f.kind for f in journal.facts(stream="app-update/1")].count("progressed") == 10


def test_a_trim_happens_wholly_or_not_at_all(place: Path, tmp_path: Path) -> None:
    journal = open_at(place)
    beat(journal, 50)
    ack_all(journal)
    before = everything(journal)
    shots: list[Path] = []

    def snapshot(at: str) -> None:
        if at.endswith("heartbeats-summarised"):
            shots.append(copy_as_killed(place, tmp_path / at.replace(":", "-")))

    journal._points = snapshot
    journal.trim(keep=0, step=100)
    after = everything(journal)
    journal.close()

    assert len(shots) == 2
    for shot, expected in zip(shots, (before, after), strict=True):
        with open_at(shot) as again:
            assert everything(again) == expected
            assert verify(again).ok


def test_a_trim_waits_until_it_is_worth_a_summary(journal: Journal) -> None:
    beat(journal, 50)
    ack_all(journal)

    assert journal.trim(keep=90, step=100) == 0
    assert journal.trim(keep=50, step=100) == 50
