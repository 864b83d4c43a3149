"""How long an attempt stayed in each state: what `show`, `diff`, `stats` and the timeline all count with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baserunner.cli.clock import Clock, Length
    from journal.facts import Fact


@dataclass(frozen=True, slots=True)
class Stay:
    """One visit to a state, from the fact that entered it to the fact that left it; `left` is None: still there."""

    stream: str
    state: str
    entered: Fact
    left: Fact | None

    def length(self, clock: Clock) -> Length | None:
        return None if self.left is None else clock.between(self.entered, self.left)

    @property
    def across_boots(self) -> bool:
        return self.left is not None and self.left.boot_id != self.entered.boot_id


class Visits:
    """Follows any number of streams at once, fact by fact."""

    def __init__(self) -> None:
        self._here: dict[str, Fact] = {}

    def see(self, fact: Fact) -> Stay | None:
        """The stay that this fact ended, if it ended one."""
        if fact.is_note:
            return None
        before = self._here.get(fact.stream)
        if before is not None and fact.dst == before.dst:
            return None
        self._here[fact.stream] = fact
        return None if before is None else Stay(fact.stream, before.dst, before, fact)

    def still(self) -> list[Stay]:
        """Where each stream is now."""
        return [Stay(stream, fact.dst, fact, None) for stream, fact in self._here.items()]


def stays(facts: Iterable[Fact]) -> Iterator[Stay]:
    """In the order in which they ended; those that have not ended come last."""
    visits = Visits()
    yield from filter(None, map(visits.see, facts))
    yield from visits.still()


@dataclass(slots=True)
class Total:
    """All visits to one state together."""

    state: str
    ms: int = 0
    visits: int = 0
    sure: bool = True
    across_boots: bool = False
    open: bool = False

    def add(self, stay: Stay, clock: Clock) -> None:
        self.visits += 1
        self.across_boots |= stay.across_boots
        length = stay.length(clock)
        if length is None:
            self.open = True
        else:
            self.ms += length.ms
            self.sure &= length.sure


class Totals:
    """Per state, in the order in which the states were first left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[str, Total] = {}

    def add(self, stay: Stay) -> None:
        self._found.setdefault(stay.state, Total(stay.state)).add(stay, self._clock)

    def all(self) -> list[Total]:
        return list(self._found.values())
