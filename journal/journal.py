"""The one writer: a fact is durable when `append` returns.

Rules
- A fact is one transaction. It is committed and synced before memory moves, and memory is moved by nothing else.
- `soon` facts (heartbeats, progress) are written now and synced with the next durable fact: they survive the death of
  the process at once, and a power cut from then on. Only what is durable may be shipped (`durable_head`).
- A commit that failed has an unknown outcome: one that had raised was found after reopening (journal note, 4.3). The
  journal then refuses everything; close it and open it again. The full disk is the exception: there SQLite rolls back,
  we look, and go on when there is room.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from journal import retention
from journal.chain import link
from journal.facts import Fact, Head, Lane, Stamp, canonical, must_be_shippable
from journal.lock import WriterLock
from journal.opening import open_for_writing
from journal.pen import Pen
from journal.problems import Fork, Malformed
from journal.reading import COLUMNS, Reading
from journal.reserve import Reserve
from journal.roster import Roster, enter

# fmt: off
_INSERT = {lane: f"INSERT INTO {lane} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" for lane in Lane}  # noqa: S608 - ours
_row = attrgetter(
    "seq", "n", "stream", "kind", "src", "dst", "at_ms", "boot_id", "mono_ms", "skew_ms", "data", "hash"
)
# fmt: on
KEEP_LOG = 2_000
TRIM_STEP = 500


def _no_points(_name: str) -> None:
    """Nobody watches the commits."""


class Journal(Reading):
    """Use `Journal.open`. Synchronous, and for one thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: WriterLock,
        reserve: Reserve,
        *,
        stamp: Callable[[], Stamp],
        points: Callable[[str], None],
    ) -> None:
        self._pen = Pen(connection, is_as_before=self._is_as_before)
        super().__init__(self._pen.ask)
        self._lock = lock
        self._reserve = reserve
        self._stamp = stamp
        self._points = points
        self._epoch = super().epoch
        self._heads = {lane: self.head(lane) for lane in Lane}
        self._durable = dict(self._heads)
        self._n = self.newest_n()
        self._roster = Roster(self)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        stamp: Callable[[], Stamp],
        new_epoch: Callable[[], str],
        points: Callable[[str], None] = _no_points,
    ) -> Self:
        """Raises AlreadyRunning, NotWritable, NotDurable, NoSpace, Damaged, FromTheFuture. The directory must exist.

        `new_epoch` is asked only when there is no journal yet. `points` hears `before-commit:<kind>` and
        `after-commit:<kind>`.
        """
        with contextlib.ExitStack() as undo:
            lock = WriterLock(directory, since_ms=stamp().at_ms)
            undo.callback(lock.release)
            reserve = Reserve(directory)
            connection = open_for_writing(directory, new_epoch=new_epoch, reserve=reserve)
            undo.callback(connection.close)
            journal = cls(connection, lock, reserve, stamp=stamp, points=points)
            undo.pop_all()
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. The lock goes last: the next writer finds everything settled."""
        if self._pen.close():
            self._lock.release()

    @property
    def epoch(self) -> str:
        return self._epoch

    def durable_head(self, lane: Lane) -> Head:
        """Up to here a power cut takes nothing; ship up to here."""
        return self._durable[lane]

    def append(  # noqa: PLR0913 - what a fact is made of
        self,
        stream: str,
        kind: str,
        src: str,
        dst: str,
        data: Mapping[str, object] | None = None,
        *,
        lane: Lane = Lane.CORE,
        soon: bool = False,
        final: bool = False,
    ) -> Fact:
        """Write one fact. `final` ends its stream. Raises Malformed, IllegalFact, NoSpace, WriteFailed."""
        fact = self.compose(stream, kind, src, dst, data, lane=lane)
        self.write(fact, soon=soon, final=final)
        return fact

    def note(self, stream: str, kind: str, data: Mapping[str, object] | None = None) -> Fact:
        """A line beside the story of a stream (progress): in the log lane, soon, and no transition."""
        return self.append(stream, kind, "", "", data, lane=Lane.LOG, soon=True)

    def compose(  # noqa: PLR0913 - what a fact is made of
        self,
        stream: str,
        kind: str,
        src: str,
        dst: str,
        data: Mapping[str, object] | None = None,
        *,
        lane: Lane = Lane.CORE,
    ) -> Fact:
        """The fact that would be next in its lane: nothing is written, so it may be looked at first."""
        self._pen.must_be_usable()
        text, stamp, head = canonical(dict(data or {})), self._stamp(), self._heads[lane]
        must_be_shippable(stream, kind, src, dst, stamp)
        at_ms, boot_id, mono_ms = stamp.at_ms, stamp.boot_id, stamp.mono_ms
        seq, n, skew_ms = head.seq + 1, self._n + 1, stamp.skew_ms
        linked = link(
            head.hash,
            lane=lane,
            seq=seq,
            n=n,
            stream=stream,
            kind=kind,
            src=src,
            dst=dst,
            at_ms=at_ms,
            boot_id=boot_id,
            mono_ms=mono_ms,
            skew_ms=skew_ms,
            data=text,
        )
        return Fact(
            lane, seq, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, skew_ms, text, linked
        )

    def write(self, fact: Fact, *, soon: bool = False, final: bool = False) -> None:
        """Commit a composed fact."""
        self._write(fact, soon=soon, final=final, beside=None)

    def ack(self, lane: Lane, seq: int, hash: bytes) -> None:  # noqa: A002 - the field's name
        """Cloudly has this lane up to and including `seq`; the position is its own to move, also back. Raises Fork."""
        head, tried = self._heads[lane], f"take the ack of {lane} {seq}"
        if seq > head.seq:
            seen = f"Cloudly is ahead: our {lane} ends at {head.seq}"
            raise Fork(tried, seen, "our tail was lost: start a new epoch")
        ours = self.hash_at(lane, seq)
        if seq > 0 and ours is not None and ours != hash:
            raise Fork(
                tried,
                "its hash is not ours",
                "another copy of this journal lives: start a new epoch",
            )
        if self.acked(lane) != (seq, hash):
            with self._pen.transaction("acked", soon=True) as connection:
                update = "UPDATE cursor SET seq = ?, hash = ? WHERE lane = ?"
                connection.execute(update, (seq, hash, lane.value))

    def trim(self, keep: int = KEEP_LOG, *, step: int = TRIM_STEP) -> int:
        """Forget acked facts of the log lane beyond the newest `keep`, at most a step of them; how many went.

        Call it after an ack. It waits until half a step may go, so that a summary is worth its place.
        """
        gone = self.base(Lane.LOG).seq
        upto = min(self.acked(Lane.LOG).seq, self._heads[Lane.LOG].seq - keep)
        if upto - gone < max(2, step // 2):
            return 0
        going = self.facts(lane=Lane.LOG, after=gone, limit=min(step, upto - gone))
        told = self.compose(
            retention.STREAM, retention.KIND, "", "", retention.summary(going), lane=Lane.LOG
        )
        self._write(told, soon=True, final=False, beside=lambda c: retention.forget(c, going))
        return len(going)

    def spend_reserve(self) -> bool:
        """Give the ballast back to a full disk: room for the facts that say so. False: it was spent already."""
        return self._reserve.spend()

    def restore_reserve(self) -> bool:
        """Take the ballast again. False: the disk is still full. Cheap when it is there: call it now and then."""
        return self._reserve.restore()

    @property
    def has_reserve(self) -> bool:
        return self._reserve.is_there()

    def _write(
        self,
        fact: Fact,
        *,
        soon: bool,
        final: bool,
        beside: Callable[[sqlite3.Connection], object] | None,
    ) -> None:
        self._must_be_next(fact)
        opens = self._roster.opens(fact)
        if opens or final or beside:
            with self._pen.transaction(fact.kind, soon=soon) as connection:
                connection.execute(_INSERT[fact.lane], _row(fact))
                if opens or final:
                    enter(connection, fact, opens=opens, final=final)
                if beside:
                    beside(connection)
                self._points(f"before-commit:{fact.kind}")
        else:
            self._points(f"before-commit:{fact.kind}")
            self._pen.insert(_INSERT[fact.lane], _row(fact), kind=fact.kind, soon=soon)
        self._heads[fact.lane] = Head(fact.seq, fact.hash)
        self._n = fact.n
        self._roster.took(fact, opens=opens, final=final)
        if not soon:
            self._durable = dict(self._heads)
        self._points(f"after-commit:{fact.kind}")

    def _is_as_before(self) -> bool:
        return all(self.head(lane) == self._heads[lane] for lane in Lane)

    def _must_be_next(self, fact: Fact) -> None:
        if (fact.seq, fact.n) != (self._heads[fact.lane].seq + 1, self._n + 1):
            raise Malformed(
                f"write {fact.kind!r}", "another fact was written meanwhile", "compose it again"
            )
