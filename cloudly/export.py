"""All that Cloudly has of a node's journal: to carry away, and checked against its own hashes.

A chain shows any change, loss or reordering of what is here. After a gap it goes on from the hash that the device gave
for the last missing fact; where it gave none, from the first fact that is here.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from cloudly.batch import link_of
from cloudly.chunks import Kept
from cloudly.gaps import RETENTION
from cloudly.store import story
from cloudly.store.sql import Connection
from interfaces.journal import Lane
from journal.chain import genesis

FORMAT = "cloudly-journal/1"
MOST_PROBLEMS = 20
SLICE = 200
"""Facts that are read at a time."""


@dataclass(slots=True)
class Check:
    """What was found in one lane of one epoch."""

    epoch_n: int
    epoch: str
    lane: str
    facts: int = 0
    missing: int = 0
    let_go: int = 0
    """Of facts that were here and checked when they came, and are no more because they are old."""
    opaque: int = 0
    problems: list[str] = field(default_factory=list)

    def wrong(self, problem: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class Export:
    """A header, then per epoch: itself, its facts in order, its gaps where they are; a line of JSON each.

    A slice at a time, so that nobody holds the database while a reader is slow.

    It ends where the journal ended when it began: what is missing is on record up to there.
    """

    def __init__(self, node: int, node_id: str) -> None:
        self._node = node
        self._node_id = node_id
        self._rest: deque[_Epoch] | None = None

    def step(self, db: Connection) -> list[dict[str, Any]] | None:
        """The next lines; None: that was all."""
        if self._rest is None:
            self._rest = deque(_epochs(db, self._node))
            return [{"format": FORMAT, "node": self._node_id}]
        if not self._rest:
            return None
        part = self._rest[0].step(db)
        if part is None:
            self._rest.popleft()
            return []
        return part


def lines(db: Connection, node: int, node_id: str) -> Iterator[dict[str, Any]]:
    """All of it at one moment."""
    export = Export(node, node_id)
    while (part := export.step(db)) is not None:
        yield from part


def _epochs(db: Connection, node: int) -> Iterator[_Epoch]:
    rows = story.epochs(db, node)
    ends = db.execute("SELECT epoch_n, lane, ack_seq FROM lane WHERE node=?", (node,)).fetchall()
    missing = story.gaps(db, node)
    for row in rows:
        known = {name: value for name, value in row.items() if name != "node"}
        yield _Epoch(
            node,
            row["n"],
            {"epoch": known | {"branch": json.loads(row["branch"]), "hole": bool(row["hole"])}},
            deque(
                sorted(
                    (
                        _Gap(gap["at_n"] or story.END, {"gap": _plain(gap)})
                        for gap in missing
                        if gap["epoch_n"] == row["n"]
                    ),
                    key=lambda one: one.n,
                )
            ),
            {one["lane"]: one["ack_seq"] for one in ends if one["epoch_n"] == row["n"]},
        )


@dataclass(slots=True)
class _Epoch:
    """What is left to tell of one epoch."""

    node: int
    n: int
    head: dict[str, Any] | None
    gaps: deque[_Gap]
    ends: dict[str, int]
    at: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))

    def step(self, db: Connection) -> list[dict[str, Any]] | None:
        if self.head is not None:
            first, self.head = [self.head], None
            return first
        facts = list(islice(self._facts(db), SLICE))
        if not facts:
            told = [gap.line for gap in self.gaps]
            self.gaps.clear()
            return told or None
        told = []
        for fact in facts:
            while self.gaps and self.gaps[0].n <= fact.n:
                told.append(self.gaps.popleft().line)
            told.append(_fact(fact))
            self.at[fact.lane] = fact.seq
        return told

    def _facts(self, db: Connection) -> Iterator[Kept]:
        facts = story.oldest_first(db, self.node, self.n, after=self.at)
        return (fact for fact in facts if fact.seq <= self.ends.get(fact.lane, 0))


@dataclass(frozen=True, slots=True)
class _Gap:
    """A gap, before the fact at that place."""

    n: int
    line: dict[str, Any]


def _fact(fact: Kept) -> dict[str, Any]:
    return {"lane": fact.lane, "received_at_ms": fact.received_at_ms, "fact": fact.raw}


def _plain(gap: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in gap.items() if name not in {"node", "at_n"}}
    last_hash = gap["last_hash"]
    return known | {
        "kinds": json.loads(gap["kinds"]),
        "last_hash": None if last_hash is None else last_hash.hex(),
    }


def verify(db: Connection, node: int) -> Iterator[Check]:
    """One check per lane of each epoch."""
    for epoch in story.epochs(db, node):
        for lane in Lane:
            yield _lane(db, node, epoch, lane.value)


def _lane(db: Connection, node: int, epoch: dict[str, Any], lane: str) -> Check:
    check = Check(epoch["n"], epoch["epoch"], lane)
    rows = db.execute(
        "SELECT first_seq, last_seq, last_hash, why FROM lane_gap"
        " WHERE node=? AND epoch_n=? AND lane=? ORDER BY first_seq",
        (node, epoch["n"], lane),
    ).fetchall()
    gaps = {row["first_seq"]: row for row in rows}
    for row in rows:
        many = row["last_seq"] - row["first_seq"] + 1
        if row["why"] == RETENTION:
            check.let_go += many
        else:
            check.missing += many
    at, prev = 0, genesis(epoch["epoch"], lane)
    for fact in story.lane_facts(db, node, epoch["n"], lane):
        at, known = _over_gaps(at, prev, gaps, until=fact.seq - 1)
        if fact.seq != at + 1:
            check.wrong(f"{fact.seq} comes after {at}, and no gap is on record")
        elif fact.event is None:
            check.opaque += 1
        elif known is not None and link_of(known, lane, fact.event) != fact.hash:
            check.wrong(f"the hash of {fact.seq} does not follow from its content")
        at, prev = fact.seq, fact.hash
        check.facts += 1
    _ends(db, node, check, (at, prev), gaps)
    return check


def _over_gaps(
    at: int, prev: bytes, gaps: dict[int, Any], *, until: int
) -> tuple[int, bytes | None]:
    """Where the next fact must be, and the hash that it follows; None: nobody said it."""
    known: bytes | None = prev
    while at < until and at + 1 in gaps:
        gap = gaps[at + 1]
        at, known = gap["last_seq"], gap["last_hash"]
    return at, known


def _ends(
    db: Connection, node: int, check: Check, end: tuple[int, bytes], gaps: dict[int, Any]
) -> None:
    row = db.execute(
        "SELECT ack_seq, ack_hash FROM lane WHERE node=? AND epoch_n=? AND lane=?",
        (node, check.epoch_n, check.lane),
    ).fetchone()
    if row is None:
        return
    at, known = _over_gaps(*end, gaps, until=row["ack_seq"])
    if row["ack_seq"] != at:
        check.wrong(f"{row['ack_seq']} was acked, the facts here end at {at}")
    elif known is not None and row["ack_hash"] != known:
        check.wrong(f"the hash of {at} is not the one that was acked")
