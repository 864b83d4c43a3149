"""The one writer: a fact is durable when `append` returns.

Rules
- A fact is one transaction. It is committed and synced before memory moves, and memory is moved by nothing else.
- `soon` facts (heartbeats, progress) are written now and synced with the next durable fact, with `sync`, or when they
  are many or old: they survive the death of the process at once, and a power cut from then on. Only what is durable may
  be shipped (`durable_head`).
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

from journal import retention, space
from journal.chain import link
from journal.facts import Fact, Head, Lane, Stamp, canonical, must_be_shippable
from journal.lock import WriterLock
from journal.opening import CLOSED_PROPERLY, open_for_writing
from journal.pen import Pen
from journal.problems import Fork, JournalProblem, Malformed
from journal.reading import COLUMNS, Reading
from journal.reserve import Reserve
from journal.retention import Freeze, Limits, Retained
from journal.roster import Roster, enter
from journal.tombstone import clear

# fmt: off
_INSERT = {lane: f"INSERT INTO {lane} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" for lane in Lane}  # noqa: S608 - ours
_row = attrgetter(
    "seq", "n", "stream", "kind", "src", "dst", "at_ms", "boot_id", "mono_ms", "skew_ms", "data", "hash"
)
# fmt: on
KEEP_LOG = 2_000
TRIM_STEP = 500
SOON_FACTS = 100
"""At most so many facts wait for their flush,"""
SOON_MS = 300_000
"""and none waits longer than this for it, as long as facts are written."""


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
        self._waiting: Fact | None = None
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
            connection = open_for_writing(
                directory, new_epoch=new_epoch, reserve=reserve, stamp=stamp
            )
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
        """Idempotent. The lock goes last: the next writer finds everything settled, and a mark that says so."""
        with (
            contextlib.suppress(JournalProblem),
            self._pen.transaction("closed", soon=False) as connection,
        ):
            connection.execute(CLOSED_PROPERLY)
        if self._pen.close():
            self._lock.release()

    @property
    def epoch(self) -> str:
        return self._epoch

    def durable_head(self, lane: Lane) -> Head:
        """Up to here a power cut takes nothing; ship up to here."""
        return self._durable[lane]

    def sync(self) -> bool:
        """Make durable what was written `soon`, in one flush. False: all was."""
        if self._durable == self._heads:
            return False
        with self._pen.transaction("synced", soon=False) as connection:
            # A flush needs something to flush: SQLite leaves a page alone that would stay the same.
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('synced', ?)", (str(self._n),))
        self._all_durable()
        return True

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
        values = canonical(dict(data or {}))
        return self._after(self._heads[lane], self._n, lane, stream, kind, src, dst, values)

    def write(self, fact: Fact, *, soon: bool = False, final: bool = False) -> None:
        """Commit a composed fact."""
        self._write(fact, soon=soon and not self._must_flush(fact), final=final)

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
                clear(connection, lane, seq)

    def trim(self, keep: int = KEEP_LOG, *, step: int = TRIM_STEP) -> int:
        """Forget acked facts of the log lane beyond the newest `keep`, at most a step of them; how many went.

        Call it after an ack. It waits until half a step may go, so that a summary is worth its place.
        """
        going = retention.all_that_cloudly_has(self, keep=keep, step=step)
        if going:
            self._forget(going, None)
        return len(going.going) if going else 0

    def retain(self, limits: Limits, freeze: Freeze | None = None) -> Retained:
        """One bounded step of forgetting, or of giving space back. Call it after acks, and now and then.

        `freeze` says what a stream believes after the facts of it that go (`recall.freezer`).
        """
        step = retention.next_step(self, limits, now=self._stamp(), used_bytes=self.used_bytes())
        if step:
            self._forget(step, freeze)
            return Retained(len(step.going), step.dropped, more=True)
        pages = space.to_give_back(self)
        if not pages:
            return Retained()
        before = self.free_bytes()
        with self._pen.transaction("space-given-back", soon=True) as connection:
            space.give_back(connection, pages)
        freed = before - self.free_bytes()
        return Retained(freed_bytes=freed, more=freed > 0)

    def spend_reserve(self) -> bool:
        """Give the ballast back to a full disk: room for the facts that say so. False: it was spent already."""
        return self._reserve.spend()

    def restore_reserve(self) -> bool:
        """Take the ballast again. False: the disk is still full. Cheap when it is there: call it now and then."""
        return self._reserve.restore()

    @property
    def has_reserve(self) -> bool:
        return self._reserve.is_there()

    def _write(self, fact: Fact, *, soon: bool, final: bool) -> None:
        self._must_be_next(fact)
        opens = self._roster.opens(fact)
        if opens or final:
            with self._pen.transaction(fact.kind, soon=soon) as connection:
                connection.execute(_INSERT[fact.lane], _row(fact))
                enter(connection, fact, opens=opens, final=final)
                self._points(f"before-commit:{fact.kind}")
        else:
            self._points(f"before-commit:{fact.kind}")
            self._pen.insert(_INSERT[fact.lane], _row(fact), kind=fact.kind, soon=soon)
        self._took(fact, soon=soon)
        self._roster.took(fact, opens=opens, final=final)
        self._points(f"after-commit:{fact.kind}")

    def _forget(self, step: retention.Step, freeze: Freeze | None) -> None:
        """What Cloudly never had goes durably: a power cut must not bring back what its tombstone told."""
        kept = retention.carried(self, step, freeze)
        notes, head, n = [], self._heads[Lane.LOG], self._n
        for stream, kind, data in step.notes:
            note = self._after(head, n, Lane.LOG, stream, kind, "", "", canonical(data))
            notes.append(note)
            head, n = Head(note.seq, note.hash), note.n
        kind, soon = notes[0].kind if notes else "forgotten", not step.why
        with self._pen.transaction(kind, soon=soon) as connection:
            connection.executemany(_INSERT[Lane.LOG], map(_row, notes))
            retention.forget(connection, step, kept)
            self._points(f"before-commit:{kind}")
        for note in notes:
            self._took(note, soon=soon)
        self._points(f"after-commit:{kind}")

    def _after(  # noqa: PLR0913, PLR0917 - what a fact is made of
        self, head: Head, n: int, lane: Lane, stream: str, kind: str, src: str, dst: str, data: str
    ) -> Fact:
        stamp = self._stamp()
        must_be_shippable(stream, kind, src, dst, stamp)
        at_ms, boot_id, mono_ms, skew_ms = stamp.at_ms, stamp.boot_id, stamp.mono_ms, stamp.skew_ms
        seq, n = head.seq + 1, n + 1
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
            data=data,
        )
        return Fact(
            lane, seq, n, stream, kind, src, dst, at_ms, boot_id, mono_ms, skew_ms, data, linked
        )

    def _took(self, fact: Fact, *, soon: bool) -> None:
        """It is committed."""
        self._heads[fact.lane] = Head(fact.seq, fact.hash)
        self._n = fact.n
        if not soon:
            self._all_durable()
        elif self._waiting is None:
            self._waiting = fact

    def _all_durable(self) -> None:
        self._durable = dict(self._heads)
        self._waiting = None

    def _must_flush(self, fact: Fact) -> bool:
        first = self._waiting
        if first is None:
            return False
        return fact.n - first.n >= SOON_FACTS or fact.mono_ms - first.mono_ms >= SOON_MS

    def _is_as_before(self) -> bool:
        return all(self.head(lane) == self._heads[lane] for lane in Lane)

    def _must_be_next(self, fact: Fact) -> None:
        if (fact.seq, fact.n) != (self._heads[fact.lane].seq + 1, self._n + 1):
            raise Malformed(
                f"write {fact.kind!r}", "another fact was written meanwhile", "compose it again"
            )
