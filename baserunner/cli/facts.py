"""One fact, one stream: as an object for machines, as a line for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from baserunner.words import said, without_last_line
from interfaces.why import printable

if TYPE_CHECKING:
    from baserunner.cli.clock import Clock
    from journal.facts import Fact
    from journal.survey import Attempt

LINES = "lines"
"""The kind of a note that holds lines which the Supervisor, the host or a service had said."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def fact_json(fact: Fact, clock: Clock) -> str:
    """`said` is the sentence that people see, `believed_ms` the time that they see."""
    at = clock.at(fact)
    return _encode(
        {
            "lane": fact.lane.value,
            "seq": fact.seq,
            "n": fact.n,
            "stream": fact.stream,
            "kind": fact.kind,
            "src": fact.src,
            "dst": fact.dst,
            "at_ms": fact.at_ms,
            "skew_ms": fact.skew_ms,
            "believed_ms": at.ms,
            "clock_trusted": at.trusted,
            "boot_id": fact.boot_id,
            "mono_ms": fact.mono_ms,
            "data": values_of(fact),
            "said": said(fact.kind, fact.data),
            "hash": fact.hash.hex(),
        }
    )


def attempt_json(attempt: Attempt, clock: Clock) -> str:
    info, last = attempt.info, attempt.info.last
    began = clock.at(attempt.first) if attempt.first else None
    return _encode(
        {
            "stream": info.name,
            "lane": info.lane.value,
            "state": info.state,
            "ended": info.ended,
            "n": attempt.n,
            "began_ms": began.ms if began else None,
            "last": None
            if last is None
            else {
                "kind": last.kind,
                "at_ms": last.at_ms,
                "believed_ms": clock.at(last).ms,
                "seq": last.seq,
            },
        }
    )


def values_of(fact: Fact) -> Any:
    """Its data; the text itself where that is no JSON."""
    try:
        return fact.values
    except (ValueError, RecursionError):
        return fact.data


def words_of(fact: Fact) -> list[str]:
    """Its kind and sentence, and below it the lines that it carries."""
    first = f"{printable(fact.kind)}: {said(fact.kind, fact.data)}"
    values = values_of(fact) if fact.kind == LINES else None
    lines = values.get("lines") if isinstance(values, dict) else None
    if not isinstance(lines, list) or len(lines) < 2:  # one stands in the sentence
        return [first]
    return [without_last_line(first), *(f"  | {printable(line)}" for line in lines)]


def arrow_of(fact: Fact) -> str:
    return "" if fact.is_note else f"{printable(fact.src)} -> {printable(fact.dst)}"
