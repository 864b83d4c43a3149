"""The journal of the simulated host: what Supervisor, engine and containers print, as `journalctl` shows it.

Rules:
- Bounded: the newest lines are kept.
- **Not recorded.** The call is from the Supervisor's documentation and source (docs/API.md, src/device-api/v2.ts,
  src/lib/journald.ts); the lines are in the style of its console, and their wording proves nothing.
- What a container prints is under the first 12 characters of its id: the engine logs to the journal of the host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from interfaces.world import World

KEPT: Final = 2000
SUPERVISOR: Final = "balena-supervisor.service"
ENGINE: Final = "balena.service"


class Manner(StrEnum):
    """How the call is answered."""

    WELL = "well"
    ABSENT = "absent"
    """404: a Supervisor from before 9.18."""
    REFUSED = "refused"
    SLOW = "slow"
    """A minute passes before the first byte."""
    ENDLESS = "endless"
    """As if it followed: line after line, and no end."""
    GARBAGE = "garbage"
    """Bytes that are no text."""


class Entry(NamedTuple):
    unit: str
    text: str


class HostJournal:
    def __init__(self, world: World, hostname: Callable[[], str], kept: int = KEPT) -> None:
        self._world = world
        self._hostname = hostname
        self._entries: deque[Entry] = deque(maxlen=kept)
        self.manner = Manner.WELL

    def say(self, unit: str, identifier: str, message: str) -> None:
        """One line of whoever that is."""
        at = self._world.now().strftime("%b %d %H:%M:%S")
        self._entries.append(Entry(unit, f"{at} {self._hostname()} {identifier}: {message}"))

    def supervisor(self, message: str) -> None:
        """A line of the Supervisor's console."""
        self.say(SUPERVISOR, "balena-supervisor[1742]", message)

    def engine(self, level: str, message: str) -> None:
        at = self._world.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.say(ENGINE, "balenad[1201]", f'time="{at}" level={level} msg="{message}"')

    def container(self, container_id: str, message: str) -> None:
        """What the program in a container prints."""
        self.say(ENGINE, f"{container_id[:12]}[1201]", message)

    def read(self, *, unit: str | None, count: int | None) -> list[str]:
        """The last lines, oldest first, as `journalctl -o short` prints them."""
        found = [entry.text for entry in self._entries if unit in {None, entry.unit}]
        if not found:
            return ["-- No entries --"]
        return found if count is None else found[-count:]
