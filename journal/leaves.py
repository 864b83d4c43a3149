"""Where in a database file the facts of each lane lie, when nothing that says so can be relied on.

A row does not name its lane, but its hash covers it: a page belongs to the lane whose chain holds within it, or, with a
single fact on it, to the lane of the page that it follows or that follows it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from journal.facts import Fact, Lane
from journal.pages import COMMITTED, Cell, Image, Pages, Record

_HASH_BYTES = 32
_INT, _STR = {int}, {str}
_PAIRS = 3
"""Neighbours on a page that are looked at for its lane before all of it is decoded."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page that holds facts, and between which seqs."""

    first: int
    last: int
    image: Image


def _fact(lane: Lane, rowid: int, row: Record | None) -> Fact | None:
    """A row of version 1 lacks the skew; what has not a fact's shape is none."""
    if row is None or len(row) < 11 or row[0] is not None or rowid < 1:
        return None
    _, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, data, linked, *rest = row
    skew_ms = rest[0] if rest else None
    if (
        type(linked) is not bytes
        or len(linked) != _HASH_BYTES
        or {type(n), type(at_ms), type(mono_ms), type(skew_ms or 0)} != _INT
        or {type(stream), type(kind), type(src), type(dst), type(boot_id), type(data)} != _STR
    ):
        return None
    return Fact(
        lane, rowid, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, skew_ms, data, linked
    )


def facts_on(pages: Pages, image: Image, lane: Lane) -> list[Fact]:
    page = pages.read(image)
    return [
        fact
        for cell in pages.cells(page, image.number)
        if (fact := _fact(lane, cell.rowid, pages.row(page, cell)))
    ]


def _in_lane(fact: Fact, lane: Lane, prev: bytes) -> bool:
    return follows(fact._replace(lane=lane), prev)


def follows(fact: Fact, prev: bytes) -> bool:
    """A damaged row may hold anything."""
    try:
        return fact.follows(prev)
    except (TypeError, ValueError):
        return False


def find_leaves(pages: Pages) -> tuple[dict[Lane, list[Leaf]], list[Leaf]]:
    """Which pages hold facts of which lane: a row does not name its lane, but its hash covers it."""
    placed: dict[Lane, list[Leaf]] = {lane: [] for lane in Lane}
    unplaced: list[Leaf] = []
    for image in pages.images():
        page = pages.read(image)
        cells = pages.cells(page, image.number)
        if not cells:
            continue
        lane = _lane_of(_few(pages, page, cells))
        leaf = Leaf(cells[0].rowid, cells[-1].rowid, image)
        if lane is None:
            facts = facts_on(pages, image, Lane.CORE)
            if not facts:
                continue
            lane, leaf = _lane_of(facts), Leaf(facts[0].seq, facts[-1].seq, image)
        (placed[lane] if lane else unplaced).append(leaf)
    return placed, unplaced


def _few(pages: Pages, page: bytes, cells: list[Cell]) -> list[Fact]:
    few = [(cell.rowid, pages.row(page, cell)) for cell in cells[: _PAIRS + 1]]
    return [fact for rowid, row in few if (fact := _fact(Lane.CORE, rowid, row))]


def _lane_of(facts: list[Fact]) -> Lane | None:
    """The lane whose chain holds between two neighbours."""
    for one, other in pairwise(facts):
        if other.seq == one.seq + 1:
            for lane in Lane:
                if _in_lane(other, lane, one.hash):
                    return lane
    return None


def place(pages: Pages, leaves: dict[Lane, list[Leaf]], unplaced: list[Leaf]) -> None:
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
    facts = facts_on(pages, leaf.image, Lane.CORE)
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
    facts = facts_on(pages, leaf.image, Lane.CORE)
    for lane in Lane:
        if any(_in_lane(facts[0], lane, it.hash) for it in beside[lane].get(leaf.first - 1, ())):
            return lane
        if any(_in_lane(it, lane, facts[-1].hash) for it in beside[lane].get(leaf.last + 1, ())):
            return lane
    for other in pending:
        if other.first == leaf.last + 1:
            following = facts_on(pages, other.image, Lane.CORE)[0]
            for lane in Lane:
                if _in_lane(following, lane, facts[-1].hash):
                    return lane
    return None


def by_seq(
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
        for fact in facts_on(pages, leaf.image, lane) if leaf else ():
            order += 1
            heapq.heappush(pending, (fact.seq, leaf.image.rank if leaf else 0, order, fact))


def in_order(pages: Pages, root: int, leaves: list[Leaf]) -> bool:
    """Whether the tree of a lane leads to its facts, and in their order."""
    known = {leaf.image.number: leaf for leaf in leaves if leaf.image.rank == COMMITTED}
    there = [known.get(number) for number in pages.leaves_of(root)]
    if there == [None]:
        return pages.is_empty_table(root)
    firsts = [leaf.first if leaf else 0 for leaf in there]
    return 0 not in firsts and firsts == sorted(firsts)
