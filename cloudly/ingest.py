"""Judging a journal batch: is it the continuation of what Cloudly has, and nothing else? Pure.

Rules:
- A batch is a run of consecutive facts, each chained to its predecessor by hash; the chain is checked first.
- What Cloudly has already is compared, not stored again: sending a batch twice changes nothing.
- Facts that the device no longer has are a gap that is accepted and recorded, never skipped in silence.
- A fact that cannot be decoded is kept as it came and acked: a queue that stops for ever helps nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from cloudly.problems import Refused
from interfaces.journal import MAX_BATCH_EVENTS, Head, JournalBatch, JournalEvent, Lane
from interfaces.wire import Hex32, Id, Wire
from journal.chain import link

INT64 = 2**63


class KeptEvent(JournalEvent):
    """A fact of a newer agent may have fields that we do not know; they are kept too."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)


class KeptBatch(JournalBatch):
    events: tuple[KeptEvent, ...] = Field(max_length=MAX_BATCH_EVENTS)


class OpaqueEvent(Wire):
    """A fact of which only its place in the chain is understood."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    seq: int = Field(ge=1, le=2**53)
    hash: Hex32


class OpaqueBatch(Wire):
    """A batch with at least one fact that is not a `JournalEvent`."""

    epoch: Id
    lane: Lane
    prev_hash: Hex32
    events: tuple[OpaqueEvent, ...] = Field(max_length=MAX_BATCH_EVENTS)
    head: Head
    oldest: int = Field(ge=1, le=2**53)


@dataclass(frozen=True, slots=True)
class Shipped:
    """One fact of a batch."""

    seq: int
    hash: bytes
    text: str
    """The whole event as JSON, as it is kept."""
    event: JournalEvent | None
    """None: opaque."""


@dataclass(frozen=True, slots=True)
class Batch:
    epoch: str
    lane: str
    prev_hash: bytes
    events: tuple[Shipped, ...]
    head_seq: int
    head_hash: bytes
    oldest: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where Cloudly has a lane."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to store."""

    fresh: tuple[Shipped, ...]
    cursor: Cursor
    gap: tuple[int, int] | None
    """First and last seq that the device dropped before Cloudly had them."""


def decode(body: bytes) -> Batch:
    """The batch in a request's body, its chain checked. Raises Refused (malformed)."""
    try:
        return _checked(_batch(KeptBatch.model_validate_json(body), _known))
    except ValidationError:
        pass
    try:
        opaque = OpaqueBatch.model_validate_json(body)
    except ValidationError as problem:
        raise malformed(problem) from None
    return _checked(_batch(opaque, _maybe_known))


def malformed(problem: ValidationError) -> Refused:
    """Where the body is wrong, never what was in it."""
    first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Refused("malformed", "The body is not JSON.", status=400)
    if first["type"] == "too_long" and first["loc"] == ("events",):
        return Refused("too-large", f"At most {MAX_BATCH_EVENTS} events are taken at once.")
    where = ".".join(str(step)[:60] for step in first["loc"][:6])
    return Refused("malformed", f"{where}: {first['type']}")


def _batch(batch: JournalBatch | OpaqueBatch, shipped: Callable[[Any], Shipped]) -> Batch:
    return Batch(
        epoch=batch.epoch,
        lane=batch.lane.value,
        prev_hash=bytes.fromhex(batch.prev_hash),
        events=tuple(shipped(event) for event in batch.events),
        head_seq=batch.head.seq,
        head_hash=bytes.fromhex(batch.head.hash),
        oldest=batch.oldest,
    )


def _known(event: JournalEvent) -> Shipped:
    # A clock of more than 63 bits is nothing that a chain, a database or a person could use.
    usable = -INT64 <= event.at_ms < INT64 and -INT64 <= event.mono_ms < INT64
    return Shipped(
        event.seq,
        bytes.fromhex(event.hash),
        event.model_dump_json(),
        event if usable else None,
    )


def _maybe_known(event: OpaqueEvent) -> Shipped:
    try:
        return _known(KeptEvent.model_validate(event.model_dump()))
    except ValidationError:
        text = json.dumps(event.model_dump(mode="json"), separators=(",", ":"))
        return Shipped(event.seq, bytes.fromhex(event.hash), text, None)


def _checked(batch: Batch) -> Batch:
    """The batch, if it is a chain of consecutive facts that its head can follow. Raises Refused."""
    prev = batch.prev_hash
    for place, fact in enumerate(batch.events):
        if fact.seq != batch.events[0].seq + place:
            raise Refused(
                "malformed", f"events.{place}: seq {fact.seq} does not follow its predecessor"
            )
        if fact.event is not None and _link(prev, batch.lane, fact.event) != fact.hash:
            raise Refused(
                "malformed",
                f"events.{place}: the hash of seq {fact.seq} does not follow from its content",
            )
        prev = fact.hash
    if batch.events and batch.head_seq < batch.events[-1].seq:
        raise Refused("malformed", "head: it lies before the last event")
    if batch.events and batch.oldest > batch.events[0].seq:
        raise Refused("malformed", "oldest: it lies after the first event")
    return batch


def _link(prev: bytes, lane: str, event: JournalEvent) -> bytes:
    return link(
        prev,
        lane=lane,
        seq=event.seq,
        n=event.n,
        stream=event.stream,
        kind=event.kind,
        src=event.src,
        dst=event.dst,
        at_ms=event.at_ms,
        boot_id=event.boot_id,
        mono_ms=event.mono_ms,
        skew_ms=event.skew_ms,
        data=event.data,
    )


def judge(batch: Batch, cursor: Cursor, hash_at: Callable[[int], bytes | None]) -> Verdict:
    """What of the batch is new. `hash_at(seq)` is what Cloudly stored there; None inside a gap.

    Raises Refused (gap, fork) without an ack; the caller knows it.
    """
    if batch.head_seq < cursor.seq:
        raise Refused(
            "fork",
            f"The device's lane ends at {batch.head_seq}, Cloudly has it up to {cursor.seq}.",
        )
    if batch.head_seq == cursor.seq and batch.head_hash != cursor.hash:
        raise Refused("fork", f"Seq {cursor.seq} has another hash here.")
    if not batch.events:
        return Verdict((), cursor, None)
    first, last = batch.events[0].seq, batch.events[-1].seq
    if first > cursor.seq + 1:
        return _after_a_gap(batch, cursor)
    _compare(batch, cursor, hash_at)
    fresh = tuple(fact for fact in batch.events if fact.seq > cursor.seq)
    return Verdict(fresh, Cursor(last, fresh[-1].hash) if fresh else cursor, None)


def _after_a_gap(batch: Batch, cursor: Cursor) -> Verdict:
    first = batch.events[0].seq
    if batch.oldest != first:
        raise Refused(
            "gap", f"The first event is {first}, Cloudly has this lane up to {cursor.seq}."
        )
    end = Cursor(batch.events[-1].seq, batch.events[-1].hash)
    return Verdict(batch.events, end, (cursor.seq + 1, first - 1))


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
