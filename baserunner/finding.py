"""What a look at the device finds: the words that `baserunner doctor` and a diagnosis share."""

from __future__ import annotations

from dataclasses import dataclass

from baserunner.report import SKEWED_S

LITTLE_SPACE_BYTES = 20_000_000
"""The journal, its WAL and its reserve stay below this for months."""
NO_SUPERVISOR = "label the service io.balena.features.supervisor-api: '1'"


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: str
    """ok, note or bad."""
    what: str
    seen: str
    todo: str = ""


def clock_finding(skew_s: float) -> Finding:
    """`skew_s`: how far this clock is from Cloudly's."""
    if abs(skew_s) > SKEWED_S:
        return Finding(
            "note",
            "clock",
            f"{skew_s:+.0f} s from Cloudly's",
            "check the host's time service; order does not depend on it",
        )
    return Finding("ok", "clock", f"within {max(abs(skew_s), 1):.0f} s of Cloudly's")
