"""The writer: durable, chained, in order, and never half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journal.chain import genesis, link
from journal.facts import MAX_DATA, Head, Lane
from journal.journal import Journal
from journal.problems import IllegalFact, Malformed, WriteFailed
from journal.reader import open_reader
from journal.recall import recall
from tests.journal.given import (
    BEATING,
    EPOCH,
    MACHINE,
    beat,
    copy_as_killed,
    everything,
    open_at,
    write_story,
)


def test_a_fact_is_there_after_the_process_died_right_behind_the_append(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    written = write_story(journal)

    killed = copy_as_killed(place, tmp_path / "after")

    with open_at(killed) as again:
        assert everything(again) == written


def test_facts_are_chained_from_genesis(journal: Journal) -> None:
    first, second, *_ = write_story(journal)

    assert first.follows(genesis(EPOCH, Lane.CORE))
    assert second.follows(first.hash)
    assert not second.follows(genesis(EPOCH, Lane.CORE))


def test_the_hash_covers_every_field_of_a_fact() -> None:
    fields: dict[str, Any] = {
        "lane": "core",
        "seq": 1,
        "n": 2,
        "stream": "a/1",
        "kind": "k",
        "src": "s",
        "dst": "d",
        "at_ms": 3,
        "boot_id": "b",
        "mono_ms": 4,
        "data": "{}",
    }
    whole = link(b"p" * 32, **fields)

    changed = {
        name: link(b"p" * 32, **{**fields, name: value + (1 if isinstance(value, int) else "x")})
        for name, value in fields.items()
    }

    assert whole not in changed.values()
    assert link(b"q" * 32, **fields) != whole


def test_text_that_moves_from_one_field_to_the_next_changes_the_hash() -> None:
    same: dict[str, Any] = {
        "lane": "core",
        "seq": 1,
        "n": 1,
        "at_ms": 0,
        "mono_ms": 0,
        "boot_id": "",
        "data": "{}",
    }

    one = link(b"", stream="a/1", kind="ab", src="c", dst="d", **same)
    other = link(b"", stream="a/1", kind="a", src="bc", dst="d", **same)

    assert one != other


def test_each_lane_counts_for_itself_and_n_counts_both(journal: Journal) -> None:
    write_story(journal, upto=2)
    beat(journal, 1)
    write_story(journal, attempt=2, upto=1)

    facts = everything(journal)

    assert [(f.lane.value, f.seq, f.n) for f in facts] == [
        ("core", 1, 1),
        ("core", 2, 2),
        ("log", 1, 3),
        ("log", 2, 4),
        ("core", 3, 5),
    ]


def test_an_illegal_fact_writes_nothing_and_says_what_may_follow(journal: Journal) -> None:
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "2.0.0"})

    with pytest.raises(IllegalFact, match="'offered', where only staged, failed may follow"):
        stream.record("succeeded")

    assert stream.state == "offered"
    assert [fact.kind for fact in everything(journal)] == ["offered"]


def test_soon_facts_become_durable_with_the_next_durable_fact(journal: Journal) -> None:
    beat(journal, 3)
    before = journal.durable_head(Lane.LOG)

    write_story(journal, upto=1)

    assert before.seq == 0
    assert journal.durable_head(Lane.LOG) == journal.head(Lane.LOG)
    assert journal.durable_head(Lane.CORE).seq == 1


def test_soon_facts_of_a_killed_process_are_durable_once_it_is_open_again(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    beat(journal, 3)
    assert journal.durable_head(Lane.LOG).seq == 0

    killed = copy_as_killed(place, tmp_path / "after")

    with open_at(killed) as again:
        assert again.durable_head(Lane.LOG).seq == 6


def test_a_soon_fact_is_not_synced_and_the_next_durable_one_is(journal: Journal) -> None:
    def syncs() -> int:
        ((level,),) = journal._rows("PRAGMA synchronous", ())
        return int(level)

    beat(journal, 1)
    after_soon = syncs()
    write_story(journal, upto=1)

    assert (after_soon, syncs()) == (1, 2)


def test_the_data_is_kept_as_the_one_canonical_text(journal: Journal) -> None:
    fact = journal.append("a/1", "k", "x", "y", {"b": [1, 2.5, None], "a": "Zürich"})

    assert fact.data == '{"a":"Z\\u00fcrich","b":[1,2.5,null]}'
    assert fact.values == {"a": "Zürich", "b": [1, 2.5, None]}
    assert everything(journal) == [fact]


@pytest.mark.parametrize(
    "data",
    [
        {"secret": object()},
        {"nan": float("nan")},
        {"text": "x" * MAX_DATA},
        {1: "a", "b": "c"},
    ],
    ids=["not-json", "nan", "too-long", "mixed-keys"],
)
def test_data_that_cannot_be_kept_writes_nothing(journal: Journal, data: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        journal.append("a/1", "k", "x", "y", data)

    assert everything(journal) == []
    assert journal.append("a/1", "k", "x", "y", {}).seq == 1


def test_what_does_not_fit_names_a_type_and_never_a_value(journal: Journal) -> None:
    class Token:
        def __repr__(self) -> str:
            return "bnt_canary"

    with pytest.raises(Malformed) as caught:
        journal.append("a/1", "k", "x", "y", {"token": Token()})

    assert "Token" in str(caught.value)
    assert "bnt_canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a", "a/", "/1", "a/one", "a/1x", "a/²", "a" * 99 + "/1"])
def test_a_stream_is_named_machine_slash_attempt(journal: Journal, name: str) -> None:
    with pytest.raises(Malformed):
        journal.append(name, "k", "x", "y")

    assert everything(journal) == []


def test_a_fact_goes_from_somewhere_to_somewhere(journal: Journal) -> None:
    with pytest.raises(Malformed):
        journal.append("a/1", "k", "", "y")
    with pytest.raises(Malformed):
        journal.append("a/1", "", "x", "y")


def test_a_stream_that_has_ended_takes_no_more_facts(journal: Journal, place: Path) -> None:
    write_story(journal)
    journal.close()

    with open_at(place) as again, pytest.raises(IllegalFact, match="which has ended"):
        again.append("app-update/1", "offered", "new", "offered")


def test_a_stream_stays_in_its_lane(journal: Journal) -> None:
    write_story(journal, upto=1)

    with pytest.raises(Malformed, match="lives in core"):
        journal.append("app-update/1", "staged", "offered", "staged", lane=Lane.LOG)


def test_names_are_given_once(journal: Journal) -> None:
    assert journal.next_stream_name("app-update") == "app-update/1"

    write_story(journal, attempt=9)
    write_story(journal, attempt=10, upto=1)

    assert journal.next_stream_name("app-update") == "app-update/11"
    assert journal.next_stream_name("app") == "app/1"


def test_notes_stand_beside_their_stream_in_the_order_of_things(journal: Journal) -> None:
    write_story(journal, upto=1)
    journal.note("app-update/1", "progressed", {"percent": 10})
    write_story_rest = journal.append("app-update/1", "staged", "offered", "staged")
    journal.note("app-update/2", "progressed", {"percent": 90})

    kinds = [fact.kind for fact in journal.facts(stream="app-update/1")]

    assert kinds == ["offered", "progressed", "staged"]
    assert journal.stream("app-update/1") == journal.open_streams()[0]
    assert journal.open_streams()[0].last == write_story_rest
    assert journal.stream("app-update/2") is None


def test_a_composed_fact_can_be_looked_at_and_let_go(journal: Journal) -> None:
    let_go = journal.compose("a/1", "k", "x", "y")
    written = journal.append("a/1", "other", "x", "y")

    assert let_go.seq == written.seq
    with pytest.raises(Malformed, match="meanwhile"):
        journal.write(let_go)


def test_the_points_stand_on_both_sides_of_the_commit(place: Path) -> None:
    passed: list[tuple[str, int]] = []
    with open_at(place) as maker:
        maker.append("a/1", "made", "x", "y")
    with open_reader(place) as reader:
        journal = open_at(place, points=lambda at: passed.append((at, reader.head(Lane.CORE).seq)))
        journal.append("a/1", "k", "x", "y")
        journal.append("b/1", "opens", "x", "y")
        journal.close()

    assert passed == [
        ("before-commit:k", 1),
        ("after-commit:k", 2),
        ("before-commit:opens", 2),
        ("after-commit:opens", 3),
    ]


@pytest.mark.parametrize("final", [False, True])
def test_what_dies_before_the_commit_was_never_written(place: Path, *, final: bool) -> None:
    class Died(BaseException):
        pass

    def die(at: str) -> None:
        if at == "before-commit:doomed":
            raise Died

    journal = open_at(place, points=die)
    journal.append("a/1", "k", "x", "y")

    with pytest.raises(Died):
        journal.append("a/1", "doomed", "y", "z", final=final)

    assert [fact.kind for fact in everything(journal)] == ["k"]
    assert journal.append("a/1", "next", "y", "z").seq == 2
    assert journal.open_streams()[0].name == "a/1"
    journal.close()


def test_a_closed_journal_refuses_and_closing_twice_is_no_fault(journal: Journal) -> None:
    journal.close()
    journal.close()

    with pytest.raises(WriteFailed, match="closed"):
        journal.append("a/1", "k", "x", "y")
    with pytest.raises(WriteFailed, match="closed"):
        journal.facts()


def test_facts_are_asked_by_lane_stream_position_and_number(journal: Journal) -> None:
    write_story(journal)
    beat(journal, 2)
    write_story(journal, attempt=2)
    all_of_them = everything(journal)

    assert journal.facts(after=3) == all_of_them[3:]
    assert journal.facts(after=3, limit=2) == all_of_them[3:5]
    assert journal.facts(lane=Lane.LOG, after=1) == all_of_them[5:8]
    assert journal.facts(stream="app-update/2") == all_of_them[8:]
    assert journal.facts(stream="app-update/2", after=10) == all_of_them[10:]
    assert journal.facts(stream="nobody/1") == []
    assert journal.tail(3) == all_of_them[-3:]
    assert journal.tail(2, lane=Lane.LOG) == all_of_them[6:8]
    assert journal.tail(0) == []
    assert journal.facts(after=12) == []


def test_the_head_is_where_the_chain_goes_on(journal: Journal) -> None:
    assert journal.head(Lane.CORE) == Head(0, genesis(EPOCH, Lane.CORE))

    facts = write_story(journal)

    assert journal.head(Lane.CORE) == Head(4, facts[-1].hash)
    assert journal.prev_hash(Lane.CORE, 1) == genesis(EPOCH, Lane.CORE)
    assert journal.prev_hash(Lane.CORE, 3) == facts[1].hash
    assert journal.oldest(Lane.CORE) == 1


def test_a_machine_of_the_log_lane_is_recorded_like_any_other(journal: Journal) -> None:
    stream = recall(journal, "heartbeat/1", BEATING)

    stream.record("sent", soon=True)
    stream.record("answered")

    assert stream.believed == 1
    assert json.loads(stream.last.data if stream.last else "") == {}
    assert journal.durable_head(Lane.LOG).seq == 2
