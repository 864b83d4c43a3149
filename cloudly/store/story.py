"""Reading a node's journal in order, from the chunks as they came: every fact is there, whatever projections forgot."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cloudly.chunks import Kept, read
from cloudly.store.sql import Connection
from cloudly.story import Chapter, Part, chapter

MOST_GAPS = 500
"""On one page."""
MOST_EPOCHS = 100
ROUTINE = frozenset({"heartbeat-sent", "heartbeat-answered"})
END = 2**62
EPOCH = (
    "SELECT e.*, e.predecessor<>'' AND NOT EXISTS"
    " (SELECT 1 FROM epoch p WHERE p.node=e.node AND p.epoch=e.predecessor) AS hole FROM epoch e"
)
CHUNK = "SELECT epoch_n, lane, first_seq, first_n, received_at_ms, events FROM journal_chunk"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: everything on it is older than that."""

    epoch_n: int
    n: int


@dataclass(frozen=True, slots=True)
class Page:
    """Chapters, the newest first; the lines of each are the oldest first."""

    chapters: tuple[Chapter, ...]
    older: Place | None
    """Where the page before this one begins; None: this is the story's beginning."""


def page(
    db: Connection, node: int, *, before: Place | None, limit: int, heartbeats: bool = False
) -> Page:
    """The newest facts before a place, at most `limit` of them, in their chapters."""
    chapters: list[Chapter] = []
    left, room = limit, MOST_GAPS
    for epoch in _epochs(db, node, before.epoch_n if before else END):
        below = before.n if before is not None and epoch["n"] == before.epoch_n else END
        facts = newest_first(db, node, epoch["n"], below=below, heartbeats=heartbeats)
        found = list(islice(facts, left + 1))
        shown, rest = found[:left], found[left:]
        above = rest[0].n if rest else -1
        between = gaps_between(db, node, epoch["n"], above=above, below=below, limit=room + 1)
        more, between = len(between) > room, between[:room]
        room -= len(between)
        chapters.append(
            chapter(
                Part(
                    epoch,
                    shown[::-1],
                    between,
                    more_gaps=more,
                    previous=rest[0] if rest else None,
                    at_end=below == END,
                    at_start=not rest,
                )
            )
        )
        left -= len(shown)
        if rest:
            return Page(tuple(chapters), Place(epoch["n"], rest[0].n + 1))
        if left <= 0 and epoch["n"] > 1:
            return Page(tuple(chapters), Place(epoch["n"] - 1, END))
    last = chapters[-1].n if chapters else 1  # a hundred epochs without a fact are a page too
    return Page(tuple(chapters), Place(last - 1, END) if last > 1 else None)


def _epochs(db: Connection, node: int, upto: int) -> list[dict[str, Any]]:
    rows = db.execute(
        f"{EPOCH} WHERE e.node=? AND e.n<=? ORDER BY e.n DESC LIMIT ?",
        (node, upto, MOST_EPOCHS),
    )
    return [dict(row) for row in rows]


def epochs(db: Connection, node: int) -> list[dict[str, Any]]:
    """All lives of a node's journal, the oldest first."""
    return [dict(row) for row in db.execute(f"{EPOCH} WHERE e.node=? ORDER BY e.n", (node,))]


def gaps(
    db: Connection,
    node: int,
    *,
    after: tuple[int, str, int] | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """What Cloudly will never get of a node, in order: all of it, or so many after that epoch, lane and seq."""
    rows = db.execute(
        "SELECT g.*, e.epoch FROM lane_gap g JOIN epoch e ON e.node=g.node AND e.n=g.epoch_n"
        " WHERE g.node=? AND (g.epoch_n, g.lane, g.first_seq)>(?,?,?)"
        " ORDER BY g.epoch_n, g.lane, g.first_seq LIMIT ?",
        (node, *(after or (-1, "", -1)), END if limit is None else limit),
    )
    return [dict(row) for row in rows]


def branch_gaps(db: Connection, node: int) -> list[dict[str, Any]]:
    """What the node lost of its own where Cloudly has another writer's facts, as rows of `gaps`, in order."""
    rows = db.execute(
        "SELECT e.began_at_ms, e.branch, e.n, e.epoch, before.n AS before_n, before.epoch AS before FROM epoch e"
        " LEFT JOIN epoch before ON before.node=e.node AND before.epoch=e.predecessor"
        " WHERE e.node=? AND e.branch!='[]' ORDER BY e.n",
        (node,),
    )
    return [
        {
            "epoch_n": row["n"] if one.get("here") else row["before_n"],
            "epoch": row["epoch"] if one.get("here") else row["before"],
            "at_ms": row["began_at_ms"],
            "last_hash": None,
            **one,
        }
        for row in rows
        for one in json.loads(row["branch"])
        if one.get("here") or row["before"] is not None
    ]


def gaps_between(  # noqa: PLR0913 - which lane, from where to where, and how many
    db: Connection, node: int, epoch_n: int, *, above: int, below: int, limit: int
) -> list[dict[str, Any]]:
    """Those between two places, and those at the epoch's end."""
    rows = db.execute(
        "SELECT * FROM lane_gap WHERE node=? AND epoch_n=? AND (at_n IS NULL OR (at_n>? AND at_n<?))"
        " ORDER BY at_n NULLS FIRST, lane, first_seq LIMIT ?",
        (node, epoch_n, above, below, limit),
    )
    return [dict(row) for row in rows]


def newest_first(
    db: Connection, node: int, epoch_n: int, *, below: int = END, heartbeats: bool = True
) -> Iterator[Kept]:
    """The facts of an epoch from a place on backwards, a chunk read when its turn comes."""
    sources = (
        _backwards(db, node, epoch_n, lane, quiet, below)
        for lane, quiet in (("core", 0), ("log", 0), ("log", 1))
        if heartbeats or not quiet
    )
    merged = heapq.merge(*sources, key=lambda fact: -fact.n)
    return merged if heartbeats else (fact for fact in merged if not _is_routine(fact))


def _is_routine(fact: Kept) -> bool:
    """A heartbeat that was answered, beside other facts in its chunk."""
    return fact.event is not None and fact.event.kind in ROUTINE


def _backwards(  # noqa: PLR0913, PLR0917 - the key of the index, and where to begin
    db: Connection, node: int, epoch_n: int, lane: str, quiet: int, below: int
) -> Iterator[Kept]:
    at = below
    while True:
        row = db.execute(
            f"{CHUNK} WHERE node=? AND epoch_n=? AND lane=? AND quiet=? AND first_n<?"
            " ORDER BY first_n DESC LIMIT 1",
            (node, epoch_n, lane, quiet, at),
        ).fetchone()
        if row is None:
            return
        yield from (fact for fact in reversed(read(row)) if fact.n < below)
        at = row["first_n"]


def oldest_first(
    db: Connection, node: int, epoch_n: int, *, after: Mapping[str, int]
) -> Iterator[Kept]:
    """The facts of an epoch, both lanes, in order: those after that seq of each lane."""
    lanes = (lane_facts(db, node, epoch_n, lane, after=after[lane]) for lane in ("core", "log"))
    return heapq.merge(*lanes, key=lambda fact: fact.n)


def lane_facts(
    db: Connection, node: int, epoch_n: int, lane: str, *, after: int = 0
) -> Iterator[Kept]:
    """A lane's facts in the order of their seq, those after that one."""
    row = db.execute(
        "SELECT max(first_seq) FROM journal_chunk WHERE node=? AND epoch_n=? AND lane=? AND first_seq<=?",
        (node, epoch_n, lane, after),
    ).fetchone()
    at = 0 if row[0] is None else row[0] - 1
    while True:
        row = db.execute(
            f"{CHUNK} WHERE node=? AND epoch_n=? AND lane=? AND first_seq>? ORDER BY first_seq LIMIT 1",
            (node, epoch_n, lane, at),
        ).fetchone()
        if row is None:
            return
        yield from (fact for fact in read(row) if fact.seq > after)
        at = row["first_seq"]
