"""The hardware metrics of a state report: standing still, or going up and down by the minute. Pure.

Rules:
- A metric is reported anew only when it has left its bucket: 20 % of CPU, 10 MB of memory, 5 degrees (code; seen in
  `backend/updates.json`, where `cpu_usage` is rare and `memory_usage` is in nearly every report).
- With `SUPERVISOR_HARDWARE_METRICS` off they are null; `is_undervolted` is no metric and stays.
- Moving ones follow from the uuid and the minute, not from chance: they cost no seed anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

BUCKETS: Final = {"cpu_usage": 20, "cpu_temp": 5, "memory_usage": 10}
STILL: Final = {
    "cpu_usage": 1,
    "memory_usage": 1075,
    "memory_total": 24105,
    "storage_block_device": "",
    "cpu_temp": 0,
}
NAMES: Final = (*STILL, "storage_usage", "storage_total", "cpu_id")
"""A report of these alone has to wait for its time."""
MINUTE_S: Final = 60


def metrics(uuid: str, at_s: float, *, moving: bool) -> dict[str, Any]:
    """What would be measured now."""
    if not moving:
        return dict(STILL)
    noise = zlib.crc32(f"{uuid}/{int(at_s // MINUTE_S)}".encode())
    return {**STILL, "cpu_usage": noise % 60, "memory_usage": 900 + (noise >> 8) % 400}


def switched_off() -> dict[str, Any]:
    return dict.fromkeys(NAMES)


def significant(last: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is reported: the last value again, unless the new one lies in another bucket."""
    return {
        name: value if _moved(name, last.get(name), value) else last[name]
        for name, value in measured.items()
    }


def _moved(name: str, last: Any, now: Any) -> bool:
    bucket = BUCKETS.get(name)
    if last is None or now is None or bucket is None:
        return True
    return bool(now // bucket != last // bucket)
