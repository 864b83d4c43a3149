"""A reader that knows the boots of a journal: where each begins and ends, and which of them were told the time.

Rules
- A boot is one stretch of the journal, so its ends are found by halving; the newest is found first.
- Boots follow one another, whatever their clocks say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from journal.connection import connect
from journal.facts import Fact, Lane
from journal.reader import Reader
from journal.reading import SKEWS_SINCE, Row

LOOK_AHEAD = 2_000
"""How many facts later in a boot the time may have been told; a device asks every few seconds or minutes."""


_SAME = "(SELECT boot FROM {lane} WHERE seq <= (low + high + 1) / 2 ORDER BY seq DESC LIMIT 1) IS ?"
_HALVING = (
    "WITH RECURSIVE half(low, high) AS (SELECT ?, ? UNION ALL SELECT "  # noqa: S608 - ours
    f"iif({_SAME}, low, (low + high + 1) / 2), iif({_SAME}, (low + high + 1) / 2 - 1, high) "
    "FROM half WHERE low < high) SELECT low FROM half WHERE low >= high"
)


@dataclass(frozen=True, slots=True)
class Sought:
    """Which facts: every condition that is given holds. `after` and `before` are places in the journal (`n`)."""

    machine: str | None = None
    streams: tuple[str, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: int = 0
    before: int | None = None

    @property
    def by_time(self) -> bool:
        return self.since_ms is not None or self.until_ms is not None


class End(NamedTuple):
    """A fact at either end of a boot."""

    n: int
    mono_ms: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of the host: its first and last fact, and behind which and up to which position of each lane it is."""

    first: End
    last: End
    spans: Mapping[Lane, tuple[int, int]]

    @property
    def boot_id(self) -> str:
        return self.last.boot_id


class Boots(Reader):
    """It asks many questions in a row.

    So where there is no WAL it keeps its connection as long as the file stays the same: to open one for each question,
    as a Reader does, costs more than most questions.
    """

    def __init__(self, path: Path) -> None:
        self._still: sqlite3.Connection | None = None
        self._still_as: tuple[int, int, int] | None = None
        self._looked: tuple[int | None, int | None, int] | None = None
        self._found: list[tuple[Boot, int | None]] = []
        super().__init__(path)

    @property
    def path(self) -> Path:
        return self._path

    def close(self) -> None:
        super().close()
        self._let_go()

    def boots(self) -> Iterator[Boot]:
        """The newest first."""
        upto = {lane: self.head(lane).seq for lane in Lane}
        while ends := {
            lane: end for lane in Lane if (end := self._end(lane, upto[lane], back=True))
        }:
            last = max(ends.values())
            spans = {
                lane: (self._before_boot(lane, upto[lane], end.boot_id), upto[lane])
                for lane, end in ends.items()
                if end.boot_id == last.boot_id
            }
            firsts = [self._end(lane, after + 1, back=False) for lane, (after, _) in spans.items()]
            yield Boot(min(filter(None, firsts)), last, spans)
            upto.update({lane: after for lane, (after, _) in spans.items()})

    def told_after(self, fact: Fact) -> int | None:
        """Believable minus monotonic time, as told later in the fact's boot; None: not soon, or never."""
        if not self._knows_skews:
            return None
        for lane in Lane:
            after = self._seq_at(lane, fact.n)
            query = f"SELECT boot, skew_ms, at_ms, mono_ms FROM {lane} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - ours
            for boot_id, skew_ms, at_ms, mono_ms in self._rows(query, (after, LOOK_AHEAD)):
                if boot_id != fact.boot_id:
                    break
                if skew_ms is not None:
                    return int(at_ms + skew_ms - mono_ms)
        return None

    def _within(self, sought: Sought) -> list[tuple[Boot, int | None]]:
        """The boots that may hold what is meant, the newest first, with believable minus monotonic time of each.

        Boots follow one another, whatever their clocks say: before one that ended too early there is nothing.
        """
        looked = sought.since_ms, sought.until_ms, self.newest_n()
        if looked != self._looked:
            self._looked, self._found = looked, list(self._look(sought))
        return self._found

    def _look(self, sought: Sought) -> Iterator[tuple[Boot, int | None]]:
        for boot in self.boots():
            base = self._base_of(boot)
            if base is not None:
                if sought.since_ms is not None and base + boot.last.mono_ms < sought.since_ms:
                    return
                if sought.until_ms is not None and base + boot.first.mono_ms > sought.until_ms:
                    continue
            yield boot, base

    def _narrowed(self, sought: Sought) -> Sought:
        """Without the boots at either end that cannot hold what is meant."""
        left = [boot for boot, _ in self._within(sought)]
        if not left:
            return replace(sought, before=0)
        before = left[0].last.n + 1
        return replace(
            sought,
            after=max(sought.after, left[-1].first.n - 1),
            before=before if sought.before is None else min(sought.before, before),
        )

    def _base_of(self, boot: Boot) -> int | None:
        for lane, span in boot.spans.items():
            query = (
                f"SELECT at_ms + skew_ms - mono_ms FROM {lane} WHERE seq > ? AND seq <= ? "  # noqa: S608 - ours
                "AND skew_ms IS NOT NULL ORDER BY seq DESC LIMIT 1"
            )
            rows = self._rows(query, span)
            if rows:
                return int(rows[0][0])
        return None

    def _n_of(self, lane: Lane, seq: int) -> int:
        rows = self._rows(f"SELECT n FROM {lane} WHERE seq = ?", (seq,))  # noqa: S608 - ours
        return int(rows[0][0]) if rows else 0

    def _end(self, lane: Lane, seq: int, *, back: bool) -> End | None:
        """The fact at this position, or the next one that is there."""
        order = "seq <= ? ORDER BY seq DESC" if back else "seq >= ? ORDER BY seq"
        query = f"SELECT n, mono_ms, boot FROM {lane} WHERE {order} LIMIT 1"  # noqa: S608 - ours
        rows = self._rows(query, (seq,))
        return End(*rows[0]) if rows else None

    def _before_boot(self, lane: Lane, upto: int, boot_id: str) -> int:
        """The last position before the boot that the lane ends with, up to here."""
        rows = self._rows(_HALVING.format(lane=lane), (self.base(lane).seq, upto, boot_id, boot_id))
        return int(rows[0][0])

    @cached_property
    def _knows_skews(self) -> bool:
        ((version,),) = self._rows("PRAGMA user_version", ())
        return int(version) >= SKEWS_SINCE

    def _answer(self, query: str, args: tuple[object, ...]) -> list[Row]:
        before = self._signature()
        if self._connection is None and before[2] == 0:  # no WAL
            if self._still is None or self._still_as != before:
                self._let_go()
                self._still, self._still_as = connect(self._path, mode="ro&immutable=1"), before
            rows = self._still.execute(query, args).fetchall()
            if self._signature() == before:
                return rows
        self._let_go()
        return super()._answer(query, args)

    def _let_go(self) -> None:
        if self._still is not None:
            self._still.close()
            self._still = None
