"""Any order of appends, acks, trims, deaths and lost tails: what was acknowledged is there, or has a tombstone.

The model is a list of facts per lane. A death copies the bytes of the database and its WAL, as they are at that
instant; a lost tail also cuts the WAL anywhere, as bad media do. After a death nothing may be missing; after a lost
tail what is left is a prefix, and Cloudly's ack shows it. Without room, facts may go before their ack, and then a
tombstone has them. The planted defects break these promises and must be caught.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from journal import retention
from journal.facts import Fact, Lane
from journal.journal import Journal
from journal.problems import Fork, IllegalFact
from journal.recall import freezer, recall
from journal.retention import Limits
from journal.verify import verify
from tests.journal.given import BEATING, CHART, MACHINE, MACHINES, copy_as_killed, open_at

KINDS = sorted({arrow.kind for arrow in CHART.arrows})
FRAME = 24 + 4096


class Crashes(RuleBasedStateMachine):
    """One device's journal over many lives."""

    deaths = 0
    lost_tails = 0
    trims = 0
    drops = 0

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="journal-crash-"))
        self.lives = 0
        self.written: dict[Lane, list[Fact]] = {lane: [] for lane in Lane}
        self.acked = dict.fromkeys(Lane, 0)
        self.place = self.root / "0"
        self.place.mkdir()
        self._wake(self._open(self.place))

    def _open(self, place: Path) -> Journal:
        return open_at(place)

    def _wake(self, journal: Journal) -> None:
        self.journal = journal
        names = [info.name for info in journal.open_streams() if info.lane is Lane.CORE]
        name = names[0] if names else journal.next_stream_name("app-update")
        self.update = recall(journal, name, MACHINE)
        self.beats = recall(journal, "heartbeat/1", BEATING)

    def _append(self, fact: Fact) -> None:
        self.written[fact.lane].append(fact)

    @rule(kind=st.sampled_from(KINDS), soon=st.booleans(), size=st.integers(0, 9_000))
    def record(self, kind: str, soon: bool, size: int) -> None:  # noqa: FBT001 - hypothesis passes by name
        if self.update.ended:
            name = self.journal.next_stream_name("app-update")
            self.update = recall(self.journal, name, MACHINE)
        before = self.update.state
        try:
            fact = self.update.record(kind, {"release": "r" * size}, soon=soon)
        except IllegalFact:
            assert kind not in CHART.allowed(before)
            return
        self._append(fact)

    @rule(times=st.integers(1, 8), soon=st.booleans())
    def beat(self, times: int, soon: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        for _ in range(times):
            kind = "sent" if self.beats.state == "resting" else "answered"
            self._append(self.beats.record(kind, soon=soon))

    @rule(percent=st.integers(0, 100))
    def note(self, percent: int) -> None:
        self._append(self.journal.note(self.update.name, "progressed", {"percent": percent}))

    @rule(lane=st.sampled_from(Lane), back=st.integers(0, 5))
    def ack(self, lane: Lane, back: int) -> None:
        seq = max(self.journal.durable_head(lane).seq - back, self.journal.oldest(lane) - 1)
        self.journal.ack(lane, seq, self.journal.prev_hash(lane, seq + 1))
        self.acked[lane] = max(self.acked[lane], seq)

    @rule(keep=st.integers(0, 6))
    def trim(self, keep: int) -> None:
        for lane in Lane:
            self.ack(lane, back=0)
        self._retain(Limits(keep_log=keep, keep_core=keep, keep_attempts=2, step=4))
        for lane in Lane:
            assert self.journal.oldest(lane) <= self.acked[lane] + 1

    @rule()
    def squeeze(self) -> None:
        self._retain(Limits(max_bytes=0, keep_attempts=2, step=4))

    def _retain(self, limits: Limits) -> None:
        head = self.journal.head(Lane.LOG).seq
        done = self.journal.retain(limits, freezer(self.journal, MACHINES))
        for told in self.journal.facts(lane=Lane.LOG, after=head):
            self._append(told)
        type(self).trims += bool(done.forgotten)
        type(self).drops += done.dropped

    @rule()
    def close(self) -> None:
        self.journal.close()
        self._wake(self._open(self.place))

    def _die(self) -> Path:
        self.lives += 1
        place = copy_as_killed(self.place, self.root / str(self.lives))
        self.journal.close()
        shutil.rmtree(self.place)
        self.place = place
        return place

    @rule()
    def die(self) -> None:
        believed = self.update.believed, self.update.state, self.beats.state
        self._wake(self._open(self._die()))
        type(self).deaths += 1
        if self.update.facts:
            assert (self.update.believed, self.update.state, self.beats.state) == believed

    @rule(cut=st.floats(0, 1))
    def lose_the_tail(self, cut: float) -> None:
        self.beat(4, soon=True)
        wal = self._die() / "journal.db-wal"
        whole = wal.read_bytes() if wal.exists() else b""
        # A WAL has its working size from the start, so its newest facts are near its beginning.
        wal.write_bytes(whole[: int(len(whole) * cut**6)])
        self._wake(self._open(self.place))
        for lane in Lane:
            self._lost(lane)

    def _lost(self, lane: Lane) -> None:
        head, believed_head = self.journal.head(lane), len(self.written[lane])
        assert head.seq <= believed_head
        if head.seq < believed_head:
            type(self).lost_tails += 1
            last = self.written[lane][-1]
            with pytest.raises(Fork):
                self.journal.ack(lane, last.seq, last.hash)
        del self.written[lane][head.seq :]
        self.acked[lane] = self.journal.acked(lane).seq

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        for lane in Lane:
            there = self.journal.facts(lane=lane)
            first = self.journal.oldest(lane)
            assert there == self.written[lane][first - 1 :]

    @invariant()
    def what_went_before_its_ack_has_a_tombstone(self) -> None:
        for lane in Lane:
            told = self.journal.tombstones(lane)
            gone = range(self.journal.acked(lane).seq + 1, self.journal.oldest(lane))
            assert all(any(t.first_seq <= seq <= t.last_seq for t in told) for seq in gone)
            assert all(t.last_seq < self.journal.oldest(lane) for t in told)

    @invariant()
    def what_is_recalled_is_what_was_believed(self) -> None:
        beats = recall(self.journal, "heartbeat/1", BEATING)
        update = recall(self.journal, self.update.name, MACHINE)
        assert (beats.state, beats.believed) == (self.beats.state, self.beats.believed)
        assert (update.state, update.believed) == (self.update.state, self.update.believed)

    @invariant()
    def it_hangs_together(self) -> None:
        report = verify(self.journal)
        assert report.ok, report.problems

    @invariant()
    def n_is_the_common_order(self) -> None:
        places = [fact.n for fact in self.journal.facts()]
        assert places == sorted(set(places))

    @invariant()
    def only_what_is_there_is_durable(self) -> None:
        for lane in Lane:
            assert self.journal.durable_head(lane).seq <= self.journal.head(lane).seq

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.root)


def crashes(examples: int) -> settings:
    """From a fixed seed: the same stories each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def run(machine: type[RuleBasedStateMachine], how: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=how)


def test_acknowledged_facts_survive_every_order_of_events() -> None:
    run(Crashes, crashes(16))

    fired = Crashes.deaths, Crashes.lost_tails, Crashes.trims, Crashes.drops
    assert min(fired) >= 1, f"the faults did not fire: {fired}"


@pytest.mark.slow
def test_acknowledged_facts_survive_many_more_orders_of_events() -> None:
    run(Crashes, crashes(60))


class Forgetful(Crashes):
    """The planted defect: a fact is acknowledged before it is committed, and the death comes in between."""

    @precondition(lambda self: not self.update.ended)
    @rule()
    def acknowledge_then_die(self) -> None:
        kind = CHART.allowed(self.update.state)[0]
        fact = self.journal.compose(
            self.update.name,
            kind,
            self.update.state,
            CHART.next(self.update.state, kind),
            {"release": "r"},
        )
        self._append(fact)
        self.die()


class Silent(Crashes):
    """The planted defect: facts are dropped before their ack, and no tombstone says so."""

    def _retain(self, limits: Limits) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retention, "bury", lambda _connection, _stone: None)
            super()._retain(limits)


class Forgetting(Crashes):
    """The planted defect: the beginning of a stream goes, and what it believed with it."""

    def _retain(self, limits: Limits) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retention, "_belief", lambda _info, _going, _freeze: "")
            super()._retain(limits)


@pytest.mark.parametrize("planted", [Forgetful, Silent, Forgetting])
def test_that_model_turns_red_with_each_planted_defect(planted: type[Crashes]) -> None:
    from hypothesis import Verbosity

    quick = settings(crashes(15), phases=[Phase.generate], verbosity=Verbosity.quiet)
    with pytest.raises(AssertionError):
        run(planted, quick)


def test_a_cut_wal_really_loses_facts_in_that_model(tmp_path: Path) -> None:
    """The fault fires: a WAL cut to nothing takes all that was not checkpointed."""
    place = tmp_path / "data"
    place.mkdir()
    journal: Any = open_at(place)
    stream = recall(journal, "app-update/1", MACHINE)
    stream.record("offered", {"release": "1"})
    killed = copy_as_killed(place, tmp_path / "killed")
    journal.close()
    (killed / "journal.db-wal").write_bytes(b"")

    with open_at(killed) as again:
        assert again.head(Lane.CORE).seq == 0
