"""What of an old epoch is written again into the new one, and what is told about the rest.

Rules
- Carried: every verified fact that Cloudly had not acked, and every fact of the streams that are open or still wanted,
  as far as verified. In their old order, with their old stamps and data; only seq, n and hash are new.
- A stream is broken when it has facts that are not verified, or its facts do not lead on from one to the next, or its
  final one is not there. A broken stream cannot be folded: it is closed, and a note says so (`stream-lost`).
- What hangs on no anchor is evidence: a note (`salvaged`) with the old fact as its data, the newest first, bounded.
- Everything else behind Cloudly's ack is told as `lost`: nothing is left out in silence.
- The newest attempt of every machine stays known, so that no name is ever given twice.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import NamedTuple

from journal.facts import MAX_DATA, Fact, Head, Lane, StreamInfo, split_name
from journal.problems import Malformed
from journal.salvage import Found, LaneFound, Ranges, Salvaged, Trust, gaps
from journal.tombstone import Tombstone

EVIDENCE_FACTS = 500
EVIDENCE_BYTES = 256 * 1024
MOST_RANGES = 200
"""Of a lane that are told one by one; with more of them there is no evidence, and so fewer ranges."""
NO_FACT = 0
"""`last_seq` of a stream that has ended and left no fact."""
_EVIDENCE = frozenset({Trust.PROVEN, Trust.LOOSE, Trust.UNCOMMITTED})


LOST = "lost"
"""The state of an attempt that cannot be read any more: no chart has it, so nobody goes on with it."""


class Breadth(IntEnum):
    """How much is carried where there is not room for all."""

    NOTHING = 0
    UNACKED_AND_OPEN = 1
    WANTED_TOO = 2
    EVIDENCE_TOO = 3


class StreamRow(NamedTuple):
    """A stream as it stands in the new epoch."""

    machine: str
    attempt: int
    lane: Lane
    first_seq: int
    last_seq: int | None
    carried: str
    belief: str


class Broken(NamedTuple):
    """An open or wanted stream that cannot be folded; `verified` is the state that its trusted facts lead to."""

    info: StreamInfo
    verified: str


@dataclass(frozen=True, slots=True)
class Load:
    """What goes into the new epoch."""

    breadth: Breadth
    facts: list[Fact]
    evidence: list[Found]
    broken: list[Broken]
    infos: list[StreamInfo]
    whole: frozenset[str]
    """Streams that are carried so that they can be folded."""
    lanes: dict[str, dict[str, object]] = field(repr=False)
    """What is told of each lane."""


def choose(found: Salvaged, wanted: Callable[[StreamInfo], bool], breadth: Breadth) -> Load:
    if breadth is Breadth.NOTHING:
        lanes = {lane.value: _told(found, lane, [], []) for lane in Lane}
        return Load(breadth, [], [], [], found.streams, frozenset(), lanes)
    asked = {
        info.name: _Story(info)
        for info in found.streams
        if not info.ended or (breadth >= Breadth.WANTED_TOO and wanted(info))
    }
    unacked, evidence = _read(found, asked)
    if breadth < Breadth.EVIDENCE_TOO:
        evidence = {lane: [] for lane in Lane}
    whole = {name: story for name, story in asked.items() if not story.broken}
    facts = {(fact.lane, fact.seq): fact for fact in unacked}
    for story in whole.values():
        facts |= {(fact.lane, fact.seq): fact for fact in story.facts}
    carried = sorted(facts.values(), key=lambda fact: (fact.n, fact.lane, fact.seq))
    evidence = {lane: _tellable(found, lane, carried, evidence[lane]) for lane in Lane}
    lanes = {lane.value: _told(found, lane, carried, evidence[lane]) for lane in Lane}
    broken = [story.loss for story in asked.values() if story.broken]
    shown = sorted((it for lane in Lane for it in evidence[lane]), key=lambda it: it.fact.n)
    return Load(breadth, carried, shown, broken, found.streams, frozenset(whole), lanes)


def stream_rows(load: Load, placed: dict[tuple[Lane, int], int]) -> list[StreamRow]:
    """How the streams stand in the new epoch, where `placed` says which seq each carried fact has there."""
    copies: dict[str, list[Fact]] = {}
    for fact in load.facts:
        if not fact.is_note:
            copies.setdefault(fact.stream, []).append(fact)
    newest = _newest_attempts(load.infos)
    ends = {
        lane: max([0, *(new for (of, _), new in placed.items() if of == lane)]) for lane in Lane
    }
    rows = []
    for info in load.infos:
        machine, attempt = split_name(info.name)
        there = [fact for fact in copies.get(info.name, ()) if fact.lane == info.lane]
        is_open = not info.ended and info.name in load.whole
        if there:
            carried, belief = _begins(info, there[0], whole=info.name in load.whole)
            first, end = (placed[it.lane, it.seq] for it in (there[0], there[-1]))
            row = (first, None if is_open else end, carried, belief)
        elif is_open:
            row = (ends[info.lane] + 1, None, info.carried, info.belief)
        elif info.name in load.whole:
            row = (1, NO_FACT, info.carried, info.belief)
        elif newest[machine] == attempt:
            row = (1, NO_FACT, _ended_in(info) or LOST, "")
        else:
            continue
        rows.append(StreamRow(machine, attempt, info.lane, *row))
    return rows


def _ended_in(info: StreamInfo) -> str:
    """The state that a stream ended in; empty where the fact that says so is lost."""
    if info.last_seq is None:
        return ""
    if info.last is not None:
        return info.last.dst if info.last.seq == info.last_seq else ""
    return info.carried if info.first_seq > info.last_seq else ""


@dataclass
class _Story:
    """One stream that is needed, as it is read."""

    info: StreamInfo
    facts: list[Fact] = field(default_factory=list)
    state: str = ""
    broken: bool = False

    def __post_init__(self) -> None:
        self.state = self.info.carried
        last = self.info.last_seq
        self._awaits_end = None if last is None or last < self.info.first_seq else last

    def see(self, fact: Fact, trust: Trust) -> None:
        if trust is Trust.UNCOMMITTED:
            return
        if trust is not Trust.VERIFIED:
            self.broken = True
            return
        begins = not self.facts and not self.info.carried and fact.seq == self.info.first_seq
        self.broken |= not begins and fact.src != self.state
        self.facts.append(fact)
        self.state = fact.dst
        if fact.seq == self._awaits_end:
            self._awaits_end = None

    def close(self) -> None:
        """All of it has been read."""
        began = bool(self.facts) or bool(self.info.carried)
        self.broken |= not began or self._awaits_end is not None

    @property
    def loss(self) -> Broken:
        return Broken(self.info, self.state)


def _read(found: Salvaged, asked: dict[str, _Story]) -> tuple[list[Fact], dict[Lane, list[Found]]]:
    unacked: list[Fact] = []
    evidence: dict[Lane, list[Found]] = {}
    for lane in Lane:
        newest: deque[Found] = deque(maxlen=EVIDENCE_FACTS)
        acked = found.lanes[lane].acked.seq
        for each in found.facts(lane):
            fact, trust = each
            story = asked.get(fact.stream)
            if story and story.info.lane == lane and not fact.is_note:
                story.see(fact, trust)
            if fact.seq > acked and trust is Trust.VERIFIED:
                unacked.append(fact)
            elif fact.seq > acked and trust in _EVIDENCE:
                newest.append(each)
        evidence[lane] = list(newest)
    for story in asked.values():
        story.close()
    return unacked, _bounded(evidence)


def _bounded(evidence: dict[Lane, list[Found]]) -> dict[Lane, list[Found]]:
    """The newest of them, transitions before log lines, as many as there is place for."""
    count, room = EVIDENCE_FACTS, EVIDENCE_BYTES
    kept: dict[Lane, list[Found]] = {lane: [] for lane in Lane}
    for lane in Lane:
        for each in reversed(evidence[lane]):
            size = len(each.fact.data) + 400
            if count == 0 or room < size:
                break
            count, room = count - 1, room - size
            kept[lane].insert(0, each)
    return kept


def _tellable(
    found: Salvaged, lane: Lane, carried: list[Fact], evidence: list[Found]
) -> list[Found]:
    lost = _lost(found.lanes[lane], _seqs(lane, carried, evidence))
    return evidence if len(lost) <= MOST_RANGES else []


def _begins(info: StreamInfo, first: Fact, *, whole: bool) -> tuple[str, str]:
    """What was believed before the first fact that is carried."""
    if whole or first.seq == info.first_seq:
        return info.carried, info.belief
    return first.src, ""


def _newest_attempts(infos: Iterable[StreamInfo]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for info in infos:
        machine, attempt = split_name(info.name)
        newest[machine] = max(attempt, newest.get(machine, 0))
    return newest


# ------------------------------------------------------------------------------------------ what is told


def _told(
    found: Salvaged, lane: Lane, carried: list[Fact], evidence: list[Found]
) -> dict[str, object]:
    known = found.lanes[lane]
    old = sorted(fact.seq for fact in carried if fact.lane == lane)
    shown = sorted(it.fact.seq for it in evidence)
    lost = _lost(known, _seqs(lane, carried, evidence))
    return {
        "head": known.head.seq,
        "hash": known.head.hash.hex(),
        "acked": known.acked.seq,
        "verified": known.verified.seq,
        "carried": [old[0], old[-1]] if old else None,
        "lost": [list(each) for each in lost],
        "evidence": [list(each) for each in _runs(shown)],
        "dropped": [_dropped(gone) for gone in _unacked(found.tombstones, lane, known.acked)],
    }


def _seqs(lane: Lane, carried: Iterable[Fact], evidence: Iterable[Found]) -> set[int]:
    return {fact.seq for fact in carried if fact.lane == lane} | {it.fact.seq for it in evidence}


def _lost(known: LaneFound, there: set[int]) -> Ranges:
    acked = known.acked.seq
    return gaps(_runs(sorted(seq for seq in there if seq > acked)), acked, known.reached)


def _runs(seqs: Iterable[int]) -> Ranges:
    runs: Ranges = []
    for seq in seqs:
        if runs and runs[-1][1] == seq - 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return runs


def _unacked(tombstones: list[Tombstone], lane: Lane, acked: Head) -> Iterator[Tombstone]:
    found = [gone for gone in tombstones if gone.lane == lane and gone.last_seq > acked.seq]
    yield from found[-32:]


def _dropped(gone: Tombstone) -> dict[str, object]:
    """What the device had dropped itself: part of `lost`, with its reason."""
    told = asdict(gone)
    del told["lane"]
    return told


def note_of(each: Found) -> tuple[str, dict[str, object]]:
    """The stream and the data of the note that keeps a fact as evidence."""
    fact = each.fact
    kept = {
        "trust": each.trust.value,
        "lane": fact.lane.value,
        "seq": fact.seq,
        "n": fact.n,
        "stream": fact.stream,
        "kind": fact.kind,
        "src": fact.src,
        "dst": fact.dst,
        "at_ms": fact.at_ms,
        "boot_id": fact.boot_id,
        "mono_ms": fact.mono_ms,
        "skew_ms": fact.skew_ms,
        "hash": fact.hash.hex(),
    }
    if len(json.dumps(fact.data)) > MAX_DATA - 1_000:  # a text within a text is longer
        return _stream_of(fact), {**kept, "data_bytes": len(fact.data)}
    return _stream_of(fact), {**kept, "data": fact.data}


def _stream_of(fact: Fact) -> str:
    try:
        split_name(fact.stream)
    except Malformed:
        return "epoch/1"
    return fact.stream
