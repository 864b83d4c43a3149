"""The last lines of our own log, held in memory: they go along with an attempt that failed.

Rules:
- At INFO and above, whatever the level of the log on stderr, and behind the same redaction.
- Bounded: so many lines, each of bounded length.
- Times are the World's, so that a seed gives the same lines on every machine.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from baserunner.logs import RedactingFormatter
from interfaces.world import World, now_ms

KEPT_LINES = 200
HELD_CHARACTERS = 1000


class Line(NamedTuple):
    """One line, and when it was said."""

    mono_s: float
    at_ms: int
    text: str


class RecentLines(logging.Handler):
    """Listens to the logger of this package."""

    def __init__(self, world: World, formatter: RedactingFormatter) -> None:
        super().__init__(logging.INFO)
        self._world = world
        self._redacting = formatter
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)

    @contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger("baserunner")
        before = logger.level
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(before)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._redacting.redact(self._redacting.line(record, at=self._world.now()))
        except Exception:  # noqa: BLE001 - a log line that cannot be made stops nobody
            self.handleError(record)
            return
        self._lines.append(
            Line(self._world.monotonic(), now_ms(self._world), text[:HELD_CHARACTERS])
        )

    def since(self, mono_s: float) -> list[Line]:
        """What was said from that moment of this boot on, oldest first."""
        return [line for line in self._lines if line.mono_s >= mono_s]
