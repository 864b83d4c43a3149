"""A new epoch in the place of an old one: what is carried, what is told, and a power cut at every step of the way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path

import pytest

from journal import succession
from journal.facts import Fact, Lane, StreamInfo
from journal.journal import Journal
from journal.problems import AlreadyRunning, Damaged, Foreign, FromTheFuture, NoJournal
from journal.reader import open_reader
from journal.recall import recall
from journal.succession import Succession, begin_epoch
from journal.verify import verify
from tests.journal.given import (
    BEATING,
    EPOCH,
    MACHINE,
    beat,
    copy_as_killed,
    everything,
    files,
    open_at,
    tampering,
    ticking,
    write_story,
)

NEW = "ffeeddccbbaa99887766554433221100"


def nothing(_info: StreamInfo) -> bool:
    return False


def begin(
    place: Path,
    *,
    epoch: str = NEW,
    wanted: Callable[[StreamInfo], bool] = nothing,
    points: Callable[[str], None] = lambda _: None,
) -> Succession:
    return begin_epoch(
        place,
        stamp=ticking(),
        new_epoch=lambda: epoch,
        why="salvaged",
        problem="a test wants one",
        wanted=wanted,
        points=points,
    )


def told(fact: Fact) -> tuple[object, ...]:
    """All of a fact but its place in an epoch."""
    return (fact.lane, fact.stream, fact.kind, fact.src, fact.dst, *fact[7:12])


@pytest.fixture
def old(place: Path) -> Path:
    """Three updates of which the first two are acked, a heartbeat, and a fourth update under way; nobody in it."""
    with open_at(place) as journal:
        write_story(journal, attempt=1)
        write_story(journal, attempt=2)
        beat(journal, 3)
        journal.ack(Lane.CORE, *journal.head(Lane.CORE))
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))
        write_story(journal, attempt=3)
        beat(journal, 2)
        write_story(journal, attempt=4, upto=2)
    return place


def test_the_first_fact_explains_the_new_epoch_and_what_cloudly_had_not_acked_follows(
    old: Path,
) -> None:
    with open_reader(old) as reader:
        before = reader.facts()
        head = reader.head(Lane.CORE)

    begun = begin(old)

    with open_at(old) as journal:
        began, *carried = everything(journal)
        assert journal.epoch == begun.epoch == NEW
        assert verify(journal).ok
        assert [journal.acked(lane).seq for lane in Lane] == [0, 0]
    assert (began.lane, began.seq, began.n) == (Lane.CORE, 1, 1)
    assert (began.stream, began.kind, began.is_note) == ("epoch/1", "epoch-began", True)
    # The heartbeat is open, so all of it is carried; of the updates what was not acked.
    kept = [fact for fact in before if fact.stream == "heartbeat/1" or fact.stream > "app-update/2"]
    assert [told(fact) for fact in carried] == [told(fact) for fact in kept]
    assert began.values == begun.began
    assert began.values["from"] == EPOCH
    assert began.values["carried"] == {"core": 7, "log": 10}
    assert began.values["lanes"]["core"] == {
        "head": 14,
        "hash": head.hash.hex(),
        "acked": 8,
        "verified": 14,
        "carried": [9, 14],
        "lost": [],
        "evidence": [],
        "dropped": [],
    }
    assert (begun.lost, begun.evidence, begun.broken) == (0, 0, ())


def test_what_was_under_way_goes_on_in_the_new_epoch(old: Path) -> None:
    begin(old)

    with open_at(old) as journal:
        assert {info.name for info in journal.open_streams()} == {"app-update/4", "heartbeat/1"}
        update = recall(journal, "app-update/4", MACHINE)
        assert (update.state, update.believed.release) == ("staged", "2.0.0")
        update.record("apply-requested")
        update.record("succeeded")
        beats = recall(journal, "heartbeat/1", BEATING)
        assert beats.believed == 5
        beats.record("sent", soon=True)
        assert verify(journal).ok


def test_a_stream_that_is_wanted_is_carried_although_it_was_acked(old: Path) -> None:
    asked: list[str] = []

    def wanted(info: StreamInfo) -> bool:
        asked.append(info.name)
        return info.name == "app-update/1"

    begin(old, wanted=wanted)

    assert asked == ["app-update/1", "app-update/2", "app-update/3"], "open ones need no asking"
    with open_at(old) as journal:
        names = [info.name for info in journal.streams("app-update")]
        assert names == ["app-update/1", "app-update/3", "app-update/4"]
        assert recall(journal, "app-update/1", MACHINE).ended


def test_no_name_is_given_twice(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal, attempt=7)
        journal.ack(Lane.CORE, *journal.head(Lane.CORE))

    begin(place)

    with open_at(place) as journal:
        info = journal.stream("app-update/7")
        assert info is not None
        assert (info.ended, info.state, info.last) == (True, "succeeded", None)
        assert journal.next_stream_name("app-update") == "app-update/8"
        assert [fact.kind for fact in everything(journal)] == ["epoch-began"]
        assert verify(journal).ok
        write_story(journal, attempt=8)


def test_a_stream_that_began_before_what_is_carried_remembers_the_state_it_came_from(
    place: Path,
) -> None:
    with open_at(place) as journal:
        facts = write_story(journal)
        journal.ack(Lane.CORE, 2, facts[1].hash)

    begin(place)

    with open_at(place) as journal:
        info = journal.stream("app-update/1")
        assert info is not None
        assert (info.carried, info.state) == ("staged", "succeeded")
        assert verify(journal).ok


def test_a_log_stream_whose_beginning_was_trimmed_is_carried_with_its_state_and_belief(
    place: Path,
) -> None:
    with open_at(place) as journal:
        beat(journal, 20)
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))
        assert journal.trim(keep=1, step=39)
    with tampering(place) as foreign:
        foreign.execute("UPDATE stream SET belief = '19'")

    begin(place)

    with open_at(place) as journal:
        info = journal.stream("heartbeat/1")
        assert info is not None
        assert (info.carried, info.belief, info.state) == ("sending", "19", "resting")
        assert verify(journal).ok


@pytest.mark.parametrize("is_wanted", [False, True])
def test_an_attempt_whose_end_was_lost_is_not_said_to_have_ended_where_its_trimmed_part_did(
    place: Path, *, is_wanted: bool
) -> None:
    with open_at(place) as journal:
        write_story(journal)
        journal.ack(Lane.CORE, *journal.head(Lane.CORE))
    with tampering(place) as foreign:
        foreign.execute("UPDATE stream SET first_seq = 4, carried = 'applying'")
        foreign.execute(
            "UPDATE base SET seq = 3, hash = (SELECT hash FROM core WHERE seq = 3) WHERE lane = 'core'"
        )
        foreign.execute("DELETE FROM core")

    begin(place, wanted=lambda _: is_wanted)

    with open_at(place) as journal:
        info = journal.stream("app-update/1")
        assert info is not None
        assert (info.state, info.ended) == ("lost", True)


@pytest.mark.parametrize("known_final", [False, True])
def test_an_attempt_in_a_final_state_has_ended_although_the_word_for_it_was_lost(
    place: Path, *, known_final: bool
) -> None:
    with open_at(place) as journal:
        write_story(journal)
    with tampering(place) as foreign:
        foreign.execute("DELETE FROM stream")

    begin_epoch(
        place, stamp=ticking(), new_epoch=lambda: NEW, why="salvaged", problem="", wanted=nothing,
        final=lambda info: known_final and info.state in MACHINE.chart.final,
    )  # fmt: skip

    with open_at(place) as journal:
        info = journal.stream("app-update/1")
        assert info is not None
        assert (info.state, info.ended) == ("succeeded", known_final)
        assert verify(journal).ok


def test_facts_dropped_before_their_ack_are_told_as_lost_with_their_reason(place: Path) -> None:
    with open_at(place) as journal:
        beat(journal, 20)
        journal.ack(Lane.LOG, *journal.head(Lane.LOG))
        assert journal.trim(keep=1, step=39)
    with tampering(place) as foreign:
        row = ("log", 5, 39, "space", '{"kinds":{"sent":18},"since_ms":1,"until_ms":2}')
        foreign.execute("INSERT INTO tombstone VALUES (?, ?, ?, ?, ?)", row)
        foreign.execute("UPDATE cursor SET seq = 4, hash = zeroblob(32) WHERE lane = 'log'")

    begun = begin(place)

    log = begun.began["lanes"]["log"]
    assert log["lost"] == [[5, 39]]
    assert log["dropped"] == [
        {
            "first_seq": 5,
            "last_seq": 39,
            "why": "space",
            "kinds": {"sent": 18},
            "since_ms": 1,
            "until_ms": 2,
        }
    ]


def test_the_old_files_are_kept_together_and_can_still_be_read(
    journal: Journal, place: Path, tmp_path: Path
) -> None:
    write_story(journal)
    killed = copy_as_killed(place, tmp_path / "killed")
    before = files(killed)
    written = everything(journal)

    begun = begin(killed)

    kept = killed / begun.kept_in
    assert kept.name == f"1-{EPOCH[:8]}"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        name: before[name] for name in ("journal.db", "journal.db-wal")
    }
    with open_reader(kept) as reader:
        assert reader.facts() == written
    assert not (killed / "journal.db-wal").exists()


def test_a_succession_of_a_succession_keeps_the_newest_three(old: Path) -> None:
    for number in range(1, 6):
        begun = begin(old, epoch=f"{number}" * 32)
        with open_at(old) as journal:
            write_story(journal, attempt=10 + number)
            assert verify(journal).ok

    kept = sorted(path.name for path in (old / "kept").iterdir())
    assert kept == ["3-22222222", "4-33333333", "5-44444444"]
    assert begun.began["removed"] == ["2-11111111"]
    with open_reader(old) as reader:
        kinds = [fact.kind for fact in reader.facts() if fact.stream == "epoch/1"]
        stories = {fact.stream for fact in reader.facts()}
    assert kinds == ["epoch-began"] * 5, "the notes of the epochs before were not acked either"
    assert {f"app-update/{number}" for number in (3, 4, 11, 12, 13, 14, 15)} <= stories


def test_a_kept_journal_of_many_bytes_leaves_no_room_for_older_ones(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "KEPT_BYTES", 1)

    begin(old, epoch="1" * 32)
    begin(old, epoch="2" * 32)

    assert [path.name for path in (old / "kept").iterdir()] == ["2-11111111"]


# ------------------------------------------------------------------------------------------ refusals


def test_a_journal_that_somebody_writes_is_left_alone(journal: Journal, place: Path) -> None:
    with pytest.raises(AlreadyRunning):
        begin(place)

    assert write_story(journal)


def test_where_there_is_no_journal_nothing_is_begun(place: Path) -> None:
    with pytest.raises(NoJournal):
        begin(place)

    assert set(files(place)) == {"journal.lock"}


def test_the_database_of_another_application_is_refused_and_left_as_it_is(place: Path) -> None:
    with tampering(place) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
    before = files(place)

    with pytest.raises(Foreign, match="another application's database"):
        begin(place)

    assert files(place)["journal.db"] == before["journal.db"]


def test_a_journal_from_the_future_is_refused_and_left_as_it_is(old: Path) -> None:
    with tampering(old) as newer:
        newer.execute("PRAGMA user_version=99")
        newer.execute("UPDATE meta SET value = '99' WHERE name = 'oldest_writer'")
    before = files(old)

    with pytest.raises(FromTheFuture):
        begin(old)

    assert files(old)["journal.db"] == before["journal.db"]


# ------------------------------------------------------------------------------------------ power cuts


@pytest.fixture
def killed(old: Path, tmp_path: Path) -> Path:
    """The old journal as a killed writer left it: its newest facts are in the WAL alone."""
    journal = open_at(old)
    write_story(journal, attempt=5, upto=3)
    killed = copy_as_killed(old, tmp_path / "killed")
    journal.close()
    return killed


class Disk:
    """What a power cut may leave at each step: every rename that is not synced yet may or may not have happened."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        self.root = root
        self.names: list[str] = []
        self.left: list[Path] = []
        self._before = root / "before"
        self._done: list[tuple[str, str]] = []
        self._open: list[tuple[str, str, set[str]]] = []

    def at(self, name: str) -> None:
        self.names.append(name)
        if name == "built":
            shutil.copytree(self.place, self._before)
        elif name.startswith("synced:"):
            for _, _, folders in self._open:
                folders.discard(name.removeprefix("synced:"))
            self._done += [(src, dst) for src, dst, folders in self._open if not folders]
            self._open = [rename for rename in self._open if rename[2]]
        else:
            src, dst = self._rename(name)
            folders = {(self.place / src).parent.name, (self.place / dst).parent.name}
            self._open.append((src, dst, folders))
        self._cut()

    def _rename(self, name: str) -> tuple[str, str]:
        if name == "decided":
            return "journal.succession", "journal.next"
        if name == "named":
            return "journal.next", "journal.db"
        file = name.removeprefix("kept:")
        return file, f"kept/1-{EPOCH[:8]}/{file}"

    def _cut(self) -> None:
        pending = [(src, dst) for src, dst, _ in self._open]
        subsets = chain.from_iterable(
            combinations(pending, size) for size in range(len(pending) + 1)
        )
        for happened in subsets:
            left = self.root / f"cut-{len(self.left)}"
            shutil.copytree(self._before, left)
            for src, dst in [*self._done, *happened]:
                if (left / src).exists():
                    (left / dst).parent.mkdir(parents=True, exist_ok=True)
                    (left / src).rename(left / dst)
            self.left.append(left)


def what_is_there(place: Path) -> tuple[str, list[Fact]]:
    with open_at(place, epoch="a third one") as journal:
        assert verify(journal).ok
        assert not list(place.glob("journal.succession*"))
        assert not (place / "journal.next").exists()
        return journal.epoch, everything(journal)


def test_a_power_cut_at_any_step_leaves_the_old_journal_or_the_new_one(
    killed: Path, tmp_path: Path
) -> None:
    before = what_is_there(shutil.copytree(killed, tmp_path / "before-it"))
    disk = Disk(killed, tmp_path / "cuts")

    begin(killed, points=disk.at)

    after = what_is_there(killed)
    left = [what_is_there(cut) for cut in disk.left]
    assert (before[0], after[0]) == (EPOCH, NEW)
    assert set(map(str, left)) == {str(before), str(after)}, "old or new, and both were seen"
    assert {"decided", "kept:journal.db", "kept:journal.db-wal", "named"} <= set(disk.names)


def test_that_test_turns_red_when_the_steps_are_not_synced(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = what_is_there(shutil.copytree(killed, tmp_path / "before-it"))
    monkeypatch.setattr(succession, "_sync", lambda *_: None)
    disk = Disk(killed, tmp_path / "cuts")

    begin(killed, points=disk.at)

    good, bad = {str(before), str(what_is_there(killed))}, 0
    for cut in disk.left:
        try:
            bad += str(what_is_there(cut)) not in good
        except (AssertionError, Damaged):
            bad += 1
    assert bad > 0


def test_a_succession_is_dropped_when_the_old_journal_was_written_to_meanwhile(
    killed: Path,
) -> None:
    with pytest.raises(PowerCut):
        begin(killed, points=cut_at("decided"))
    (killed / "journal.next").rename(killed / "aside")
    with open_at(killed) as older_program:
        written = older_program.append("app-update/5", "succeeded", "applying", "succeeded")
    (killed / "aside").rename(killed / "journal.next")

    epoch, facts = what_is_there(killed)

    assert epoch == EPOCH
    assert facts[-1] == written


class PowerCut(BaseException):
    pass


def cut_at(step: str) -> Callable[[str], None]:
    def cut(name: str) -> None:
        if name == step:
            raise PowerCut

    return cut


def test_a_decided_journal_that_is_damaged_counts_for_nothing_beside_the_old_one(
    killed: Path, tmp_path: Path
) -> None:
    before = what_is_there(shutil.copytree(killed, tmp_path / "before-it"))
    with pytest.raises(PowerCut):
        begin(killed, points=cut_at("decided"))
    (killed / "journal.next").write_bytes(bytes(8_192))

    assert what_is_there(killed) == before


def test_a_decided_journal_that_is_damaged_when_the_old_one_has_gone_is_salvaged(
    killed: Path,
) -> None:
    with pytest.raises(PowerCut):
        begin(killed, points=cut_at("kept:journal.db"))
    with (killed / "journal.next").open("r+b") as file:
        file.write(bytes(4_096))  # its first page

    with pytest.raises(Damaged):
        open_at(killed)
    begun = begin(killed, epoch="3" * 32)

    assert (begun.old_epoch, begun.lost) == (NEW, 0)
    with open_at(killed) as journal:
        assert verify(journal).ok
        assert recall(journal, "app-update/5", MACHINE).state == "applying"
    assert sorted(path.name for path in (killed / "kept").iterdir()) == [
        "1-00112233",
        "2-unreadable",
        "3-ffeeddcc",
    ]


CHILD = """
import os, pathlib, signal, sys
from tests.journal.test_succession import begin
left = [int(sys.argv[2])]
def die(name):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
begin(pathlib.Path(sys.argv[1]), points=die)
"""


@pytest.mark.slow
def test_a_killed_succession_is_completed_or_never_was(killed: Path, tmp_path: Path) -> None:
    before = what_is_there(shutil.copytree(killed, tmp_path / "before-it"))
    seen = []
    for step in range(100):
        place = shutil.copytree(killed, tmp_path / f"step-{step}")
        ran = subprocess.run([sys.executable, "-c", CHILD, str(place), str(step)], check=False)
        seen.append(what_is_there(place))
        if ran.returncode == 0:
            break
        assert ran.returncode == -signal.SIGKILL

    assert len(seen) > 8
    assert {epoch for epoch, _ in seen} == {EPOCH, NEW}
    assert all(each in (before, seen[-1]) for each in seen)


def test_an_attempt_that_was_closed_in_the_middle_is_over_for_who_recalls_it(place: Path) -> None:
    with open_at(place) as journal:
        write_story(journal, upto=3)
    with tampering(place) as other:
        other.execute("UPDATE stream SET last_seq = 3")

    with open_at(place) as journal:
        stream = recall(journal, "app-update/1", MACHINE)

        assert (stream.state, stream.ended) == ("applying", True)
