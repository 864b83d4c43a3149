"""Lines of device logs as they are kept: many of one node in one compressed row. Pure.

Rules:
- What was not kept is a line too, with how many and why: nothing is lost in silence.
- A row that cannot be read any more is such a line, and its neighbours are as they were.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, NamedTuple

LEVEL = 6
WORTH_PACKING = 4096
"""Bytes below which zlib costs 0.1 ms for nothing: such a row is JSON as it is, until it becomes part of another."""
JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
MOST_UNPACKED = 16 * 1024 * 1024
"""Of one row; the largest that is written has a hundredth of that."""


class Mark(IntFlag):
    """What a line is, beside its text."""

    NONE = 0
    SYSTEM = 1
    """The Supervisor's own word."""
    STDERR = 2
    CUT = 4
    """Longer than what is kept of a line."""
    ODD = 8
    """No line of a Supervisor; kept as it came."""
    GAP = 16
    """Lines are missing here: `lost` says how many (0: nobody knows), `text` why."""


class Line(NamedTuple):
    """One line, in the order of its row."""

    received_at_ms: int
    device_at_ms: int | None
    """By the device's clock; None where it gave none that could be one."""
    service: int | None
    marks: int
    text: str
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A line and its place among the lines of its node in one server's file."""

    n: int
    line: Line
    slot: int = 0
    """Whose file."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of `log_chunk`."""

    first_n: int
    lines: int
    first_at_ms: int
    last_at_ms: int
    packed: bytes


def gap(at_ms: int, lost: int, why: str) -> Line:
    return Line(at_ms, None, None, int(Mark.GAP), why, lost)


def pack(lines: Sequence[Line]) -> bytes:
    text = JSON.encode(lines).encode(errors="replace")
    return text if len(text) < WORTH_PACKING else zlib.compress(text, LEVEL)


def unpack(chunk: Chunk) -> list[Line]:
    """Its lines; one gap instead where the row is damaged."""
    try:
        lines = [_line(one) for one in json.loads(_unpacked(chunk.packed))]
    except (zlib.error, ValueError, TypeError):
        lines = []
    if len(lines) != chunk.lines:
        return [gap(chunk.last_at_ms, chunk.lines, "damaged")]
    return lines


def _unpacked(packed: bytes) -> bytes:
    """Not more than a sound row can hold, whatever a damaged one says."""
    if packed.startswith(b"["):
        return packed
    inflate = zlib.decompressobj()
    text = inflate.decompress(packed, MOST_UNPACKED)
    if not inflate.eof:
        raise ValueError("it does not end")
    return text


def _line(one: Any) -> Line:
    match one:
        case [int(), int() | None, int() | None, int(), str(), int()]:
            return Line(*one)
    raise TypeError("no line")
