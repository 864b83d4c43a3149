"""When something was, for people: believable times, lengths of time, and the times that people type.

A fact's wall clock is trusted when somebody has told its boot the time: then the fact, or one after it in the same
boot, knows the skew. Else its time is shown as the device had it, with a `~`. Lengths within a boot are by the boot's
own monotonic clock and always right; across boots they are differences of wall clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from interfaces.why import duration

if TYPE_CHECKING:
    from journal.facts import Fact

UNTOLD = "~"
FOOTNOTE = f"{UNTOLD}  by the device's own clock: nobody had told it the time since that boot"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Moment:
    """Milliseconds since 1970 UTC; `trusted`: not merely what the device's clock said."""

    ms: int
    trusted: bool

    @property
    def day_and_time(self) -> str:
        return moment(self.ms) + self.mark

    @property
    def time(self) -> str:
        return moment(self.ms)[11:] + self.mark

    @property
    def mark(self) -> str:
        return "" if self.trusted else UNTOLD


@dataclass(frozen=True, slots=True)
class Length:
    """How long; `sure`: by one boot's own clock, or between two trusted times."""

    ms: int
    sure: bool

    def __str__(self) -> str:
        return ("" if self.sure else UNTOLD) + duration(self.ms)


class Clock:
    """Gives facts of one journal their believable times. Remembers what each boot was told."""

    def __init__(self, survey: Any) -> None:
        self._survey = survey
        self._told: dict[str, int | None] = {}

    def at(self, fact: Fact) -> Moment:
        if fact.skew_ms is not None:
            self._told[fact.boot_id] = fact.at_ms + fact.skew_ms - fact.mono_ms
            return Moment(fact.at_ms + fact.skew_ms, trusted=True)
        if fact.boot_id not in self._told:
            self._told[fact.boot_id] = self._survey.told_after(fact)
        base = self._told[fact.boot_id]
        return (
            Moment(fact.at_ms, trusted=False)
            if base is None
            else Moment(base + fact.mono_ms, trusted=True)
        )

    def between(self, first: Fact, last: Fact) -> Length:
        if first.boot_id == last.boot_id:
            return Length(last.mono_ms - first.mono_ms, sure=True)
        begun, ended = self.at(first), self.at(last)
        return Length(ended.ms - begun.ms, sure=begun.trusted and ended.trusted)


def moment(at_ms: int) -> str:
    """UTC, to the second; the raw number where it is beyond the calendar."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


_LAST_MS = 253_402_300_800_000
"""The end of the calendar: the year 9999."""


def parse(text: str, now_ms: int) -> int:
    """`2026-11-23 04:00`, `2026-11-23T04:00:00Z`, `04:00` (today) or `90m`, `3d`, `1h30m` (ago). Raises ValueError."""
    at_ms = _parse(text.strip(), now_ms)
    if not 0 <= at_ms < _LAST_MS:
        raise ValueError("it is beyond the calendar")
    return at_ms


def _parse(typed: str, now_ms: int) -> int:
    if re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", typed):
        parts = re.findall(r"([\d.]+)([smhdw])", typed)
        return now_ms - round(sum(float(number) * _UNITS[unit] for number, unit in parts) * 1000)
    if typed == "now":
        return now_ms
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", typed):
        typed = f"{moment(now_ms)[:10]} {typed if typed[2] == ':' else '0' + typed}"
    at = datetime.fromisoformat(typed)
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
