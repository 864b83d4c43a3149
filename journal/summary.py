"""What stays of log facts that go: one note per hour of device time, with how many of which kind there were.

Summaries add up. When one goes itself, the day of its hour counts what it counted, and in the end one note counts all
that is older: a device that has run for years holds hours of the last days, days of the last weeks, and one sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from journal.facts import Fact

STREAM = "retention/1"
KIND = "heartbeats-summarised"
HOUR_S, DAY_S, EVER_S = 3_600, 86_400, 0
"""The widths of a summary; 0 is all that is older."""
_WIDER = {HOUR_S: DAY_S, DAY_S: EVER_S, EVER_S: EVER_S}
HOUR_MS = HOUR_S * 1_000
MOST = 32
"""Notes that one step may leave; with a clock that jumps about there would be more, and then they are days, or one."""


Bucket = tuple[int, int]
"""A width in seconds, and which of that width since 1970."""


def summaries(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """One per hour, in the order in which the hours were first seen."""
    hours: dict[Bucket, list[Fact]] = {}
    older: list[Fact] = []
    for fact in facts:
        if fact.kind == KIND and fact.is_note:
            older.append(fact)
        else:
            hours.setdefault((HOUR_S, fact.at_ms // HOUR_MS), []).append(fact)
    told = [(bucket, _counted(group)) for bucket, group in hours.items()]
    told += [_widened(fact.values) for fact in older]
    found = _added(told)
    for width in (DAY_S, EVER_S):
        if len(found) <= MOST:
            break
        found = _added(
            (_bucket(each["since_ms"], max(width, each["width_s"], key=_rank)), each)
            for each in found
        )
    return found


def _bucket(at_ms: int, width_s: int) -> Bucket:
    return (width_s, at_ms // (width_s * 1_000)) if width_s else (EVER_S, 0)


def _rank(width_s: int) -> int:
    return (HOUR_S, DAY_S, EVER_S).index(width_s)


def _counted(facts: list[Fact]) -> dict[str, Any]:
    times = [fact.at_ms for fact in facts]
    return {
        "kinds": Counter(fact.kind for fact in facts),
        "first_seq": facts[0].seq,
        "last_seq": facts[-1].seq,
        "since_ms": min(times),
        "until_ms": max(times),
    }


def _widened(values: dict[str, Any]) -> tuple[Bucket, dict[str, Any]]:
    # Before there were hours, a summary said only between which times: that may be any width.
    width = _WIDER[values.get("width_s", EVER_S)]
    return _bucket(values["since_ms"], width), values


def _added(told: Iterable[tuple[Bucket, dict[str, Any]]]) -> list[dict[str, Any]]:
    sums: dict[Bucket, dict[str, Any]] = {}
    kinds: dict[Bucket, Counter[str]] = {}
    for bucket, each in told:
        kinds.setdefault(bucket, Counter()).update(each["kinds"])
        before = sums.get(bucket, each)
        sums[bucket] = {
            "width_s": bucket[0],
            "first_seq": min(before["first_seq"], each["first_seq"]),
            "last_seq": max(before["last_seq"], each["last_seq"]),
            "since_ms": min(before["since_ms"], each["since_ms"]),
            "until_ms": max(before["until_ms"], each["until_ms"]),
        }
    return [{**each, "kinds": dict(kinds[bucket])} for bucket, each in sums.items()]
