"""So many at once of what takes long: whoever may only look must not be able to hold everybody up by looking often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloudly.problems import Refused

RETRY_S = 10.0


class Turns:
    """At most `most` of them in this process, whoever asks."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._now = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Raises Refused at once when there is none left."""
        if self._now >= self._most:
            raise Refused("busy", f"{self._now} {self._what}; ask again.", retry_after_s=RETRY_S)
        self._now += 1
        try:
            yield
        finally:
            self._now -= 1
