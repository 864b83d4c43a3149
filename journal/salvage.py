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

import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from journal import schema
from journal.chain import genesis
from journal.facts import Fact, Head, Lane, StreamInfo, split_name
from journal.pages import MAGIC, UNCHECKED, Image, Pages, Record
from journal.problems import Damaged, FromTheFuture, Malformed, NoJournal

Ranges = list[tuple[int, int]]
_EPOCH = re.compile(rb"epoch([0-9a-zA-Z-]{8,36})")
_HASH_BYTES = 32


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


class Gone(NamedTuple):
    """Facts that the device had dropped itself before Cloudly had them."""

    lane: Lane
    first_seq: int
    last_seq: int
    why: str
    told: str


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
    tombstones: list[Gone]
    problems: list[str]
    _leaves: dict[Lane, list[Leaf]] = field(repr=False)

    @property
    def ok(self) -> bool:
        return not self.problems

    def facts(self, lane: Lane, *, after: int = 0) -> Iterator[Found]:
        """What can be read behind `after`, in order. Reads the files again: they must not have moved."""
        known = self.lanes[lane]
        acked = known.acked if known.acked_known else None
        with Pages(self.path) as pages:
            for found in _walk(pages, self._leaves[lane], lane, known.base, acked):
                fact, trust = found
                if fact.seq > after:
                    proven = trust is Trust.PROVEN and known.trusts(fact.seq)
                    yield Found(fact, Trust.VERIFIED) if proven else found


def salvage(path: Path) -> Salvaged:
    """`path` is the database file or its directory. Raises NoJournal, FromTheFuture; Damaged: it is somebody else's."""
    path = path / schema.FILE if path.is_dir() else path
    with Pages(path) as pages:
        if not pages.db_bytes and not pages.wal_bytes and not path.exists():
            raise NoJournal(f"salvage {path}", "there is none", "check the directory")
        roots = _roots(pages)
        leaves, unplaced = _leaves(pages)
        _must_be_ours(pages, roots, anything=bool(unplaced or any(leaves.values())))
        tables = _Tables(pages, roots)
        _place(pages, leaves, unplaced)
        epoch = tables.epoch or _proven_epoch(pages, leaves)
        problems = _about_the_file(pages, roots, tables, epoch)
        lanes, seen_of = {}, {}
        for lane in Lane:
            lanes[lane], seen_of[lane] = _survey(pages, leaves[lane], lane, epoch, tables)
            problems += _about_the_lane(lanes[lane])
        streams = _streams(tables, lanes, seen_of)
    return Salvaged(path, epoch, lanes, streams, tables.tombstones, problems, leaves)


# ------------------------------------------------------------------------------------------ where facts lie


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page that holds facts, and between which seqs."""

    first: int
    last: int
    image: Image


def _fact(lane: Lane, rowid: int, row: Record) -> Fact | None:
    """A row of version 1 lacks the skew; what has not a fact's shape is none."""
    if len(row) < 11 or row[0] is not None or rowid < 1:
        return None
    _, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, data, linked, *rest = row
    skew_ms = rest[0] if rest else None
    texts, numbers = (stream, kind, src, dst, boot_id, data), (n, at_ms, mono_ms, skew_ms or 0)
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(isinstance(number, int) for number in numbers)
        or not isinstance(linked, bytes)
        or len(linked) != _HASH_BYTES
    ):
        return None
    return Fact(
        lane, rowid, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, skew_ms, data, linked
    )


def _facts_on(pages: Pages, image: Image, lane: Lane) -> list[Fact]:
    rows = pages.rows(pages.read(image), image.number)
    found = [fact for rowid, row in rows if (fact := _fact(lane, rowid, row))]
    found.sort(key=lambda fact: fact.seq)
    return found


def _in_lane(fact: Fact, lane: Lane, prev: bytes) -> bool:
    return follows(fact._replace(lane=lane), prev)


def follows(fact: Fact, prev: bytes) -> bool:
    """A damaged row may hold anything."""
    try:
        return fact.follows(prev)
    except (TypeError, ValueError):
        return False


def _leaves(pages: Pages) -> tuple[dict[Lane, list[Leaf]], list[Leaf]]:
    """Which pages hold facts of which lane: a row does not name its lane, but its hash covers it."""
    placed: dict[Lane, list[Leaf]] = {lane: [] for lane in Lane}
    unplaced: list[Leaf] = []
    for image in pages.images():
        facts = _facts_on(pages, image, Lane.CORE)
        if not facts:
            continue
        leaf = Leaf(facts[0].seq, facts[-1].seq, image)
        lane = _lane_of(facts)
        (placed[lane] if lane else unplaced).append(leaf)
    return placed, unplaced


def _lane_of(facts: list[Fact]) -> Lane | None:
    for one, other in pairwise(facts):
        if other.seq == one.seq + 1:
            for lane in Lane:
                if _in_lane(other, lane, one.hash):
                    return lane
    return None


def _place(pages: Pages, leaves: dict[Lane, list[Leaf]], unplaced: list[Leaf]) -> None:
    """A page with a single fact belongs where it follows the one before, or the one behind it follows."""
    pending, before = sorted(unplaced, key=lambda leaf: leaf.first), -1
    while pending and len(pending) != before:
        before, left = len(pending), []
        hashes = _hashes_beside(pages, leaves, pending)
        for leaf in pending:
            lane = _lane_beside(pages, leaf, hashes, pending)
            if lane:
                leaves[lane].append(leaf)
                hashes[lane].update(_ends(pages, leaf))
            else:
                left.append(leaf)
        pending = left
    for (
        leaf
    ) in pending:  # nothing speaks for either: a fact without neighbours, in the lane that counts
        leaves[Lane.CORE].append(leaf)


Facts = dict[int, list[Fact]]


def _ends(pages: Pages, leaf: Leaf) -> Facts:
    facts = _facts_on(pages, leaf.image, Lane.CORE)
    return {facts[0].seq: [facts[0]], facts[-1].seq: [facts[-1]]}


def _hashes_beside(
    pages: Pages, leaves: dict[Lane, list[Leaf]], pending: Iterable[Leaf]
) -> dict[Lane, Facts]:
    """The facts at the ends of placed pages that touch one of those."""
    wanted = {seq for leaf in pending for seq in (leaf.first - 1, leaf.last + 1)}
    found: dict[Lane, Facts] = {lane: {} for lane in Lane}
    for lane in Lane:
        for leaf in leaves[lane]:
            if leaf.first in wanted or leaf.last in wanted:
                for seq, facts in _ends(pages, leaf).items():
                    found[lane].setdefault(seq, []).extend(facts)
    return found


def _lane_beside(
    pages: Pages, leaf: Leaf, beside: dict[Lane, Facts], pending: Iterable[Leaf]
) -> Lane | None:
    facts = _facts_on(pages, leaf.image, Lane.CORE)
    for lane in Lane:
        if any(_in_lane(facts[0], lane, it.hash) for it in beside[lane].get(leaf.first - 1, ())):
            return lane
        if any(_in_lane(it, lane, facts[-1].hash) for it in beside[lane].get(leaf.last + 1, ())):
            return lane
    for other in pending:
        if other.first == leaf.last + 1:
            following = _facts_on(pages, other.image, Lane.CORE)[0]
            for lane in Lane:
                if _in_lane(following, lane, facts[-1].hash):
                    return lane
    return None


# ------------------------------------------------------------------------------------------ how far to trust


def _by_seq(
    pages: Pages, leaves: list[Leaf], lane: Lane
) -> Iterator[tuple[int, list[tuple[int, Fact]]]]:
    """Every seq with what stands under it, what counts most first; a page at a time."""
    pending: list[tuple[int, int, int, Fact]] = []
    order = 0
    for leaf in [*sorted(leaves, key=lambda leaf: (leaf.first, leaf.image.rank)), None]:
        while pending and (leaf is None or pending[0][0] < leaf.first):
            seq, same = pending[0][0], []
            while pending and pending[0][0] == seq:
                _, rank, _, fact = heapq.heappop(pending)
                same.append((rank, fact))
            yield seq, same
        for fact in _facts_on(pages, leaf.image, lane) if leaf else ():
            order += 1
            heapq.heappush(pending, (fact.seq, leaf.image.rank if leaf else 0, order, fact))


def _walk(
    pages: Pages, leaves: list[Leaf], lane: Lane, base: Head, acked: Head | None
) -> Iterator[Found]:
    """Every fact behind the base in order, each with how far it can be trusted (the rules above)."""
    at, prev, anchored = base.seq, base.hash or None, bool(base.hash)
    for seq, images in _by_seq(pages, leaves, lane):
        if seq <= base.seq:
            continue
        if seq != at + 1:
            prev, anchored = None, False
        if acked and seq == acked.seq + 1 and not anchored:
            prev, anchored = acked.hash, True
        rank, fact, does = _choose(images, prev)
        anchored = anchored and does and rank < UNCHECKED
        yield Found(fact, _trust(rank, does=does, anchored=anchored, alone=prev is None))
        at, prev = seq, fact.hash


def _choose(images: list[tuple[int, Fact]], prev: bytes | None) -> tuple[int, Fact, bool]:
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


def _survey(
    pages: Pages, leaves: list[Leaf], lane: Lane, epoch: str, tables: _Tables
) -> tuple[LaneFound, dict[str, Seen]]:
    base = _base(pages, leaves, lane, epoch, tables)
    acked = tables.ack(lane)
    counts: dict[Trust, int] = dict.fromkeys(Trust, 0)
    trusted: Ranges = []
    there: Ranges = []
    seen_of: dict[str, Seen] = {}
    head = verified = base
    loose_run: list[int] = []
    for fact, seen in _walk(pages, leaves, lane, base, acked):
        trust = seen
        if trust is Trust.PROVEN:
            loose_run.append(fact.seq)
            if acked == (
                fact.seq,
                fact.hash,
            ):  # what a trusted hash covers is trusted too, backwards
                counts[Trust.PROVEN] -= len(loose_run) - 1
                counts[Trust.VERIFIED] += len(loose_run) - 1
                trusted += [(loose_run[0], fact.seq)]
                trust, loose_run = Trust.VERIFIED, []
        else:
            loose_run = []
        counts[trust] += 1
        if not fact.is_note:
            first = seen_of[fact.stream].first_seq if fact.stream in seen_of else fact.seq
            seen_of[fact.stream] = Seen(first, fact)
        if trust is Trust.VERIFIED:
            _extend(trusted, fact.seq)
            verified = Head(fact.seq, fact.hash)
        if trust is not Trust.UNCOMMITTED:
            head = Head(fact.seq, fact.hash)
        if trust is not Trust.CHANGED:
            _extend(there, fact.seq)
    reached = max([head.seq, tables.reached(lane), *([acked.seq] if acked else [])])
    lost = _gaps(there, base.seq, reached)
    known = acked or base
    return LaneFound(
        lane, base, known, acked is not None, head, verified, counts, trusted, lost, reached
    ), seen_of


def _base(pages: Pages, leaves: list[Leaf], lane: Lane, epoch: str, tables: _Tables) -> Head:
    """The candidate that facts hang on; without one the lane hangs on nothing."""
    candidates = [*tables.positions("base", lane)]
    if epoch:
        candidates.append(Head(0, genesis(epoch, lane)))
    firsts = {
        seq: images
        for seq, images in _by_seq(
            pages, [leaf for leaf in leaves if _holds(leaf, candidates)], lane
        )
        if any(seq == base.seq + 1 for base in candidates)
    }
    for base in candidates:
        if _choose(firsts.get(base.seq + 1, [(0, _NOBODY)]), base.hash)[2]:
            return base
    return candidates[0] if candidates else Head(0, b"")


def _holds(leaf: Leaf, candidates: list[Head]) -> bool:
    return any(leaf.first <= base.seq + 1 <= leaf.last for base in candidates)


_NOBODY = Fact(Lane.CORE, 0, 0, "", "", "", "", 0, "", 0, None, "", b"")


def _extend(ranges: Ranges, seq: int) -> None:
    if ranges and ranges[-1][1] == seq:
        return
    if ranges and ranges[-1][1] == seq - 1:
        ranges[-1] = (ranges[-1][0], seq)
    else:
        ranges.append((seq, seq))


def _gaps(there: Ranges, after: int, upto: int) -> Ranges:
    gaps, at = [], after
    for first, last in there:
        if first > at + 1:
            gaps.append((at + 1, first - 1))
        at = max(at, last)
    return [*gaps, (at + 1, upto)] if upto > at else gaps


# ------------------------------------------------------------------------------------------ the other tables


def _roots(pages: Pages) -> dict[str, int]:
    """Where each table begins, as far as the first page can be read."""
    if pages.newest(1)[:16] != MAGIC:
        return {}
    return {
        row[1]: row[3]
        for row in pages.table(1)
        if len(row) >= 5
        and row[0] == "table"
        and isinstance(row[1], str)
        and isinstance(row[3], int)
        and 0 < row[3] <= pages.count
    }


def _must_be_ours(pages: Pages, roots: dict[str, int], *, anything: bool) -> None:
    first, tried = pages.newest(1), f"salvage {pages.path}"
    if first[:16] != MAGIC:
        return
    application, version = (int.from_bytes(first[at : at + 4], "big") for at in (68, 60))
    if application != schema.APPLICATION_ID and not anything and "core" not in roots:
        seen = f"it is another application's database (application id {application})"
        raise Damaged(tried, seen, "nothing was changed; find out whose it is, and move it away")
    if application == schema.APPLICATION_ID and version > schema.VERSION and "meta" in roots:
        meta = {row[0]: row[1] for row in pages.table(roots["meta"]) if len(row) == 2}
        if int(meta.get("oldest_writer", version)) > schema.VERSION:
            raise FromTheFuture(str(pages.path), version, schema.VERSION)


class _Tables:
    """Cursor, base, streams, tombstones and the epoch, with the schema or by their shape."""

    def __init__(self, pages: Pages, roots: dict[str, int]) -> None:
        self._rows: dict[str, list[Record]] = {}
        everything: list[Record] | None = None
        for name, has_shape in _SHAPES.items():
            rows = list(pages.table(roots[name])) if name in roots else []
            fitting = [row for row in rows if has_shape(row)]
            if not fitting and name != "tombstone":
                everything = list(pages.index_leaves()) if everything is None else everything
                fitting = [row for row in everything if has_shape(row)]
            self._rows[name] = fitting
        self.guessed = everything is not None

    @property
    def epoch(self) -> str:
        return next((str(row[1]) for row in self._rows["meta"] if row[0] == "epoch"), "")

    def positions(self, table: str, lane: Lane) -> list[Head]:
        found = [Head(row[1], row[2]) for row in self._rows[table] if row[0] == lane]
        return sorted(set(found))

    def ack(self, lane: Lane) -> Head | None:
        """Of several candidates the one furthest back: to carry too much is harmless."""
        return next(iter(self.positions("cursor", lane)), None)

    def reached(self, lane: Lane) -> int:
        """The furthest fact that a stream names."""
        rows = [row for row in self.streams if row[2] == lane]
        return max((max(row[3], row[4] or 0) for row in rows if not row[5]), default=0)

    @property
    def streams(self) -> list[Record]:
        """One row per attempt. Of several images, the one that ends it, and begins last, is the newest."""
        best: dict[tuple[str, int], Record] = {}
        for row in self._rows["stream"]:
            key, rank = (row[0], row[1]), (row[4] or 0, row[3])
            if key not in best or rank > (best[key][4] or 0, best[key][3]):
                best[key] = [*row, "", ""][:7] if len(row) < 7 else row
        return list(best.values())

    @property
    def tombstones(self) -> list[Gone]:
        return [Gone(Lane(row[0]), *row[1:5]) for row in self._rows["tombstone"]]


def _is(row: Record, *types: type | tuple[type, ...]) -> bool:
    return len(row) >= len(types) and all(map(isinstance, row, types))


_LANES = frozenset(Lane)


def _is_meta(row: Record) -> bool:
    return len(row) == 2 and _is(row, str, str) and row[0] == "epoch"


def _is_position(row: Record) -> bool:
    return len(row) == 3 and _is(row, str, int, bytes) and row[0] in _LANES


def _is_stream(row: Record) -> bool:
    ends = (int, type(None))
    return _is(row, str, int, str, int, ends, str) and row[2] in _LANES and row[1] > 0


def _is_tombstone(row: Record) -> bool:
    return _is(row, str, int, int, str, str) and row[0] in _LANES


_SHAPES: dict[str, Callable[[Record], bool]] = {
    "meta": _is_meta,
    "base": _is_position,
    "cursor": _is_position,
    "stream": _is_stream,
    "tombstone": _is_tombstone,
}


def _proven_epoch(pages: Pages, leaves: dict[Lane, list[Leaf]]) -> str:
    """An epoch that stands anywhere in the file and that the first fact of a lane hangs on."""
    candidates = {
        str(text, "ascii")
        for number in range(1, pages.count + 1)
        for text in _EPOCH.findall(pages.newest(number))
    }
    for lane in Lane:
        for seq, images in _by_seq(pages, [leaf for leaf in leaves[lane] if leaf.first == 1], lane):
            if seq == 1:
                for epoch in sorted(candidates):
                    if _choose(images, genesis(epoch, lane))[2]:
                        return epoch
    return ""


def _streams(
    tables: _Tables, lanes: dict[Lane, LaneFound], seen_of: dict[Lane, dict[str, Seen]]
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


def _about_the_file(pages: Pages, roots: dict[str, int], tables: _Tables, epoch: str) -> list[str]:
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


def told(text: str) -> dict[str, object]:
    """What a tombstone tells; empty where it is not readable."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
