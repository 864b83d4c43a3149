"""A chunk of a journal: the facts of one accepted batch, as they came. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from cloudly.batch import INT64
from interfaces.journal import JournalEvent

MOST_N = 2**53
HEARTBEAT = "heartbeat/"
"""Streams of this machine are many and alike: a page leaves them out unless it is asked for them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One fact that Cloudly has."""

    epoch_n: int
    lane: str
    seq: int
    n: int
    """Its place among the facts of both lanes."""
    hash: bytes
    received_at_ms: int
    event: JournalEvent | None
    """None: it could not be decoded."""
    raw: Mapping[str, Any]
    """As it came."""


def places(claimed: Iterable[object], after: int) -> list[int]:
    """The place of each fact among those of both lanes: its own `n`, and always behind its predecessor in its lane.

    A fact that cannot be decoded, or claims a place that was taken, comes right after its predecessor.
    """
    found = []
    for n in claimed:
        known = isinstance(n, int) and not isinstance(n, bool) and n <= MOST_N
        after = max(after + 1, n) if known else after + 1  # type: ignore[call-overload]
        found.append(after)
    return found


def is_quiet(event: JournalEvent | None) -> bool:
    """Whether it says no more than that a heartbeat was sent or answered."""
    return event is not None and event.stream.startswith(HEARTBEAT)


def read(chunk: Mapping[str, Any]) -> list[Kept]:
    """The facts of a row of `journal_chunk`, in order."""
    facts = _decoded(chunk["events"])
    n = places((event and event.n for event, _ in facts), chunk["first_n"] - 1)
    n[0] = chunk["first_n"]
    return [
        Kept(
            chunk["epoch_n"],
            chunk["lane"],
            chunk["first_seq"] + at,
            n[at],
            bytes.fromhex(raw["hash"]),
            chunk["received_at_ms"],
            event,
            raw,
        )
        for at, (event, raw) in enumerate(facts)
    ]


@lru_cache(maxsize=64)
def _decoded(text: str) -> tuple[tuple[JournalEvent | None, dict[str, Any]], ...]:
    """A chunk never changes, and a live page reads the same ones again and again."""
    return tuple((_event(raw), raw) for raw in json.loads(text))


def _event(raw: dict[str, Any]) -> JournalEvent | None:
    try:
        event = JournalEvent.model_validate(raw)
    except ValidationError:
        return None
    usable = -INT64 <= event.at_ms < INT64 and -INT64 <= event.mono_ms < INT64
    return event if usable else None
