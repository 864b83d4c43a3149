"""Why something is not finished, as text: the same words on the device and in Cloudly, from one place.

`baserunner why` prints `lines`; Cloudly's page and `cloudly node show` print the same of what the device reported.
Nothing slow is imported: the device's commands start fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

TRIED = 3
"""So many of the last things tried are told."""
OWNERS = {"us": "us (this agent)"}
UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


class Answer(Protocol):
    """What is told of one thing that is not finished. Times in milliseconds since 1970."""

    @property
    def stream(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def waits_for(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def since_ms(self) -> int: ...
    @property
    def until_ms(self) -> int | None: ...
    @property
    def then(self) -> str: ...
    @property
    def resume(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def tried(self) -> Sequence[str]: ...


def title(answer: Answer) -> str:
    """What it is, and where it stands."""
    return printable(f"{answer.stream} is {answer.state}")


def told(answer: Answer, *, now_ms: int | None = None) -> list[tuple[str, str]]:
    """Label and words, in the order to show them; a second thing tried has an empty label."""
    since = when(answer.since_ms) + away(answer.since_ms, now_ms) if answer.since_ms else "unknown"
    until = (
        "as long as it takes"
        if answer.until_ms is None
        else when(answer.until_ms) + away(answer.until_ms, now_ms)
    )
    pairs = [
        ("waits for", answer.waits_for),
        ("owner", OWNERS.get(answer.owner, answer.owner)),
        ("since", since),
        ("until", until),
        ("then", answer.then),
        ("after a restart", answer.resume),
        ("last problem", answer.reason),
    ]
    tried = list(answer.tried)[-TRIED:] or ["nothing yet"]
    pairs += zip(("tried", *[""] * TRIED), tried, strict=False)
    return [(label, printable(words)) for label, words in pairs if words]


def lines(answer: Answer, *, now_ms: int | None = None) -> list[str]:
    """The answer as text, one thought a line. `now_ms` adds how long it has been, and how long it has."""
    return [
        title(answer),
        *(f"  {label:<15}  {words}" for label, words in told(answer, now_ms=now_ms)),
    ]


def printable(text: object) -> str:
    """Text that came from elsewhere in one line: it can drive neither a terminal nor a page."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(one if one.isprintable() else UNPRINTABLE for one in shown)


def when(at_ms: int) -> str:
    """UTC, to the second; the number where it is beyond the calendar."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms after 1970"


def away(at_ms: int, now_ms: int | None) -> str:
    """How long ago, or in how long."""
    if now_ms is None:
        return ""
    if now_ms >= at_ms:
        return f", {duration(now_ms - at_ms)} ago"
    return f", in {duration(at_ms - now_ms)}"


def duration(milliseconds: float) -> str:
    """A length of time in its two largest units: 250 ms, 3.2 s, 4 m 05 s, 2 h 10 m, 3 d 4 h, 5 y 20 d."""
    seconds = abs(milliseconds) / 1000
    sign = "-" if milliseconds < 0 else ""
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{sign}{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes} m {rest_s:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{sign}{hours} h {minutes:02} m"
    days, hours = divmod(hours, 24)
    if days < 730:
        return f"{sign}{days} d {hours} h"
    return f"{sign}{days // 365} y {days % 365} d"
