"""A reader for people's questions: facts by time, machine and boot, the newest attempts, what fills the file.

Rules
- Little asked is little read: pages follow the key from the newest fact, and a boot is found by halving.
- A question about time looks only at boots that can hold it; one about kinds or days reads a lane, inside SQLite.
- Believable time: `at_ms + skew_ms`; where the skew was told only later in the same boot, reckoned back by the boot's
  monotonic clock; else what the device's wall clock said.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from journal import schema
from journal.boots import Boots, Sought
from journal.connection import wal_bytes
from journal.facts import Fact, Lane, StreamInfo, split_name
from journal.reading import NEWEST, PAGE, Row

LATE_NOTES = 500
"""How far behind the end of an attempt its last lines may stand in the log lane."""

_TOLD = (
    "WITH told(whose, base) AS MATERIALIZED "
    "(SELECT CAST(json_extract(value, '$[0]') AS TEXT), CAST(json_extract(value, '$[1]') AS INTEGER) "
    "FROM json_each(?)) "
)
"""Which boots were told the time: boot, and believable minus monotonic time."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A stream with the first fact of it that is still here."""

    info: StreamInfo
    first: Fact | None

    @property
    def n(self) -> int:
        return self.first.n if self.first else 0


def open_survey(where: Path) -> Survey:
    """`where` is a data directory or a journal file. Raises NoJournal, Damaged, FromTheFuture."""
    return Survey(where / schema.FILE if where.is_dir() else where)


class Survey(Boots):
    """A Reader with more questions."""

    def find(self, sought: Sought, count: int, *, newest: bool = True) -> list[Fact]:
        """The newest `count` of them, or the oldest; in order either way."""
        found = [fact for lane in Lane for fact in self._some(lane, sought, count, newest=newest)]
        found.sort(key=lambda fact: fact.n)
        return found[max(len(found) - count, 0) :] if newest else found[:count]

    def each(self, sought: Sought, *, newest: bool = False) -> Iterator[Fact]:
        """All of them in order, or the newest first; a page of each lane at a time."""
        lanes = (self._paged(lane, sought, newest=newest) for lane in Lane)
        return heapq.merge(*lanes, key=lambda fact: -fact.n if newest else fact.n)

    def story(self, name: str) -> Iterator[Fact]:
        """The facts of one attempt with the notes beside it, in order. Raises Malformed."""
        split_name(name)
        info = self.stream(name)
        if info is None:
            return self.each(Sought(streams=(name,)))
        other = Lane.CORE if info.lane is Lane.LOG else Lane.LOG
        first = self._n_of(info.lane, info.first_seq)
        last = info.last.n if info.ended and info.last else None
        return heapq.merge(
            self._one_stream(info.lane, name, info.first_seq - 1, info.last_seq or NEWEST),
            self._one_stream(
                other,
                name,
                self._seq_at(other, first),
                NEWEST if last is None else self._seq_at(other, last) + LATE_NOTES,
            ),
            key=lambda fact: fact.n,
        )

    def attempts(self, machine: str | None = None) -> Iterator[Attempt]:
        """Every attempt, the one that began last first; no more is read than is taken."""
        lanes = (self._attempts(lane, machine) for lane in Lane)
        return heapq.merge(*lanes, key=lambda attempt: -attempt.n)

    def attempt(self, name: str) -> Attempt | None:
        info = self.stream(name)
        return None if info is None else self._attempt(info)

    def of_deployment(self, deployment: str) -> tuple[str, ...]:
        """The attempts at a deployment, by its id or the beginning of it."""
        belief = "s.belief" if self._knows_skews else "''"
        told = "CASE WHEN json_valid({0}) THEN json_extract({0}, '$.deployment') END".format
        query = (
            "SELECT s.machine, s.attempt FROM stream s LEFT JOIN core f ON f.seq = s.first_seq "  # noqa: S608 - ours
            f"WHERE s.lane = 'core' AND substr(coalesce({told('f.data')}, {told(belief)}), 1, ?) = ?"
        )
        rows = self._rows(query, (len(deployment), deployment))
        return tuple(f"{machine}/{attempt}" for machine, attempt in rows)

    def begins(self, machine: str, kind: str, first_n: int, last_n: int) -> list[Fact]:
        """The first facts, of this kind, of the attempts of a machine that began between these places."""
        found = []
        for lane in Lane:
            columns = ", ".join(f"f.{name}" for name in self._columns.split(", "))
            query = (
                f"SELECT {columns} FROM stream s JOIN {lane} f ON f.seq = s.first_seq WHERE s.lane = ? "  # noqa: S608 - ours
                "AND s.machine = ? AND f.kind = ? AND f.n > ? AND f.n < ? ORDER BY f.seq"
            ).replace("f.NULL", "NULL")
            rows = self._rows(query, (lane.value, machine, kind, first_n, last_n))
            found += [Fact(lane, *row) for row in rows]
        return found

    def kinds(self, lane: Lane, sought: Sought) -> list[Row]:
        """(kind, how many, bytes of data) of each kind, most first."""
        return self._select(
            "kind, count(*), sum(length(data))", lane, sought, "GROUP BY 1 ORDER BY 2 DESC, 1"
        )

    def days(self, lane: Lane, sought: Sought) -> list[Row]:
        """(days since 1970 by believable time, how many, bytes of data), in the order of days."""
        day = f"{self._believable} / 86400000, count(*), sum(length(data))"
        return self._select(day, lane, sought, "GROUP BY 1 ORDER BY 1", timed=True)

    def sizes(self) -> dict[str, int]:
        """Bytes of the file, of its free pages and of the WAL beside it."""
        ((page,),) = self._rows("PRAGMA page_size", ())
        ((free,),) = self._rows("PRAGMA freelist_count", ())
        return {
            "file_bytes": self._path.stat().st_size,
            "free_bytes": page * free,
            "wal_bytes": wal_bytes(self._path),
        }

    @cached_property
    def _believable(self) -> str:
        return "coalesce(at_ms + skew_ms, base + mono_ms, at_ms)" if self._knows_skews else "at_ms"

    def _select(  # noqa: PLR0913 - the parts of a query
        self,
        columns: str,
        lane: Lane,
        sought: Sought,
        rest: str,
        *more: object,
        after: int = 0,
        upto: int = NEWEST,
        timed: bool = False,
    ) -> list[Row]:
        """`after`, `upto`: positions of the lane. `timed`: the columns or the rest speak of believable time."""
        joins = self._knows_skews and (timed or sought.by_time)
        if joins and sought.by_time:
            sought = self._narrowed(sought)
        terms, args = self._terms(lane, sought, after, upto)
        if joins:
            told = [(boot.boot_id, base) for boot, base in self._within(sought) if base is not None]
            args.insert(0, json.dumps(told))
        query = (
            f"{_TOLD if joins else ''}SELECT {columns} FROM {lane}"  # noqa: S608 - ours
            f"{' LEFT JOIN told ON whose = boot' if joins else ''} WHERE {' AND '.join(terms)} {rest}"
        )
        return self._rows(query, (*args, *more))

    def _terms(
        self, lane: Lane, sought: Sought, after: int, upto: int
    ) -> tuple[list[str], list[object]]:
        terms = ["seq > ?", "seq <= ?"]
        args: list[object] = [after, upto]
        if sought.after:
            args[0] = max(after, self._seq_at(lane, sought.after))
        if sought.before is not None:
            args[1] = min(upto, self._seq_at(lane, sought.before - 1))
        if sought.machine:  # "0" is the character after "/": the end of the range
            terms.append("stream >= ? AND stream < ?")
            args += [f"{sought.machine}/", f"{sought.machine}0"]
        if sought.streams is not None:
            terms.append(f"stream IN ({', '.join('?' * len(sought.streams))})")
            args += sought.streams
        for sign, limit_ms in ((">=", sought.since_ms), ("<=", sought.until_ms)):
            if limit_ms is not None:
                terms.append(f"{self._believable} {sign} ?")
                args.append(limit_ms)
        return terms, args

    def _some(  # noqa: PLR0913 - a page of a lane
        self,
        lane: Lane,
        sought: Sought,
        count: int,
        *,
        newest: bool,
        after: int = 0,
        upto: int = NEWEST,
    ) -> list[Fact]:
        rest = f"ORDER BY seq {'DESC' if newest else 'ASC'} LIMIT ?"
        rows = self._select(self._columns, lane, sought, rest, count, after=after, upto=upto)
        return [Fact(lane, *row) for row in rows]

    def _paged(self, lane: Lane, sought: Sought, *, newest: bool) -> Iterator[Fact]:
        after, upto, size = 0, NEWEST, PAGE
        if sought.by_time:  # each page would look at every boot again
            size = -1
        while page := self._some(lane, sought, size, newest=newest, after=after, upto=upto):
            yield from page
            if len(page) != size:
                return
            after, upto = (0, page[-1].seq - 1) if newest else (page[-1].seq, NEWEST)

    def _attempts(self, lane: Lane, machine: str | None) -> Iterator[Attempt]:
        before = NEWEST
        where = " WHERE lane = ? AND first_seq < ? AND machine = coalesce(?, machine)"
        order = " ORDER BY first_seq DESC LIMIT ?"
        while rows := self._rows(
            self._streams + where + order, (lane.value, before, machine, PAGE)
        ):
            for row in rows:
                yield self._attempt(self._info(row))
            before = rows[-1][3]

    def _attempt(self, info: StreamInfo) -> Attempt:
        first = self._range(info.lane, info.first_seq - 1, info.last_seq or NEWEST, info.name, 1)
        return Attempt(info, first[0] if first else None)

    def _one_stream(self, lane: Lane, name: str, after: int, upto: int) -> Iterator[Fact]:
        return (
            fact for page in self.pages(lane, after=after, upto=upto, stream=name) for fact in page
        )
