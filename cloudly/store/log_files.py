"""The logs of a node in all files of a data directory, read as one: a device's stream moves between servers.

Rules:
- Lines of one file are in its order; lines of several are merged by when Cloudly received them. Servers' clocks are
  taken as they are: on one machine they are one.
- Of each file only the rows are read that the next lines may be in. One that is damaged, or goes away, is said, and
  hides nothing of the others; only whoever has its slot sets it aside.
- A place is one number of each file: what is before all of them is older.
"""

from __future__ import annotations

import heapq
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloudly.store import log_reading
from cloudly.store.log_chunks import Kept
from cloudly.store.log_file import marks, open_to_read, slots_of
from cloudly.store.log_reading import END, Piece, Wanted

Places = Mapping[int, int]
"""Of each slot, the place before which lines are; a slot that is not named has none."""
FORM = re.compile(r"[0-9]{1,18}|[0-9]{1,2}\.[0-9]{1,18}(-[0-9]{1,2}\.[0-9]{1,18}){0,63}", re.ASCII)


def text_of(places: Places) -> str:
    """For an address: `120` of slot 0 alone, `0.120-1.77` of two."""
    if places.keys() == {0}:
        return str(places[0])
    return "-".join(f"{slot}.{n}" for slot, n in sorted(places.items()))


def places_of(text: str) -> Places | None:
    """None: it is none."""
    if not FORM.fullmatch(text):
        return None
    if "." not in text:
        return {0: int(text)}
    return {int(slot): int(n) for slot, n in (one.split(".") for one in text.split("-"))}


@dataclass
class _File:
    """One of those that are merged."""

    slot: int
    rows: Iterator[Piece]
    before_n: int
    newest_ms: float = float("inf")
    """What is not read yet was received by then."""
    lines: deque[Kept] = field(default_factory=deque)
    """Read, newest first."""
    ended: bool = False

    @property
    def next_ms(self) -> float:
        return self.lines[0].line.received_at_ms if self.lines else self.newest_ms

    @property
    def place(self) -> int:
        return self.lines[0].n + 1 if self.lines else self.before_n

    def read(self) -> int:
        """One row; how many lines were looked at. Raises sqlite3.Error."""
        piece = next(self.rows, None)
        if piece is None:
            self.ended = True
            return 0
        self.lines.extend(piece.lines)
        self.before_n, self.newest_ms = piece.before_n, piece.since_ms
        return piece.looked_at


class Search:
    """Through all files, the newest line first; a row at a time, so that others can have their turn."""

    def __init__(self, files: list[_File], problems: dict[int, sqlite3.Error]) -> None:
        self._files = files
        self.problems = problems
        """Of files that cannot be read, or not any further."""

    def look(self) -> int:
        """Read one row, if the next line may be in it; how many lines were looked at. 0: `top` is the next."""
        while (file := self._next()) is not None and not file.lines:
            try:
                looked_at = file.read()
            except sqlite3.Error as problem:
                self.problems[file.slot] = problem
                file.ended = True
                continue
            if looked_at:
                return looked_at
        return 0

    def take(self) -> Kept | None:
        """The next line, after `look` returned 0; None: there is none."""
        file = self._next()
        return None if file is None or not file.lines else file.lines.popleft()

    @property
    def has_more(self) -> bool:
        return self._next() is not None

    @property
    def is_stoppable(self) -> bool:
        """Each file was looked at: who goes on from `places` gets further."""
        return all(file.ended or file.newest_ms != float("inf") for file in self._files)

    @property
    def places(self) -> Places:
        return {file.slot: file.place for file in self._files if file.lines or not file.ended}

    def _next(self) -> _File | None:
        """The one that has, or may have, the newest line."""
        going = [file for file in self._files if file.lines or not file.ended]
        return max(going, key=lambda file: (file.next_ms, bool(file.lines)), default=None)


@contextmanager
def search(
    directory: Path, node_id: str, wanted: Wanted, before: Places | None = None
) -> Iterator[Search]:
    """`before`: None: from the newest line on."""
    problems: dict[int, sqlite3.Error] = {}
    opened: dict[int, sqlite3.Connection] = {}
    try:
        for slot in slots_of(directory):
            if before is None or slot in before:
                try:
                    db = open_to_read(directory, slot)
                except sqlite3.Error as problem:
                    problems[slot] = problem
                else:
                    if db is not None:
                        opened[slot] = db
        files = []
        for slot, db in opened.items():
            place = END if before is None else before[slot]
            rows = log_reading.pieces(db, node_id, wanted, before_n=place, slot=slot)
            files.append(_File(slot, rows, place))
        yield Search(files, problems)
    finally:
        for db in opened.values():
            db.close()


@dataclass
class Following:
    """What comes to a node, from all files; files that have not changed are not opened."""

    directory: Path
    node_id: str
    mark: Callable[[int], Hashable] | None = None
    """What changes when that slot's file gets a line of the node; None: nobody knows."""
    seen: dict[int, int] = field(default_factory=dict)
    """Of each slot, the place of the newest line that was given out."""
    problems: dict[int, sqlite3.Error] = field(default_factory=dict)
    _marks: dict[int, tuple[Hashable, bool]] = field(default_factory=dict)
    """Of each slot, how it looked, and whether it was read after it had looked like that for a while."""

    def begin(self) -> Following:
        """From now on."""
        for slot in slots_of(self.directory):
            self.seen[slot] = self._newest(slot)
        return self

    def news(self) -> tuple[list[Kept], set[int]]:
        """The lines since the last time, oldest first, and the slots that have another file now."""
        found: list[list[Kept]] = []
        anew: set[int] = set()
        self.problems.clear()
        for slot in slots_of(self.directory):
            if not self._changed(slot):
                continue
            try:
                lines, is_another = self._since(slot)
            except sqlite3.Error as problem:
                self.problems[slot] = problem
                self._marks.pop(slot, None)
                continue
            found.append(lines)
            if is_another:
                anew.add(slot)
        return list(heapq.merge(*found, key=lambda kept: kept.line.received_at_ms)), anew

    def _changed(self, slot: int) -> bool:
        """A file's times are coarse: after a change it is read once more at the next look."""
        known = None if self.mark is None else self.mark(slot)
        now = marks(self.directory, slot) if known is None else known
        before, settled = self._marks.get(slot, (None, False))
        self._marks[slot] = (now, now == before)
        return now != before or not (settled or known is not None)

    def _since(self, slot: int) -> tuple[list[Kept], bool]:
        db = open_to_read(self.directory, slot)
        if db is None:
            return [], False
        try:
            seen, lines = self.seen.get(slot, 0), []
            is_another = log_reading.newest_n(db, self.node_id) < seen
            seen = 0 if is_another else seen
            while more := log_reading.after(db, self.node_id, seen, slot=slot):
                lines += more
                seen = more[-1].n
            self.seen[slot] = seen
            return lines, is_another
        finally:
            db.close()

    def _newest(self, slot: int) -> int:
        try:
            db = open_to_read(self.directory, slot)
        except sqlite3.Error as problem:
            self.problems[slot] = problem
            return 0
        if db is None:
            return 0
        try:
            return log_reading.newest_n(db, self.node_id)
        except sqlite3.Error as problem:
            self.problems[slot] = problem
            return 0
        finally:
            db.close()


def newest_first(lines: Iterable[Kept]) -> Iterator[Kept]:
    """Lines of several files, merged as a search gives them."""
    of: dict[int, list[Kept]] = {}
    for kept in lines:
        of.setdefault(kept.slot, []).append(kept)
    for some in of.values():
        some.sort(key=lambda kept: -kept.n)
    return heapq.merge(*of.values(), key=lambda kept: -kept.line.received_at_ms)
