"""Which faults there are, how often they come, and which have come."""

from __future__ import annotations

import random  # noqa: TID251 - chance from a seed is what weather is
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self


class Fault(StrEnum):
    """What may happen to one request. Before: the server never saw it. After: the server has done it."""

    LATENCY = "latency"
    REQUEST_LOST = "request-lost"
    """Before. Silence, until the caller's patience ends."""
    RESPONSE_LOST = "response-lost"
    """After. Silence, until the caller's patience ends."""
    RESET_BEFORE = "reset-before"
    RESET_AFTER = "reset-after"
    SERVER_ERROR = "server-error"
    """Before. 500, 502, 503 or 504 with a page of HTML."""
    BUSY_SECONDS = "busy-seconds"
    """Before. 429 with `Retry-After` in seconds."""
    BUSY_DATE = "busy-date"
    """Before. 429 with `Retry-After` as a date."""
    BUSY_GARBAGE = "busy-garbage"
    """Before. 429 with a `Retry-After` that is neither."""
    CAPTIVE_PORTAL = "captive-portal"
    """Before. 200 and a page that wants a log-in."""
    CAPTIVE_REDIRECT = "captive-redirect"
    """Before. 302 to such a page."""
    TRUNCATED = "truncated"
    """After. The body ends in the middle."""
    NEVER_ENDING = "never-ending"
    """After. The body goes on for ever, a piece each second."""
    DRIPPING = "dripping"
    """After. The right body, a byte each second."""
    HUGE = "huge"
    """After. A gigabyte, as fast as it can be read."""
    PARTITION = "partition"
    """Before. The network is gone for a while (`Forecast.partitions`)."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How likely each fault is for each request (0..1, together at most 1), and when there is no network at all."""

    chances: Mapping[Fault, float] = field(default_factory=dict)
    latency_s: tuple[float, float] = (0.05, 3.0)
    retry_after_s: tuple[int, int] = (1, 30)
    partitions: tuple[tuple[float, float], ...] = ()
    """From, until: seconds of the loop's clock; a `VirtualLoop` begins at 0."""

    def __post_init__(self) -> None:
        if not 0 <= sum(self.chances.values()) <= 1:
            raise ValueError("the chances of all faults together must lie between 0 and 1")

    @classmethod
    def evenly(cls, total: float, **rest: object) -> Self:
        """Every fault but partitions equally likely, `total` together."""
        faults = [fault for fault in Fault if fault is not Fault.PARTITION]
        return cls(chances={fault: total / len(faults) for fault in faults}, **rest)  # type: ignore[arg-type]  # the fields above


class Weather:
    """Draws faults from a seed, and counts those that fired."""

    def __init__(self, seed: int | str, forecast: Forecast | None = None) -> None:
        self.seed: Final = seed
        self.forecast = forecast or Forecast()
        self.fired: Counter[Fault] = Counter()
        self.log: list[tuple[int, Fault, str]] = []
        """Of each fault that fired: the number of the ask, the fault, `<method> <path>`."""
        self.chance: Final = random.Random(f"{seed}/weather")  # noqa: S311 - a simulation's
        self._called: deque[Fault | None] = deque()
        self._asks = 0

    def __repr__(self) -> str:
        return f"Weather(seed={self.seed!r}, fired={dict(self.fired)})"

    def next_will_be(self, *faults: Fault | None) -> None:
        """What happens to the next asks, one each; None: nothing. After them chance goes on."""
        self._called.extend(faults)

    def clear_up(self) -> None:
        """From now on, fine weather."""
        self.forecast = Forecast()
        self._called.clear()

    def draw(self) -> Fault | None:
        """The fault of the next ask; None: it goes through. Always draws once, so that a seed keeps its meaning."""
        self._asks += 1
        drawn = self.chance.random()
        if self._called:
            return self._called.popleft()
        for fault, chance in self.forecast.chances.items():
            if drawn < chance:
                return fault
            drawn -= chance
        return None

    def note(self, fault: Fault, what: str) -> None:
        """The fault has happened."""
        self.fired[fault] += 1
        self.log.append((self._asks, fault, what))

    def latency_s(self) -> float:
        return self.chance.uniform(*self.forecast.latency_s)

    def partitioned(self, at_s: float) -> bool:
        return any(begin <= at_s < end for begin, end in self.forecast.partitions)
