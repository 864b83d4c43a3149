"""A journal batch as it came: decoded, its chain checked against itself. Pure.

Rules:
- A batch is a run of consecutive facts, each chained to its predecessor by hash; the chain is checked first.
- A fact that cannot be decoded is kept as it came, and a gap that makes no sense is left out: a queue that stops for
  ever helps nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from cloudly.problems import Refused
from interfaces.journal import (
    MAX_BATCH_EVENTS,
    MAX_GAPS,
    Gap,
    Head,
    JournalBatch,
    JournalEvent,
    Lane,
)
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
    """A batch with at least one fact that is not a `JournalEvent`, or one gap that is not a `Gap`."""

    epoch: Id
    lane: Lane
    prev_hash: Hex32
    events: tuple[OpaqueEvent, ...] = Field(max_length=MAX_BATCH_EVENTS)
    head: Head
    oldest: int = Field(ge=1, le=2**53)
    writer: Id | None = None
    gaps: Any = ()


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
    writer: str | None = None
    gaps: tuple[Gap, ...] = ()
    """What the device says of ranges that it has no more."""


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
        writer=batch.writer,
        gaps=_gaps(batch.gaps),
    )


def _gaps(told: object) -> tuple[Gap, ...]:
    """The gaps that can be understood, one by one."""
    understood: list[Gap] = []
    for one in told[:MAX_GAPS] if isinstance(told, list | tuple) else ():
        try:
            gap = one if isinstance(one, Gap) else Gap.model_validate(one)
        except ValidationError:
            continue
        if gap.first_seq <= gap.last_seq:
            understood.append(gap)
    return tuple(understood)


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
        if fact.event is not None and link_of(prev, batch.lane, fact.event) != fact.hash:
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


def link_of(prev: bytes, lane: str, event: JournalEvent) -> bytes:
    """The hash that this fact must have after that one."""
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
