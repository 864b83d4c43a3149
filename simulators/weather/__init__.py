"""Weather: seeded faults between two parties that mean well.

In memory: `WeatherTransport(inner, weather)` wraps any httpx transport. Over sockets: `ChaosProxy` stands before a TCP
server. `clock_jumps` and `FullDisk` stir the host itself.

Rules:
- The seed is in `weather.seed` and in its repr: print it. The same seed and the same asks give the same faults.
- A fault is counted in `weather.fired` when it happens, not when it is planned: assert on it.
- A fault is either drawn by chance (`Forecast`) or called for (`weather.next_will_be`).
"""

from __future__ import annotations

from simulators.weather.faults import Fault, Forecast, Weather
from simulators.weather.host import ClockJumps, FullDisk, clock_jumps
from simulators.weather.proxy import ChaosProxy, Mood
from simulators.weather.transport import WeatherTransport

__all__ = [
    "ChaosProxy",
    "ClockJumps",
    "Fault",
    "Forecast",
    "FullDisk",
    "Mood",
    "Weather",
    "WeatherTransport",
    "clock_jumps",
]
