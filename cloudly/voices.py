"""Who speaks as a node: two that speak in turn are two devices with one identity. Pure.

Rules:
- Each life of an agent draws a writer id. One that was never heard of succeeds the one before it; a superseded one that
  speaks again is fenced, and so is everyone who speaks of an epoch that is not the node's newest.
- A request may arrive late, from a process that has ended. One that was never heard of and is behind what Cloudly heard
  of does not succeed anybody: it is late, or its device lost the end of its journal and will begin another epoch. What
  it reports is taken all the same, unless its uptime shows that it is late.
- Being fenced once is weather. Twice within a day, or with an uptime that shows that it was written after the successor
  had spoken, means that two devices live: somebody has to decide which one is the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from interfaces.why import when

MARGIN_MS = 2000
"""Requests take time: so much longer a fenced one must have been up than it could have been when it was succeeded."""
FORGOTTEN_MS = 86_400_000
"""After a day without another, a refusal was weather: two late packets in a year are no second device."""
LATE_AT_MOST_MS = 600_000
"""No request is on its way for longer; a clock that went back further is a machine put back to a snapshot."""


class Standing(StrEnum):
    PRESENT = "present"
    SUCCESSOR = "successor"
    LATE = "late"
    BEHIND = "behind"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks, as far as a request says it."""

    epoch: str
    writer: str | None
    heads: Mapping[str, int] = field(default_factory=dict)
    """Per lane, how far its journal goes."""
    boot_id: str | None = None
    uptime_ms: int | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What Cloudly knows of the one whose turn it is, and of the one that speaks."""

    newest: bool
    """The epoch is the node's newest."""
    writer: str | None
    """Whose turn it is."""
    superseded: bool
    """The one that speaks was succeeded before."""
    heard: Mapping[str, int] = field(default_factory=dict)
    boot_id: str | None = None
    uptime_ms: int | None = None


def standing(voice: Voice, known: Known) -> Standing:
    """What becomes of a request."""
    if not known.newest or known.superseded:
        return Standing.FENCED
    if voice.writer is None or voice.writer == known.writer:
        return Standing.PRESENT
    if known.writer is None:
        return Standing.SUCCESSOR
    if _late(voice, known):
        return Standing.LATE
    if any(seq < known.heard.get(lane, 0) for lane, seq in voice.heads.items()):
        return Standing.BEHIND
    return Standing.SUCCESSOR


def _late(voice: Voice, known: Known) -> bool:
    """Whether it was written in the same boot before the last one that was taken."""
    if voice.boot_id is None or voice.boot_id != known.boot_id:
        return False
    if voice.uptime_ms is None or known.uptime_ms is None:
        return False
    return 0 < known.uptime_ms - voice.uptime_ms < LATE_AT_MOST_MS


@dataclass(frozen=True, slots=True)
class Superseded:
    """A writer when its successor spoke: what it last said, and when that was."""

    at_ms: int
    seen_at_ms: int
    boot_id: str | None
    uptime_ms: int | None


def lives(voice: Voice, superseded: Superseded | None) -> bool:
    """Whether a fenced request was written after its writer had been succeeded: no late packet then."""
    if superseded is None or voice.uptime_ms is None or superseded.uptime_ms is None:
        return False
    if voice.boot_id != superseded.boot_id:
        return False
    until = superseded.uptime_ms + max(0, superseded.at_ms - superseded.seen_at_ms) + MARGIN_MS
    return voice.uptime_ms > until


def alarm(count: int, since_ms: int, told: Mapping[str, Any], node_id: str) -> str:
    """What two devices with one identity mean, and what to do; for the operator."""
    fenced, present = _device(told, "fenced"), _device(told, "present")
    return (
        f"two devices speak as this node since {when(since_ms)}: one was refused {times(count)}{fenced}, the other goes"
        f" on{present}. One of the two needs a fresh join token (`cloudly token create`): it then becomes a node of its"
        " own, or takes this one over. When that is settled some other way:"
        f" `cloudly node acknowledge {node_id[:12]}`"
    )


def notice(count: int, last_ms: int) -> str:
    """Refusals that are no alarm yet."""
    return (
        f"{times(count)}, last at {when(last_ms)}, a request was refused because its sender had been succeeded: a late"
        " packet, or a second device with this identity. If it goes on, this page raises an alarm."
    )


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _device(told: Mapping[str, Any], which: str) -> str:
    """Boot and addresses of one of the two, as far as known."""
    device = told.get(which)
    if not isinstance(device, dict):
        return ""
    boot, addresses = device.get("boot_id"), device.get("addresses")
    parts = [f"boot {str(boot)[:8]}"] if boot else []
    if isinstance(addresses, list) and addresses:
        parts.append("at " + ", ".join(str(one) for one in addresses[:4]))
    return f" ({' '.join(parts)})" if parts else ""
