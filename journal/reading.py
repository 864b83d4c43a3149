"""Everything that can be asked of a journal, the same for its writer and for a reader beside it.

Rules
- Every query is fetched at once: an open cursor would hold a snapshot, and a held snapshot lets the WAL grow.
- Nothing here costs more because the journal is long: a stream is read from its first fact, a position is found by
  bisection, and pages follow the key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from journal.facts import Fact, Head, Lane, StreamInfo, split_name
from journal.problems import GOES_ON, Damaged, translate
from journal.tombstone import Tombstone
from journal.tombstone import read as read_tombstone

Row = tuple[Any, ...]
Rows = Callable[[str, tuple[object, ...]], list[Row]]
PAGE = 500
SKEWS_SINCE = 2
"""The schema version that brought `skew_ms`, `belief` and tombstones."""
ALL = -1
"""SQLite's LIMIT for no limit."""
INCREMENTAL = 2
"""How SQLite calls a file that can be shrunk a few pages at a time (auto_vacuum)."""
NEWEST = 2**62

COLUMNS = "seq, n, stream, kind, src, dst, at_ms, boot, mono_ms, skew_ms, data, hash"
# fmt: off
_HEAD  = {lane: f"SELECT seq, hash, n FROM {lane} ORDER BY seq DESC LIMIT 1" for lane in Lane}  # noqa: S608 - ours
_AT    = {lane: f"SELECT hash, n FROM {lane} WHERE seq = ?" for lane in Lane}  # noqa: S608 - ours
# fmt: on
_STREAMS = "SELECT machine, attempt, lane, first_seq, last_seq, carried, belief FROM stream"
_OLDER = {"skew_ms": "NULL", "belief": "''"}
"""What schema version 1 has in place of those columns: a journal may be read before it is migrated."""


class Reading:
    """Asks through `rows`, which runs one query and returns all of its rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @cached_property
    def _columns(self) -> str:
        return self._as_it_was(COLUMNS)

    @cached_property
    def _streams(self) -> str:
        return self._as_it_was(_STREAMS)

    @cached_property
    def _version(self) -> int:
        return self._pragma("user_version")

    def _as_it_was(self, columns: str) -> str:
        if self._version >= SKEWS_SINCE:
            return columns
        for name, instead in _OLDER.items():
            columns = columns.replace(name, instead)
        return columns

    @property
    def epoch(self) -> str:
        found = self.meta("epoch")
        if found is None:
            raise Damaged("read the epoch", "there is none", GOES_ON)
        return found

    def meta(self, name: str) -> str | None:
        """What the file says of itself; None: nothing."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def facts(
        self,
        *,
        lane: Lane | None = None,
        stream: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Fact]:
        """In order. With a lane, `after` is a seq of that lane; without one it is an `n`, and both lanes are merged."""
        count = ALL if limit is None else limit
        found: list[Fact] = []
        for each in Lane if lane is None else (lane,):
            since = after if lane else self._seq_at(each, after)
            first, last = self._span(each, stream) if stream else (0, NEWEST)
            found += self._range(each, max(since, first), last, stream, count)
        if lane is None:
            found.sort(key=lambda fact: fact.n)
        return found[:limit]

    def pages(
        self,
        lane: Lane,
        *,
        after: int = 0,
        upto: int = NEWEST,
        stream: str | None = None,
        size: int = PAGE,
    ) -> Iterator[list[Fact]]:
        """The facts of one lane with `after` < seq <= `upto`, a page at a time and none held between them."""
        while page := self._range(lane, after, upto, stream, size):
            yield page
            after = page[-1].seq
            if len(page) < size:
                return

    def tail(self, count: int, *, lane: Lane | None = None) -> list[Fact]:
        """The newest `count` facts, oldest of them first."""
        lanes = Lane if lane is None else (lane,)
        found = [Fact(each, *row) for each in lanes for row in self._newest(each, count)]
        found.sort(key=lambda fact: fact.n)
        return found[-count:] if count else []

    def head(self, lane: Lane) -> Head:
        """Where the lane ends."""
        rows = self._rows(_HEAD[lane], ())
        return Head(rows[0][0], rows[0][1]) if rows else self.base(lane)

    def base(self, lane: Lane) -> Head:
        """What the lane's chain hangs on: genesis, or the last fact that was trimmed."""
        return self._position("SELECT seq, hash FROM base WHERE lane = ?", lane)

    def acked(self, lane: Lane) -> Head:
        """Up to where Cloudly has this lane, as far as we know."""
        return self._position("SELECT seq, hash FROM cursor WHERE lane = ?", lane)

    def oldest(self, lane: Lane) -> int:
        """The first seq that is still here; head + 1 when the lane is empty."""
        return self.base(lane).seq + 1

    def prev_hash(self, lane: Lane, seq: int) -> bytes:
        """The hash before fact `seq`."""
        found = self.hash_at(lane, seq - 1)
        if found is None:
            seen = f"fact {seq - 1} is not there"
            raise Damaged(f"read {lane} before {seq}", seen, "ask from `oldest` on")
        return found

    def newest_n(self) -> int:
        """The place of the newest fact among those of both lanes."""
        return max((row[2] for lane in Lane for row in self._rows(_HEAD[lane], ())), default=0)

    def streams(self, machine: str | None = None, *, newest: int | None = None) -> list[StreamInfo]:
        """Every attempt of every machine, or of one, by name and number; or only the `newest` of each machine."""
        if newest is not None:
            machines = [machine] if machine else self.machines()
            return [info for each in machines for info in self._newest_of(each, newest)]
        where, args = (" WHERE machine = ?", (machine,)) if machine else ("", ())
        return [self._info(row) for row in self._rows(self._streams + where, args)]

    def spans(self) -> list[StreamInfo]:
        """Every attempt of every machine, without its newest fact: one query for all of them."""
        return [
            StreamInfo(f"{machine}/{attempt}", _lane_of(home), first, last, carried, belief, None)
            for machine, attempt, home, first, last, carried, belief in self._rows(
                self._streams, ()
            )
        ]

    def machines(self) -> list[str]:
        """The names of all machines that have streams. One look for each, however many attempts they have."""
        found: list[str] = []
        query = "SELECT min(machine) FROM stream WHERE machine > ?"
        while (name := self._rows(query, (found[-1] if found else "",))[0][0]) is not None:
            found.append(name)
        return found

    def newest_attempt(self, machine: str) -> int:
        """0: it has none."""
        query = "SELECT coalesce(max(attempt), 0) FROM stream WHERE machine = ?"
        return int(self._rows(query, (machine,))[0][0])

    def open_streams(self) -> list[StreamInfo]:
        return [
            self._info(row) for row in self._rows(self._streams + " WHERE last_seq IS NULL", ())
        ]

    def stream(self, name: str) -> StreamInfo | None:
        where = " WHERE machine = ? AND attempt = ?"
        rows = self._rows(self._streams + where, split_name(name))
        return self._info(rows[0]) if rows else None

    def next_stream_name(self, machine: str) -> str:
        """A name that no attempt of this machine has had."""
        return f"{machine}/{self.newest_attempt(machine) + 1}"

    def tombstones(self, lane: Lane, after: int = 0) -> list[Tombstone]:
        """What went before Cloudly had it: ranges that end after `after`, oldest first."""
        if self._version < SKEWS_SINCE:
            return []
        query = (
            "SELECT lane, first_seq, last_seq, why, told FROM tombstone"
            " WHERE lane = ? AND last_seq > ? ORDER BY first_seq"
        )
        rows = self._rows(query, (lane.value, after))
        try:
            return [read_tombstone(row) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            seen = f"one cannot be read ({error!r})"
            raise Damaged(f"read the tombstones of {lane}", seen, GOES_ON) from error

    def known_older(self, lane: Lane, before_ms: int, *, among: int) -> int:
        """The newest seq among so many oldest facts that is known to be older than that; 0: none of them is."""
        query = (
            f"SELECT coalesce(max(seq), 0) FROM (SELECT seq, at_ms, skew_ms FROM {lane}"  # noqa: S608 - ours
            " WHERE seq > ? ORDER BY seq LIMIT ?) WHERE at_ms + skew_ms < ?"
        )
        return int(self._rows(query, (self.base(lane).seq, among, before_ms))[0][0])

    def used_bytes(self) -> int:
        """What the journal takes of its file; the rest of the file is free for new facts."""
        return self.page_bytes() * self._pragma("page_count") - self.free_bytes()

    def free_bytes(self) -> int:
        return self.page_bytes() * self._pragma("freelist_count")

    def page_bytes(self) -> int:
        return self._pragma("page_size")

    def can_shrink(self) -> bool:
        """Whether the file was made so that free pages can be given back."""
        return self._pragma("auto_vacuum") == INCREMENTAL

    def quick_check(self) -> list[str]:
        """What SQLite says of the file: `ok`, or its complaints. It reads all of it."""
        return [str(row[0]) for row in self._rows("PRAGMA quick_check", ())]

    def _range(
        self, lane: Lane, after: int, upto: int, stream: str | None, limit: int
    ) -> list[Fact]:
        query, args = self._between(lane), (after, upto)
        if stream:
            rows = self._rows(
                query + " AND stream = ? ORDER BY seq LIMIT ?", (*args, stream, limit)
            )
        else:
            rows = self._rows(query + " ORDER BY seq LIMIT ?", (*args, limit))
        return Fact.of(lane, rows)

    def _between(self, lane: Lane) -> str:
        return f"SELECT {self._columns} FROM {lane} WHERE seq > ? AND seq <= ?"  # noqa: S608 - ours

    def _newest(self, lane: Lane, count: int) -> list[Row]:
        query = f"SELECT {self._columns} FROM {lane} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - ours
        return self._rows(query, (count,))

    def _span(self, lane: Lane, stream: str) -> tuple[int, int]:
        """Between which positions of the lane the stream can have facts: (after, upto)."""
        where = " WHERE machine = ? AND attempt = ?"
        rows = self._rows(self._streams + where, split_name(stream))
        if not rows:
            return 0, NEWEST
        _, _, home, first, last, *_ = rows[0]
        if lane == home:
            return first - 1, last or NEWEST
        began = self._rows(_AT[_lane_of(home)], (first,))
        return (self._seq_at(lane, began[0][1]) if began else 0), NEWEST

    def _seq_at(self, lane: Lane, n: int) -> int:
        """The last position of the lane that is not after `n`; both grow together, so halving finds it."""
        low, high = self.base(lane).seq, self.head(lane).seq
        if n <= 0:
            return low
        while low < high:
            middle = (low + high + 1) // 2
            rows = self._rows(_AT[lane], (middle,))
            if not rows or rows[0][1] <= n:  # gone: trimmed meanwhile, so it was older
                low = middle
            else:
                high = middle - 1
        return low

    def hash_at(self, lane: Lane, seq: int) -> bytes | None:
        """None where the fact is not here (any more, or yet)."""
        rows = self._rows(_AT[lane], (seq,))
        if rows:
            return bytes(rows[0][0])
        base = self.base(lane)
        return base.hash if base.seq == seq else None

    def _newest_of(self, machine: str, count: int) -> list[StreamInfo]:
        where = " WHERE machine = ? ORDER BY attempt DESC LIMIT ?"
        rows = self._rows(self._streams + where, (machine, count))
        return [self._info(row) for row in reversed(rows)]

    def _pragma(self, name: str) -> int:
        return int(self._rows(f"PRAGMA {name}", ())[0][0])

    def _position(self, query: str, lane: Lane) -> Head:
        rows = self._rows(query, (lane.value,))
        if not rows:
            raise Damaged(f"read {lane}", "a table has lost its row", GOES_ON)
        return Head(*rows[0])

    def _info(self, row: Row) -> StreamInfo:
        machine, attempt, home, first, last, carried, belief = row
        name, lane = f"{machine}/{attempt}", _lane_of(home)
        if last is None:
            query = self._between(lane) + " AND stream = ? AND dst <> '' ORDER BY seq DESC LIMIT 1"
            newest = self._rows(query, (first - 1, NEWEST, name))
        else:
            newest = self._rows(self._between(lane), (last - 1, last))
        final = Fact(lane, *newest[0]) if newest else None
        return StreamInfo(name, lane, first, last, carried, belief, final)


def _lane_of(told: str) -> Lane:
    try:
        return Lane(told)
    except ValueError:
        seen = f"a stream is said to be in a lane {told!r:.40}"
        raise Damaged("read the streams", seen, GOES_ON) from None


def asking(connection: sqlite3.Connection, tried: str) -> Rows:
    """Queries on one connection, with SQLite's errors in this room's family."""

    def rows(query: str, args: tuple[object, ...]) -> list[Row]:
        try:
            return connection.execute(query, args).fetchall()
        except sqlite3.Error as error:
            raise translate(error, tried=tried) from error

    return rows
