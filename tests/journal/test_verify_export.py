"""A flipped bit, a lost row, a lost tail: said, and said where. What leaves as lines comes back the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from journal import export
from journal.facts import Head, Lane, Stamp
from journal.journal import Journal
from journal.pages import Pages
from journal.problems import Damaged, Fork, Malformed, NotWritable
from journal.reader import open_reader
from journal.reading import Reading
from journal.verify import verify
from tests.journal.given import (
    beat,
    copy_as_killed,
    everything,
    open_at,
    tampering,
    write_story,
)
from tests.journal.test_succession import begin


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with 120 updates and some heartbeats, partly trimmed, and nobody in it."""
    place = tmp_path_factory.mktemp("original")
    with open_at(place) as journal:
        for attempt in range(1, 121):
            write_story(journal, attempt=attempt)
        beat(journal, 100)
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))
        assert journal.trim(keep=20, step=100)
        write_story(journal, attempt=121, upto=2)
    return place


@pytest.fixture
def closed(original: Path, place: Path) -> Path:
    return Path(shutil.copytree(original, place, dirs_exist_ok=True))


def test_a_whole_journal_is_said_to_be_whole(closed: Path) -> None:
    with open_reader(closed) as reader:
        report = verify(reader)

    assert report.ok
    assert report.events == 482 + 101
    assert report.lanes[Lane.LOG].base.seq == 100
    assert report.lanes[Lane.CORE].head.seq == 482


def test_an_empty_journal_is_whole(journal: Journal) -> None:
    assert verify(journal).ok


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_found_and_its_fact_named(closed: Path, bit: int) -> None:
    whole = bytearray((closed / "journal.db").read_bytes())
    at = whole.index(b"app-update/50" + b"offered") + len("app-update/50") + 2
    whole[at] ^= 1 << bit
    (closed / "journal.db").write_bytes(whole)

    with open_reader(closed) as reader:
        report = verify(reader)

    assert [(p.lane, p.seq) for p in report.problems][:1] == [(Lane.CORE, 197)]


def test_sqlite_itself_does_not_see_that_bit(closed: Path) -> None:
    whole = bytearray((closed / "journal.db").read_bytes())
    whole[whole.index(b"app-update/50" + b"offered") + 15] ^= 1
    (closed / "journal.db").write_bytes(whole)

    with open_reader(closed) as reader:
        assert reader.quick_check() == ["ok"]
        assert not verify(reader).ok


def test_a_zeroed_page_is_named_and_what_lies_behind_it_is_read(closed: Path) -> None:
    whole = bytearray((closed / "journal.db").read_bytes())
    at = whole.index(b"app-update/50") // 4096 * 4096
    whole[at : at + 4096] = bytes(4096)
    (closed / "journal.db").write_bytes(whole)

    with open_reader(closed) as reader:
        report = verify(reader)

    ((first, last),) = report.lanes[Lane.CORE].holes
    hole, *others = report.problems
    assert 170 < first <= 197 < last
    assert (hole.lane, hole.seq) == (Lane.CORE, first)
    assert f"cannot be read, and all up to {last}" in hole.what
    assert all(problem.lane is None for problem in others), "nothing behind the hole is accused"
    assert others, "SQLite's own check has its say too"
    assert report.lanes[Lane.CORE].events == 482 - report.lanes[Lane.CORE].missing
    assert report.lanes[Lane.LOG].events == 101, "the other lane is read to its end"


def test_every_hole_is_named_and_faults_between_them_too(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.execute("DELETE FROM core WHERE seq IN (7, 300, 301)")
        changing.execute("UPDATE core SET at_ms = 0 WHERE seq IN (100, 400)")

    with open_reader(closed) as reader:
        report = verify(reader)

    core = [problem for problem in report.problems if problem.lane is Lane.CORE]
    assert report.lanes[Lane.CORE].holes == ((7, 7), (300, 301))
    assert [problem.seq for problem in core] == [7, 100, 300, 400]


def test_a_lane_that_ends_far_from_where_its_facts_lie_is_still_read_at_once(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.execute("UPDATE core SET seq = 1 << 50 WHERE seq = 482")

    with open_reader(closed) as reader:
        report = verify(reader)

    assert report.lanes[Lane.CORE].holes == ((482, (1 << 50) - 1),)


def test_a_lane_whose_last_page_is_gone_is_read_up_to_there(closed: Path) -> None:
    with tampering(closed) as look:
        (root,) = look.execute("SELECT rootpage FROM sqlite_master WHERE name = 'core'").fetchone()
    with Pages(closed / "journal.db") as pages:
        *_, last = pages.leaves_of(root)
    with (closed / "journal.db").open("r+b") as file:
        file.seek((last - 1) * 4096)
        file.write(bytes(4096))

    with open_reader(closed) as reader:
        report = verify(reader)

    core = report.lanes[Lane.CORE]
    assert report.problems[0].what.startswith("its end cannot be read")
    assert 440 < core.events == core.head.seq < 482


def test_a_page_that_lies_where_another_should_is_a_hole(closed: Path) -> None:
    with tampering(closed) as look:
        (root,) = look.execute("SELECT rootpage FROM sqlite_master WHERE name = 'core'").fetchone()
    with Pages(closed / "journal.db") as pages:
        numbers = list(pages.leaves_of(root))
    with (closed / "journal.db").open("r+b") as file:
        file.seek((numbers[2] - 1) * 4096)
        page = file.read(4096)
        file.seek((numbers[9] - 1) * 4096)
        file.write(page)

    with open_reader(closed) as reader:
        report = verify(reader)

    ((first, last),) = report.lanes[Lane.CORE].holes
    assert 482 - report.lanes[Lane.CORE].events == last - first + 1


def test_a_journal_whose_tables_cannot_be_read_is_verified_as_far_as_it_can(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.execute("DELETE FROM base WHERE lane = 'core'")
        changing.execute("DELETE FROM stream WHERE attempt = 121")

    with open_reader(closed) as reader:
        report = verify(reader)

    assert not report.ok
    assert report.lanes[Lane.LOG].events == 101
    assert report.lanes[Lane.CORE].events == 0


def test_a_stream_that_the_list_lacks_is_named(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.execute("DELETE FROM stream WHERE attempt = 121")

    with open_reader(closed) as reader:
        (problem,) = verify(reader).problems

    assert (problem.lane, problem.seq) == (Lane.CORE, 481)
    assert problem.what == "begins app-update/121, which the list of streams lacks"


def test_what_was_dropped_is_counted_and_a_tombstone_for_what_is_there_is_named(
    closed: Path,
) -> None:
    told = '{"kinds":{"sent":1},"since_ms":1,"until_ms":2}'
    with tampering(closed) as changing:
        insert = "INSERT INTO tombstone VALUES (?, ?, ?, ?, ?)"
        changing.execute(insert, ("log", 11, 60, "space", told))
        changing.execute(insert, ("core", 1, 3, "age", told))

    with open_reader(closed) as reader:
        report = verify(reader)

    assert report.lanes[Lane.LOG].dropped == 50
    assert [(p.lane, p.seq) for p in report.problems] == [(Lane.CORE, 1)]


def test_a_new_epoch_tells_what_it_follows(closed: Path) -> None:
    begun = begin(closed)

    with open_reader(closed) as reader:
        report = verify(reader)

    assert report.ok
    assert report.began == begun.began


@pytest.mark.parametrize(
    ("sql", "seq", "what"),
    [
        ("DELETE FROM core WHERE seq = 7", 7, "is missing"),
        ("UPDATE core SET at_ms = 0 WHERE seq = 7", 7, "not what was written"),
        ("UPDATE core SET hash = zeroblob(32) WHERE seq = 482", 482, "not what was written"),
        ("DELETE FROM core WHERE seq = 1", 1, "is missing"),
        ("UPDATE base SET hash = zeroblob(32) WHERE lane = 'core'", 1, "not what was written"),
        ("UPDATE cursor SET seq = 9 WHERE lane = 'core'", 9, "not what Cloudly has acked"),
        ("UPDATE cursor SET seq = 999 WHERE lane = 'core'", 999, "the lane ends at 482"),
        ("UPDATE stream SET last_seq = 3 WHERE attempt = 50", 3, "should end app-update/50"),
        ("UPDATE core SET seq = seq + 1000 WHERE seq > 400", 401, "is missing"),
    ],
)
def test_what_was_changed_by_hand_is_found(closed: Path, sql: str, seq: int, what: str) -> None:
    with tampering(closed) as changing:
        changing.execute(sql)

    with open_reader(closed) as reader:
        problems = [p for p in verify(reader).problems if p.lane is Lane.CORE]

    assert problems
    assert problems[0].seq == seq
    assert what in problems[0].what


def test_two_facts_that_changed_places_are_found(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.executescript(
            "UPDATE core SET seq = -1 WHERE seq = 10; UPDATE core SET seq = 10 WHERE seq = 11;"
            "UPDATE core SET seq = 11 WHERE seq = -1"
        )

    with open_reader(closed) as reader:
        assert {p.seq for p in verify(reader).problems} >= {10, 11}


def test_a_story_that_jumps_is_found_although_its_chain_holds(journal: Journal) -> None:
    write_story(journal, upto=1)
    journal.append("app-update/1", "succeeded", "applying", "succeeded")

    report = verify(journal)

    assert [p.what for p in report.problems] == [
        "leads from 'applying', and app-update/1 stood at 'offered'"
    ]


def test_many_faults_are_bounded(closed: Path) -> None:
    with tampering(closed) as changing:
        changing.execute("UPDATE core SET mono_ms = mono_ms + 1")

    with open_reader(closed) as reader:
        report = verify(reader)

    assert len([p for p in report.problems if p.lane is Lane.CORE]) == 100


def test_a_truncated_wal_looks_whole_and_is_noticed_against_what_cloudly_has_acked(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    write_story(journal, attempt=1)
    after_one = sum((place / "journal.db-wal").read_bytes().count(b"app-update/1") for _ in "x")
    assert after_one
    write_story(journal, attempt=2)
    acked = journal.head(Lane.CORE)
    killed = copy_as_killed(place, tmp_path / "after")
    wal = (killed / "journal.db-wal").read_bytes()
    frame = 24 + 4096
    cut = (wal.rindex(b"app-update/2staged") - 32) // frame * frame + 32
    (killed / "journal.db-wal").write_bytes(wal[:cut])

    with open_at(killed) as again:
        assert 0 < again.head(Lane.CORE).seq < acked.seq
        assert verify(again).ok
        with pytest.raises(Fork, match="Cloudly is ahead"):
            again.ack(Lane.CORE, acked.seq, acked.hash)


def test_another_history_under_the_same_numbers_is_noticed(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    write_story(journal)
    copy = copy_as_killed(place, tmp_path / "copy")
    with open_at(copy) as twin:
        told = write_story(twin, attempt=3)[-1]
    with open_at(copy_as_killed(place, tmp_path / "other")) as ours:
        write_story(ours, attempt=2)

        with pytest.raises(Fork, match="its hash is not ours"):
            ours.ack(Lane.CORE, told.seq, told.hash)

        assert ours.acked(Lane.CORE).seq == 0


def test_cloudly_may_move_its_cursor_on_and_back(journal: Journal) -> None:
    facts = write_story(journal)

    journal.ack(Lane.CORE, 4, facts[3].hash)
    assert journal.acked(Lane.CORE) == (4, facts[3].hash)
    journal.ack(Lane.CORE, 2, facts[1].hash)
    assert journal.acked(Lane.CORE) == (2, facts[1].hash)
    journal.ack(Lane.CORE, 0, bytes(32))
    assert journal.acked(Lane.CORE).seq == 0


def test_an_ack_survives_closing(place: Path) -> None:
    with open_at(place) as journal:
        facts = write_story(journal)
        journal.ack(Lane.CORE, 3, facts[2].hash)

    with open_at(place) as again:
        assert again.acked(Lane.CORE) == (3, facts[2].hash)
        assert again.acked(Lane.LOG).seq == 0


def test_an_export_verifies_and_loads_into_the_same_journal(closed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with open_reader(closed) as reader:
        lines = list(export.lines(reader))
        facts, streams, epoch = reader.facts(), reader.streams(), reader.epoch
        report = verify(reader)

    checked = export.check(lines)
    loaded = export.load(lines, elsewhere)

    assert checked.ok
    assert (checked.events, checked.lanes) == (report.events, report.lanes)
    assert loaded.ok
    with open_reader(elsewhere) as copy:
        assert (copy.facts(), copy.streams(), copy.epoch) == (facts, streams, epoch)
        assert verify(copy).ok
        assert list(export.lines(copy)) == lines


def test_beliefs_skews_tombstones_and_acks_leave_and_come_back(
    closed: Path, tmp_path: Path
) -> None:
    with tampering(closed) as changing:
        told = '{"kinds":{"sent":1},"since_ms":1,"until_ms":null}'
        changing.execute("INSERT INTO tombstone VALUES ('log', 11, 60, 'space', ?)", (told,))
        changing.execute("UPDATE stream SET belief = '[1,2]' WHERE machine = 'heartbeat'")
    skewed = Journal.open(closed, stamp=lambda: Stamp(5, "b", 6, -77), new_epoch=lambda: "")
    skewed.append("app-update/121", "apply-requested", "staged", "applying")
    skewed.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with open_reader(closed) as reader:
        lines = list(export.lines(reader))
        stones, acked = reader.tombstones(Lane.LOG), reader.acked(Lane.LOG)

    export.load(lines, elsewhere)

    with open_reader(elsewhere) as copy:
        assert list(export.lines(copy)) == lines
        assert copy.tombstones(Lane.LOG) == stones
        assert copy.acked(Lane.LOG) == acked
        assert copy.facts()[-1].skew_ms == -77
        info = copy.stream("heartbeat/1")
        assert info is not None
        assert info.belief == "[1,2]"


def test_an_export_of_the_first_version_is_still_read(closed: Path) -> None:
    with open_reader(closed) as reader:
        header, *lines = map(json.loads, export.lines(reader))
    for lane in header["lanes"].values():
        del lane["acked"]
    for line in lines:
        line.pop("skew_ms", None)
        line.pop("belief", None)

    assert export.check(json.dumps(line) for line in (header, *lines)).ok


@pytest.mark.parametrize("leftover", ["journal.db-wal", "journal.next"])
def test_an_export_is_not_loaded_beside_the_rest_of_a_journal(
    closed: Path, tmp_path: Path, leftover: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / leftover).write_bytes(b"something")
    with open_reader(closed) as reader:
        lines = list(export.lines(reader))

    with pytest.raises(NotWritable, match=leftover):
        export.load(lines, elsewhere)

    assert [path.name for path in elsewhere.iterdir()] == [leftover]


def test_the_lines_stand_in_the_order_of_things_behind_a_header(closed: Path) -> None:
    with open_reader(closed) as reader:
        lines = [json.loads(line) for line in export.lines(reader)]

    header, facts = lines[0], [line for line in lines[1:] if "seq" in line]
    assert header["format"] == "baseos-journal/1"
    assert header["lanes"]["core"]["head"]["seq"] == 482
    assert [fact["n"] for fact in facts] == sorted(fact["n"] for fact in facts)


def changed_line(lines: list[str], number: int, **changes: object) -> list[str]:
    values = json.loads(lines[number])
    return [*lines[:number], json.dumps({**values, **changes}), *lines[number + 1 :]]


def test_a_changed_export_is_refused_and_nothing_is_left(closed: Path, tmp_path: Path) -> None:
    with open_reader(closed) as reader:
        lines = list(export.lines(reader))
    spoiled = {
        "changed": changed_line(lines, 9, data='{"release":"6.6.6"}'),
        "lost a fact": lines[:9] + lines[10:],
        "lost its end": lines[: len(lines) // 2],
        "twice the same": lines[:9] + lines[8:],
    }

    for what, text in spoiled.items():
        assert not export.check(text).ok, what
        with pytest.raises(Damaged):
            export.load(text, tmp_path)
        assert not list(tmp_path.glob("journal.db*")), what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ([], "line 1"),
        (["{}"], "no baseos-journal/1 header"),
        (["[1]"], "not an object"),
        (["nonsense"], "not JSON"),
        (['{"format":"baseos-journal/1"}'], "lacks 'lanes'"),
    ],
)
def test_what_is_no_export_is_refused(text: list[str], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        export.check(text)


def test_an_export_that_is_overtaken_by_a_trim_says_so(journal: Journal) -> None:
    beat(journal, 20)
    journal.ack(Lane.LOG, *journal.head(Lane.LOG))
    lines = export.lines(journal)
    next(lines)

    assert journal.trim(keep=5, step=20) == 20

    with pytest.raises(Damaged, match="trimmed meanwhile"):
        list(lines)


def test_a_trim_while_it_is_verified_is_no_fault(journal: Journal) -> None:
    beat(journal, 20)
    journal.ack(Lane.LOG, *journal.head(Lane.LOG))
    bases: list[Head] = []

    class Overtaken(Reading):
        """Right after it has asked for the base, the writer trims."""

        def base(self, lane: Lane) -> Head:
            found = super().base(lane)
            if lane is Lane.LOG and not bases:
                bases.append(found)
                assert journal.trim(keep=5, step=20) == 20
            return found

    report = verify(Overtaken(journal._rows))

    assert report.ok
    assert report.lanes[Lane.LOG].base.seq == 20


def test_a_line_that_is_no_fact_is_named(closed: Path) -> None:
    with open_reader(closed) as reader:
        lines = list(export.lines(reader))

    with pytest.raises(Malformed, match="line 4 is no fact"):
        export.check(changed_line(lines, 3, hash="not hex"))


def test_an_export_is_not_loaded_over_a_journal(journal: Journal, place: Path) -> None:
    with pytest.raises(NotWritable, match="a journal is there"):
        export.load(export.lines(journal), place)

    assert everything(journal) == []
