"""Maintenance windows: on which days, from when to when, by the clock on which wall.

    mon-fri 22:00-04:00 Europe/Berlin

Rules:
- The days are those on which the window starts; one that ends before it starts ends on the next day.
- 24:00 is the end of the day. 00:00-24:00 is the whole day; a window that ends when it starts is refused.
- A time that comes twice (clocks go back) means its first coming. So a window that holds the hour that is repeated
  lasts an hour longer, and one that ends in it does not open again.
- A time that never comes (clocks go forward) means the moment of the leap. A window that lies wholly in the leap does
  not open that day.
- Windows that touch or overlap are one. No windows at all: always open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST: Final = 50
HORIZON_DAYS: Final = 16
"""A weekly window that one leap of the clock swallows opens two weeks after the last time."""
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_TEXT = re.compile(r"(\S+) +(\S+?)-(\S+) +(\S+)")
_DAY_MIN = 24 * 60


class Window(BaseModel):
    """One stretch of a day, on some days of the week."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    days: tuple[str, ...]
    """Of `DAYS`, in their order."""
    start: str
    """`HH:MM` of the zone."""
    end: str
    """`HH:MM` of the zone, up to 24:00; before `start`: of the next day."""
    zone: str = "UTC"
    """A name of the IANA data base: Europe/Berlin."""

    @field_validator("days")
    @classmethod
    def _days_are_days(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        if not days or set(days) - set(DAYS):
            raise ValueError(f"a window needs days out of {', '.join(DAYS)}, or it never opens")
        return tuple(day for day in DAYS if day in days)

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("this time zone is not known; name one like Europe/Berlin") from error
        return zone

    @model_validator(mode="after")
    def _times_are_times(self) -> Window:
        for clock in (self.start, self.end):
            if _CLOCK.fullmatch(clock) is None:
                raise ValueError("a time of day is HH:MM, from 00:00 to 24:00")
        if self.start in {self.end, "24:00"}:
            raise ValueError(
                "a window that ends when it starts never opens; 00:00-24:00 is the whole day"
            )
        return self

    def __str__(self) -> str:
        return f"{_days_text(self.days)} {self.start}-{self.end} {self.zone}"

    def stretch(self, day: date) -> tuple[int, int] | None:
        """From when to when it is open if it starts on that day, in milliseconds; None: it does not."""
        if DAYS[day.weekday()] not in self.days:
            return None
        start, end = _minute(self.start), _minute(self.end)
        after = _DAY_MIN if end <= start else 0
        since = _moment(self.zone, day, start)
        until = _moment(self.zone, day, end + after)
        return (since, until) if since < until else None


def window(text: str) -> Window:
    """The window that a text like `mon-fri 22:00-04:00 Europe/Berlin` means; raises ValueError."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no window; write one like mon-fri 22:00-04:00 Europe/Berlin")
    days, start, end, zone = found.groups()
    return Window(days=_days(days), start=start, end=end, zone=zone)


def is_open(windows: Sequence[Window], now_ms: int) -> bool:
    if not windows:
        return True
    return any(since <= now_ms < until for since, until in _stretches(windows, now_ms, days=2))


def next_change_ms(windows: Sequence[Window], now_ms: int) -> int | None:
    """When it opens, if it is closed, or closes, if it is open; None: it does not within two weeks."""
    stretches = sorted(_stretches(windows, now_ms, days=HORIZON_DAYS))
    until: int | None = None
    for since, end in stretches:
        if since <= (now_ms if until is None else until) < end:
            until = end
    if until is not None:
        horizon_ms = now_ms + (HORIZON_DAYS - 2) * _DAY_MIN * 60_000
        return until if until < horizon_ms else None
    return next((since for since, _ in stretches if since > now_ms), None)


def _stretches(windows: Sequence[Window], now_ms: int, *, days: int) -> Iterator[tuple[int, int]]:
    """Those that start from two days ago (a zone may be a day ahead) to so many days from now."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    for each in windows:
        for offset in range(-2, days):
            stretch = each.stretch(today + timedelta(days=offset))
            if stretch is not None:
                yield stretch


@lru_cache(maxsize=4096)
def _moment(zone: str, day: date, minute: int) -> int:
    """When the wall clock first reads so many minutes after midnight of the day, or leaps over them."""
    wall = datetime.combine(day, time()) + timedelta(minutes=minute)
    where = ZoneInfo(zone)
    early = wall.replace(tzinfo=where, fold=0).astimezone(UTC)
    if early.astimezone(where).replace(tzinfo=None) == wall:
        return round(early.timestamp() * 1000)
    # In a leap: by the offset before it the wall time lies after the leap, by the offset after it before (PEP 495).
    low = round(wall.replace(tzinfo=where, fold=1).timestamp())
    high = round(early.timestamp())
    before = datetime.fromtimestamp(low, where).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, where).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high * 1000


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _days(text: str) -> tuple[str, ...]:
    """`daily`, `sat`, `mon-fri`, `mon+wed+fri`, `fri-mon`; unknown names are left for the model to refuse."""
    days: list[str] = []
    for part in (text.lower() if text.lower() != "daily" else "mon-sun").split("+"):
        first, dash, last = part.partition("-")
        if dash and first in DAYS and last in DAYS:
            count = (DAYS.index(last) - DAYS.index(first)) % 7 + 1
            days += [DAYS[(DAYS.index(first) + step) % 7] for step in range(count)]
        else:
            days.append(part)
    return tuple(days)


def _days_text(days: tuple[str, ...]) -> str:
    if days == DAYS:
        return "daily"
    numbers = [DAYS.index(day) for day in days]
    if len(days) > 2 and numbers[-1] - numbers[0] == len(days) - 1:
        return f"{days[0]}-{days[-1]}"
    return "+".join(days)
