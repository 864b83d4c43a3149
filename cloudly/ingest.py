"""Judging a journal batch: is it the continuation of what Cloudly has and heard of, and nothing else? Pure.

Rules:
- What Cloudly has already is compared, not stored again: sending a batch twice changes nothing.
- What Cloudly only heard of (a head) is compared too: facts that replace facts it heard of are another past.
- Facts that the device no longer has are a gap that is accepted and recorded, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloudly.batch import Batch, Shipped
from cloudly.gaps import Missing, beside, explain
from cloudly.problems import Refused


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where Cloudly has a lane."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A head of a lane that a writer named once; Cloudly need not have its facts."""

    seq: int
    hash: bytes
    writer: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to store."""

    fresh: tuple[Shipped, ...]
    cursor: Cursor
    missing: tuple[Missing, ...] = ()
    """What Cloudly will never get of the ranges before `fresh`, in order."""
    beside: tuple[Missing, ...] = ()
    """What the device lost of its own under numbers of which Cloudly has facts, maybe another writer's."""


def judge(
    batch: Batch,
    cursor: Cursor,
    hash_at: Callable[[int], bytes | None],
    heard: tuple[Heard, ...] = (),
) -> Verdict:
    """What of the batch is new. `hash_at(seq)` is what Cloudly stored there; None inside a gap.

    Raises Refused (gap, fork) without an ack; the caller knows it.
    """
    _not_behind(batch, cursor, heard)
    if not batch.events:
        return _nothing_left(batch, cursor)
    first, last = batch.events[0].seq, batch.events[-1].seq
    _as_heard(batch, heard)
    if first > cursor.seq + 1:
        return _after_a_gap(batch, cursor)
    _compare(batch, cursor, hash_at)
    fresh = tuple(fact for fact in batch.events if fact.seq > cursor.seq)
    return Verdict(fresh, Cursor(last, fresh[-1].hash) if fresh else cursor)


def _not_behind(batch: Batch, cursor: Cursor, heard: tuple[Heard, ...]) -> None:
    if batch.head_seq < cursor.seq:
        raise Refused(
            "fork",
            f"The device's lane ends at {batch.head_seq}, Cloudly has it up to {cursor.seq}.",
        )
    if batch.head_seq == cursor.seq and batch.head_hash != cursor.hash:
        raise Refused("fork", f"Seq {cursor.seq} has another hash here.")
    for head in heard:
        if batch.head_seq < head.seq and batch.writer not in {None, head.writer}:
            # Of the writer that named this head a batch is only late: it never loses what it made durable.
            raise Refused(
                "fork",
                f"The device's lane ends at {batch.head_seq}, Cloudly heard of {head.seq} before.",
            )
        if batch.head_seq == head.seq and batch.head_hash != head.hash:
            raise Refused("fork", f"Cloudly heard of another fact {head.seq}.")


def _as_heard(batch: Batch, heard: tuple[Heard, ...]) -> None:
    first = batch.events[0].seq
    for head in heard:
        place = head.seq - first
        if 0 <= place < len(batch.events) and batch.events[place].hash != head.hash:
            raise Refused("fork", f"Cloudly heard of another fact {head.seq}.")


def _nothing_left(batch: Batch, cursor: Cursor) -> Verdict:
    """No events: a question where Cloudly is, or a lane of which the device has no fact any more."""
    if batch.head_seq <= cursor.seq or batch.oldest <= batch.head_seq:
        return Verdict((), cursor)
    missing = explain(cursor.seq + 1, batch.head_seq, batch.gaps, batch.head_hash)
    end = Cursor(batch.head_seq, batch.head_hash)
    return Verdict((), end, missing, beside(cursor.seq, batch.gaps))


def _after_a_gap(batch: Batch, cursor: Cursor) -> Verdict:
    first = batch.events[0].seq
    missing = explain(cursor.seq + 1, first - 1, batch.gaps, batch.prev_hash)
    if batch.oldest != first and not all(one.told for one in missing):
        raise Refused(
            "gap", f"The first event is {first}, Cloudly has this lane up to {cursor.seq}."
        )
    end = Cursor(batch.events[-1].seq, batch.events[-1].hash)
    return Verdict(batch.events, end, missing, beside(cursor.seq, batch.gaps))


def _compare(batch: Batch, cursor: Cursor, hash_at: Callable[[int], bytes | None]) -> None:
    """Equal hashes at one seq mean equal pasts: comparing the last common fact compares them all."""
    first, last = batch.events[0].seq, batch.events[-1].seq
    if first == cursor.seq + 1:
        common, theirs, ours = cursor.seq, batch.prev_hash, cursor.hash
    else:
        common = min(last, cursor.seq)
        theirs = batch.events[common - first].hash
        known = cursor.hash if common == cursor.seq else hash_at(common)
        ours = theirs if known is None else known
    if theirs != ours:
        raise Refused("fork", f"Seq {common} has another hash here.")
