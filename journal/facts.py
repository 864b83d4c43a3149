"""What a fact is: one line of the journal, immutable, chained to the one before it in its lane."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from journal.chain import link
from journal.problems import Malformed

# The widths that may travel (interfaces.journal.JournalEvent): what is journaled must be shippable.
MAX_NAME = 100
MAX_BOOT_ID = 64
MAX_DATA = 65_536

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode
_scan: Callable[[str, int], tuple[Any, int]] = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009 - not in typeshed


class Lane(StrEnum):
    """Two sequences with a hash chain each: transitions, and what is bounded (heartbeats, progress lines)."""

    CORE = "core"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Stamp:
    """When, for people: order is by `seq` and `n`, never by clock."""

    at_ms: int
    boot_id: str
    mono_ms: int
    skew_ms: int | None = None
    """What to add to `at_ms` for the true time, as far as known in this boot; None: nobody has told the time."""


_new = tuple.__new__


class Head(NamedTuple):
    """A position in a lane; seq 0 with the genesis hash is before the first fact."""

    seq: int
    hash: bytes


class Fact(NamedTuple):
    """`seq` counts within the lane without holes, `n` within the journal. `src` and `dst` are empty in a note.

    A tuple, because a recall makes one for every row: a frozen dataclass of twelve fields takes 4 x as long to make.
    `skew_ms` says how far its wall clock can be trusted (`Stamp`).
    """

    lane: Lane
    seq: int
    n: int
    stream: str
    kind: str
    src: str
    dst: str
    at_ms: int
    boot_id: str
    mono_ms: int
    skew_ms: int | None
    data: str
    hash: bytes

    @classmethod
    def of(cls, lane: Lane, rows: list[tuple[Any, ...]]) -> list[Fact]:
        """From rows of the lane's table: for many at once half the price of calling `Fact` for each."""
        return [_new(cls, (lane, *row)) for row in rows]

    @property
    def values(self) -> dict[str, Any]:
        values: dict[str, Any]
        try:  # Our own text has no space around it: half the price of looking for some.
            values, end = _scan(self.data, 0)
        except StopIteration:
            end = -1
        return values if end == len(self.data) else _decode(self.data)

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.at_ms, self.boot_id, self.mono_ms, self.skew_ms)

    def follows(self, prev: bytes) -> bool:
        """Whether its hash covers itself and the hash before."""
        return self.hash == link(
            prev,
            lane=self.lane,
            seq=self.seq,
            n=self.n,
            stream=self.stream,
            kind=self.kind,
            src=self.src,
            dst=self.dst,
            at_ms=self.at_ms,
            boot_id=self.boot_id,
            mono_ms=self.mono_ms,
            skew_ms=self.skew_ms,
            data=self.data,
        )

    @property
    def is_note(self) -> bool:
        """A line beside the story: not a transition, never folded."""
        return not self.dst


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One attempt of one machine. `last_seq` is None while it is open."""

    name: str
    lane: Lane
    first_seq: int
    last_seq: int | None
    carried: str
    """The state before `first_seq` when what came before was trimmed; empty: the chart's initial state."""
    belief: str
    """What was believed in that state, as JSON; empty: what the machine starts with."""
    last: Fact | None
    """Its newest transition; None when all of them were trimmed."""

    @property
    def ended(self) -> bool:
        return self.last_seq is not None

    @property
    def state(self) -> str:
        return self.last.dst if self.last else self.carried


def canonical(data: object) -> str:
    """The one JSON text of a fact's data, which is hashed and travels as it is: sorted, dense, ASCII."""
    try:
        text = _encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        # The message names a type, never a value: data may come close to secrets.
        raise Malformed(
            "write a fact", f"its data is not JSON ({error})", "pass plain values"
        ) from error
    if text[0] != "{" or len(text) > MAX_DATA:
        seen = f"its data is {len(text)} characters and begins with {text[0]!r}"
        raise Malformed("write a fact", seen, f"pass a mapping of at most {MAX_DATA} characters")
    return text


def split_name(stream: str) -> tuple[str, int]:
    """`app-update/12` is attempt 12 of the machine app-update."""
    machine, slash, number = stream.rpartition("/")
    if (
        not (slash and machine and number.isdecimal() and number.isascii())
        or len(stream) > MAX_NAME
    ):
        seen = "it is not <machine>/<attempt>"
        raise Malformed(f"use the stream name {stream!r}", seen, "write it like app-update/12")
    return machine, int(number)


def must_be_shippable(stream: str, kind: str, src: str, dst: str, stamp: Stamp) -> None:
    """What is journaled must fit what travels; raises Malformed."""
    split_name(stream)
    fits = 0 < len(kind) <= MAX_NAME and len(src) <= MAX_NAME and len(dst) <= MAX_NAME
    if not fits or bool(src) != bool(dst) or len(stamp.boot_id) > MAX_BOOT_ID:
        seen = f"kind {kind!r}, from {src!r} to {dst!r}, boot {stamp.boot_id!r}"
        raise Malformed("write a fact", seen, f"names have 1 to {MAX_NAME} characters")
