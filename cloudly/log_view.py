"""Lines of device logs as people see them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloudly.store.log_chunks import Kept, Mark

SUPERVISOR = "Supervisor"
APART_MS = 5000
"""Between a device's clock and ours: more than a batch explains."""
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
"""What a terminal would obey (ECMA-48 §5.4, and the commands of window titles): colours, mostly."""
ALL_MARKS = Mark.SYSTEM | Mark.STDERR | Mark.CUT | Mark.ODD | Mark.GAP
KEPT = "\t\n\N{ZERO WIDTH JOINER}"
WORDS = {
    "rate": "{lines} not kept: more came than Cloudly keeps of one device",
    "damaged": "{lines} cannot be read any more: Cloudly's file of logs is damaged there",
    "unreadable": "the stream broke here: what came next could not be unpacked",
    "ended": "the stream was ended here, and what was on its way was more than could be kept",
}


@dataclass(frozen=True, slots=True)
class LogView:
    """One line."""

    place: str
    """Among the lines of its node; of one server's file, the first one's without saying so."""
    at_ms: int
    """By the device's clock, or by ours where it gave none."""
    received_at_ms: int
    apart: bool
    """Whether the two differ by more than the way takes: a wrong clock, or lines that waited."""
    source: str
    """Who said it: a service's name, the Supervisor, or nobody knows."""
    marks: Mark
    text: str
    """Harmless to show; of a gap, what is missing and why."""

    @property
    def kind(self) -> str:
        """The names of its marks, as a page's classes."""
        return " ".join(str(mark.name).lower() for mark in self.marks)


def log_view(kept: Kept, services: Mapping[int, str]) -> LogView:
    line = kept.line
    at_ms = line.received_at_ms if line.device_at_ms is None else line.device_at_ms
    is_gap = bool(line.marks & Mark.GAP)
    return LogView(
        f"{kept.slot}-{kept.n}" if kept.slot else str(kept.n),
        at_ms,
        line.received_at_ms,
        abs(line.received_at_ms - at_ms) > APART_MS,
        "" if is_gap else _source(line.marks, line.service, services),
        Mark(line.marks & ALL_MARKS),
        _gap_words(line.text, line.lost) if is_gap else harmless(line.text),
    )


def harmless(text: str) -> str:
    """Without colours, and with a mark for what would move, hide or turn other text around."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in KEPT else "\N{REPLACEMENT CHARACTER}"
        for one in ESCAPES.sub("", text)
    )


def _source(marks: int, service: int | None, services: Mapping[int, str]) -> str:
    if marks & Mark.SYSTEM:
        return SUPERVISOR
    if service is None:
        return ""
    return services.get(service, f"service {service}")


def _gap_words(why: str, lost: int) -> str:
    lines = "1 line was" if lost == 1 else f"{lost} lines were"
    if why == "damaged":
        lines = lines.rsplit(" ", 1)[0]
    return WORDS.get(why, "lines are missing here").format(lines=lines)
