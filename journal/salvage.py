"""What can be read of a damaged journal, and how far each fact of it can be trusted; nothing is changed by looking.

Rules
- A chain is trusted from an anchor: the base that it hangs on, and the position that Cloudly has acked. A fact that
  follows from an anchor without a gap is `verified`: it is what was written. So is one that leads up to an anchor: a
  hash that is trusted covers the one before it.
- A fact that only follows from a stored neighbour is `proven` by that one alone; behind a hole the first is `loose`.
  Both are evidence for people, never folded. What does not follow from a neighbour that is there is `changed`: lost.
- A fact in the WAL behind its last valid commit is `uncommitted`: the commit was torn, or was never made.
- Tables that change are read where the schema says they are; where no schema is left, by the shape of their rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from journal import schema
from journal.chain import genesis
from journal.facts import Fact, Head, Lane, StreamInfo, split_name
from journal.leaves import Leaf, by_seq, find_leaves, follows, in_order, place
from journal.pages import MAGIC, UNCHECKED, Frames, Pages
from journal.problems import Malformed, NoJournal
from journal.tables import Tables, must_be_ours, table_roots
from journal.tombstone import Tombstone

Ranges = list[tuple[int, int]]
MOST_FACTS = 10_000_000
"""Of one lane beyond its base: a greater number in a table was damaged itself."""
_EPOCH = re.compile(rb"epoch([0-9a-zA-Z-]{8,36})")


class Trust(StrEnum):
    VERIFIED = "verified"
    PROVEN = "proven"
    LOOSE = "loose"
    CHANGED = "changed"
    UNCOMMITTED = "uncommitted"


class Found(NamedTuple):
    fact: Fact
    trust: Trust


class Seen(NamedTuple):
    """A stream by its transitions that can be read."""

    first_seq: int
    last: Fact


@dataclass(frozen=True, slots=True)
class LaneFound:
    """One lane: `trusted` says which seqs are verified, `lost` which between base and `reached` are not there.

    `head` is the newest fact that was committed and can be read, `reached` the furthest that anything speaks of.
    `acked_known` is False where the table of acks cannot be read: then `acked` is the base, and more is carried.
    """

    lane: Lane
    base: Head
    acked: Head
    acked_known: bool
    head: Head
    verified: Head
    """The last fact of the newest verified run; the base when there is none."""
    counts: dict[Trust, int]
    trusted: Ranges
    lost: Ranges
    reached: int

    @property
    def readable(self) -> int:
        return sum(self.counts.values())

    def trusts(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self.trusted)

    def begins_whole(self, seq: int) -> bool:
        """Whether everything from the first fact of the epoch up to `seq` is verified."""
        return bool(self.trusted) and self.trusted[0][0] == 1 and seq <= self.trusted[0][1]


@dataclass(frozen=True, slots=True)
class Salvaged:
    """`epoch` is empty where it cannot be had, `problems` are sentences about the file, empty for a whole journal."""

    path: Path
    epoch: str
    lanes: dict[Lane, LaneFound]
    streams: list[StreamInfo]
    tombstones: list[Tombstone]
    problems: list[str]
    _leaves: dict[Lane, list[Leaf]] = field(repr=False)
    _frames: Frames = field(repr=False)

    @property
    def ok(self) -> bool:
        return not self.problems

    def facts(self, lane: Lane, *, after: int = 0) -> Iterator[Found]:
        """What can be read behind `after`, in order. Reads the files again: they must not have moved."""
        known = self.lanes[lane]
        acked = known.acked if known.acked_known else None
        with Pages(self.path, self._frames) as pages:
            for found in _walk(pages, self._leaves[lane], lane, known.base, acked):
                fact, trust = found
                if fact.seq > after:
                    proven = trust is Trust.PROVEN and known.trusts(fact.seq)
                    yield Found(fact, Trust.VERIFIED) if proven else found


def salvage(path: Path, *, epochs: Iterable[str] = ()) -> Salvaged:
    """`path` is the database file or its directory; `epochs`: those that it may be of, for when it cannot say itself.

    Raises NoJournal, FromTheFuture; Foreign when it is another application's.
    """
    path = path / schema.FILE if path.is_dir() else path
    with Pages(path) as pages:
        if not pages.db_bytes and not pages.wal_bytes and not path.exists():
            raise NoJournal(f"salvage {path}", "there is none", "check the directory")
        roots = table_roots(pages)
        leaves, unplaced = find_leaves(pages)
        must_be_ours(pages, roots, anything=bool(unplaced or any(leaves.values())))
        tables = Tables(pages, roots)
        place(pages, leaves, unplaced)
        epoch = tables.epoch or _proven_epoch(pages, leaves, epochs)
        problems = _about_the_file(pages, roots, tables, epoch)
        lanes, seen_of = {}, {}
        for lane in Lane:
            lanes[lane], seen_of[lane] = _survey(pages, leaves[lane], lane, epoch, tables)
            if lane in roots and not in_order(pages, roots[lane], leaves[lane]):
                problems.append(f"{lane}: its pages do not stand where its tree says")
            problems += _about_the_lane(lanes[lane])
        streams = _streams(tables, lanes, seen_of)
    return Salvaged(path, epoch, lanes, streams, tables.tombstones, problems, leaves, pages.frames)


# ------------------------------------------------------------------------------------------ how far to trust


def _walk(
    pages: Pages, leaves: list[Leaf], lane: Lane, base: Head, acked: Head | None
) -> Iterator[Found]:
    """Every fact behind the base in order, each with how far it can be trusted (the rules above)."""
    at, prev, anchored = base.seq, base.hash or None, bool(base.hash)
    for seq, images in by_seq(pages, leaves, lane):
        if seq <= base.seq:
            continue
        if seq != at + 1:
            prev, anchored = None, False
        if acked and seq == acked.seq + 1 and not anchored and _choose(images, acked.hash)[2]:
            prev, anchored = acked.hash, True
        rank, fact, does = _choose(images, prev)
        anchored = anchored and does and rank < UNCHECKED
        yield Found(fact, _trust(rank, does=does, anchored=anchored, alone=prev is None))
        at, prev = seq, fact.hash


def _choose(images: list[tuple[int, Fact]], prev: bytes | None) -> tuple[int, Fact, bool]:
    """The image that follows, if one does; else the one that counts most."""
    if prev is not None:
        for rank, fact in images:
            if follows(fact, prev):
                return rank, fact, True
    return *images[0], False


def _trust(rank: int, *, does: bool, anchored: bool, alone: bool) -> Trust:
    if rank == UNCHECKED:
        return Trust.UNCOMMITTED
    if anchored:
        return Trust.VERIFIED
    if does:
        return Trust.PROVEN
    return Trust.LOOSE if alone else Trust.CHANGED


@dataclass
class _Survey:
    """One lane as it is walked along."""

    base: Head
    acked: Head | None
    counts: dict[Trust, int] = field(default_factory=lambda: dict.fromkeys(Trust, 0))
    trusted: Ranges = field(default_factory=list)
    there: Ranges = field(default_factory=list)
    seen_of: dict[str, Seen] = field(default_factory=dict)
    acked_at: int | None = None
    _run: int = 0

    def __post_init__(self) -> None:
        self.head = self.verified = self.base

    def see(self, fact: Fact, trust: Trust) -> None:
        self.counts[trust] += 1
        self._run = self._run + 1 if trust is Trust.PROVEN else 0
        if self.acked and fact.hash == self.acked.hash:
            self.acked_at = fact.seq
            trust = self._backwards(fact, trust)
        if trust is Trust.VERIFIED:
            _extend(self.trusted, fact.seq)
            self.verified = Head(fact.seq, fact.hash)
        if trust is not Trust.UNCOMMITTED:
            self.head = Head(fact.seq, fact.hash)
        if trust is not Trust.CHANGED:
            _extend(self.there, fact.seq)
        if not fact.is_note:
            first = self.seen_of[fact.stream].first_seq if fact.stream in self.seen_of else fact.seq
            self.seen_of[fact.stream] = Seen(first, fact)

    def _backwards(self, fact: Fact, trust: Trust) -> Trust:
        """A trusted hash covers the one before it: all that leads up to Cloudly's ack in one run is verified."""
        if trust is not Trust.PROVEN:
            return trust
        self.counts[Trust.PROVEN] -= self._run
        self.counts[Trust.VERIFIED] += self._run
        if self._run > 1:
            self.trusted.append((fact.seq - self._run + 1, fact.seq - 1))
        self._run = 0
        return Trust.VERIFIED


def _survey(
    pages: Pages, leaves: list[Leaf], lane: Lane, epoch: str, tables: Tables
) -> tuple[LaneFound, dict[str, Seen]]:
    base, acked = _base(pages, leaves, lane, epoch, tables), tables.ack(lane)
    found = _Survey(base, acked)
    for each in _walk(pages, leaves, lane, base, acked):
        found.see(*each)
    if acked and found.acked_at not in {
        None,
        acked.seq,
    }:  # its number was damaged, its hash was not
        acked = Head(found.acked_at or 0, acked.hash)
        found = _Survey(base, acked)
        for each in _walk(pages, leaves, lane, base, acked):
            found.see(*each)
    named = [found.head.seq, acked.seq if acked else 0, tables.reached(lane)]
    reached = max(seq for seq in named if seq - base.seq <= MOST_FACTS)
    lane_found = LaneFound(
        lane=lane,
        base=base,
        acked=acked or base,
        acked_known=acked is not None,
        head=found.head,
        verified=found.verified,
        counts=found.counts,
        trusted=found.trusted,
        lost=gaps(found.there, base.seq, reached),
        reached=reached,
    )
    return lane_found, found.seen_of


def _base(pages: Pages, leaves: list[Leaf], lane: Lane, epoch: str, tables: Tables) -> Head:
    """What the lane hangs on: a candidate that a fact follows, or that at least no fact speaks against."""
    stored = tables.positions("base", lane)
    candidates = [Head(0, genesis(epoch, lane)), *stored] if epoch else stored
    beside = [leaf for leaf in leaves if _touches(leaf, candidates)]
    there = dict(by_seq(pages, beside, lane))
    for base in candidates:
        if base.seq + 1 in there and _choose(there[base.seq + 1], base.hash)[2]:
            return base
    for base in stored:
        oldest = min((leaf.first for leaf in leaves), default=base.seq + 1)
        is_it = any(fact.hash == base.hash for _, fact in there.get(base.seq, ()))
        if is_it or base.seq < oldest:
            return base
    return Head(0, genesis(epoch, lane) if epoch else b"")


def _touches(leaf: Leaf, candidates: list[Head]) -> bool:
    return any(leaf.first - 1 <= base.seq <= leaf.last for base in candidates)


def _extend(ranges: Ranges, seq: int) -> None:
    if ranges and ranges[-1][1] == seq:
        return
    if ranges and ranges[-1][1] == seq - 1:
        ranges[-1] = (ranges[-1][0], seq)
    else:
        ranges.append((seq, seq))


def gaps(there: Ranges, after: int, upto: int) -> Ranges:
    """What is missing between the ranges, from `after` (not included) to `upto`."""
    missing, at = [], after
    for first, last in there:
        if first > at + 1:
            missing.append((at + 1, first - 1))
        at = max(at, last)
    return [*missing, (at + 1, upto)] if upto > at else missing


# ------------------------------------------------------------------------------------------ what is told


def _proven_epoch(pages: Pages, leaves: dict[Lane, list[Leaf]], epochs: Iterable[str]) -> str:
    """An epoch that is known, or stands anywhere in the file, and that the first fact of a lane hangs on."""
    candidates = set(epochs)
    for number in range(1, pages.count + 1):
        candidates.update(str(text, "ascii") for text in _EPOCH.findall(pages.newest(number)))
    for lane in Lane:
        begins = [leaf for leaf in leaves[lane] if leaf.first == 1]
        first = dict(by_seq(pages, begins, lane)).get(1)
        for epoch in sorted(candidates) if first else ():
            if first and _choose(first, genesis(epoch, lane))[2]:
                return epoch
    return ""


def _streams(
    tables: Tables, lanes: dict[Lane, LaneFound], seen_of: dict[Lane, dict[str, Seen]]
) -> list[StreamInfo]:
    """Those of the table, and those that only their facts speak of: nothing says whether such a one has ended.

    Where facts before its first one are missing too, it begins at 0: nobody knows where it began.
    """
    infos = {}
    for machine, attempt, home, first, last, carried, belief, *_ in tables.streams:
        name, lane = f"{machine}/{attempt}", Lane(home)
        found = seen_of[lane].get(name)
        infos[name] = StreamInfo(
            name, lane, first, last, carried, belief, found.last if found else None
        )
    for lane in Lane:
        for name, found in seen_of[lane].items():
            if name not in infos and _is_name(name):
                began = found.first_seq if lanes[lane].begins_whole(found.first_seq) else 0
                infos[name] = StreamInfo(name, lane, began, None, "", "", found.last)
    return [infos[name] for name in sorted(infos, key=split_name)]


def _is_name(name: str) -> bool:
    try:
        split_name(name)
    except Malformed:
        return False
    return True


def _about_the_file(pages: Pages, roots: dict[str, int], tables: Tables, epoch: str) -> list[str]:
    said = []
    if not pages.db_bytes:
        said.append("the database file is empty or gone")
    elif pages.newest(1)[:16] != MAGIC:
        said.append("its first page is not that of a database")
    elif not roots:
        said.append("its list of tables cannot be read")
    if pages.db_bytes % 4096:
        said.append("the database file ends within a page")
    if tables.guessed:
        said.append("a small table cannot be read where it should be: its rows were looked for")
    if not epoch:
        said.append("its epoch cannot be had")
    return said


def _about_the_lane(lane: LaneFound) -> list[str]:
    said = []
    if not lane.base.hash:
        said.append(f"{lane.lane}: nothing of it can be read")
    for first, last in lane.lost[:10]:
        what = f"fact {first} is" if first == last else f"facts {first} to {last} are"
        said.append(f"{lane.lane}: {what} lost")
    loose = lane.counts[Trust.PROVEN] + lane.counts[Trust.LOOSE]
    if loose:
        said.append(f"{lane.lane}: {loose} facts hang on no anchor")
    return said
