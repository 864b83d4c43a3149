"""The pages of a database file and of its WAL, read without SQLite: what a damaged journal still holds.

Rules
- Nothing is changed, made or locked: the files are opened for reading and closed.
- Facts never change, so every image of a page that holds one may speak for it: the newest that is committed first, then
  the one beneath it in the database file, then frames of the WAL that its checksums do not cover any more. Whether a
  fact is what was written is the chain's to say, not the page's.
- Tables that do change (cursor, base, streams) are read from the newest committed images alone.

Never while a journal is open in this process: closing these descriptors would drop SQLite's locks (journal.connection).

Source: SQLite's file format (sqlite.org/fileformat2.html), sections 1.5, 1.6 and 4. Debian's sqlite3 has no `.recover`
(journal note, finding 10), and no SQL reads a file whose first page is gone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

MAGIC = b"SQLite format 3\0"
PAGE_BYTES = 4096
FRAME_HEADER, WAL_HEADER = 24, 32
TABLE_LEAF, TABLE_INNER, INDEX_LEAF, INDEX_INNER = 0x0D, 0x05, 0x0A, 0x02
COMMITTED, BENEATH, UNCHECKED = 0, 1, 2
"""How much an image counts: as SQLite shows it; hidden by a newer one; in the WAL behind its last valid commit."""
_WAL_MAGIC = 0x377F0682
_MOST_PAGES = 1 << 24
_MOST_CELLS = PAGE_BYTES // 4
_MOST_PAYLOAD = 1 << 20

UNREADABLE = (IndexError, ValueError, struct.error)
"""What comes of decoding noise."""

Record = list[Any]
_WIDTH = (0, 1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class Image:
    """One state of one page."""

    number: int
    rank: int
    offset: int
    in_wal: bool


class Cell(NamedTuple):
    """A row's place on its page."""

    rowid: int
    size: int
    at: int


@dataclass(frozen=True, slots=True)
class Frames:
    """What a WAL holds: the newest committed image of each page, and what its checksums do not cover any more."""

    newest: dict[int, Image]
    unchecked: list[Image]


class Pages:
    """Of a journal and its WAL; either may be missing. Use it as a context manager.

    `frames`, from an earlier look at the same files, saves reading the WAL: its checksums cost 0.2 ms a frame.
    """

    def __init__(self, path: Path, frames: Frames | None = None) -> None:
        self.path = path
        self._db = _open(path)
        self._wal = _open(path.with_name(path.name + "-wal"))
        self.db_bytes, self.wal_bytes = _size(self._db), _size(self._wal)
        self.frames = frames or _frames(self._wal, self.wal_bytes)
        self._newest = self.frames.newest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._db, self._wal):
            if fd is not None:
                os.close(fd)

    @property
    def count(self) -> int:
        """How many pages there are, as far as the files go."""
        return max(self.db_bytes // PAGE_BYTES, max(self._newest, default=0))

    def newest(self, number: int) -> bytes:
        """The page as SQLite would show it; empty when it is not there."""
        image = self._newest.get(number) or Image(
            number, COMMITTED, (number - 1) * PAGE_BYTES, in_wal=False
        )
        return self.read(image)

    def is_hidden(self, number: int) -> bool:
        """Whether the WAL holds a newer image than the database file."""
        return number in self._newest

    def read(self, image: Image) -> bytes:
        fd = self._wal if image.in_wal else self._db
        if fd is None or image.number < 1:
            return b""
        try:
            page = os.pread(fd, PAGE_BYTES, image.offset)
        except OSError:  # a bad block
            return b""
        return page if len(page) == PAGE_BYTES else b""

    def images(self) -> Iterator[Image]:
        """Every image of every page, those that count most first."""
        beneath = []
        for number in range(1, self.db_bytes // PAGE_BYTES + 1):
            hidden = number in self._newest
            image = Image(
                number, BENEATH if hidden else COMMITTED, (number - 1) * PAGE_BYTES, in_wal=False
            )
            if hidden:
                beneath.append(image)
            else:
                yield image
        yield from self._newest.values()
        yield from beneath
        yield from self.frames.unchecked

    def cells(self, page: bytes, number: int) -> list[Cell]:
        """The rows of a table's leaf by their rowids, not yet decoded; the lowest first."""
        start = 100 if number == 1 else 0
        if not page or page[start] != TABLE_LEAF:
            return []
        found = []
        for at in _cells(page, start, 8):
            try:
                size, after = _varint(page, at)
                rowid, after = _varint(page, after)
            except IndexError:
                continue
            found.append(Cell(rowid, size, after))
        found.sort()
        return found

    def row(self, page: bytes, cell: Cell) -> Record | None:
        """What a cell holds; None when it cannot be read."""
        try:
            return _record(self._payload(page, cell.at, cell.size, PAGE_BYTES - 35))
        except UNREADABLE:
            return None

    def rows(self, page: bytes, number: int) -> Iterator[Record]:
        for cell in self.cells(page, number):
            if (record := self.row(page, cell)) is not None:
                yield record

    def table(self, root: int) -> Iterator[Record]:
        """Every record of the b-tree at `root`, with or without rowids, as far as it can be walked."""
        pending, seen = [root], {root}
        while pending:
            number = pending.pop()
            page, start = self.newest(number), 100 if number == 1 else 0
            kind = page[start] if page else 0
            if kind == TABLE_LEAF:
                yield from self.rows(page, number)
            elif kind in {INDEX_LEAF, INDEX_INNER}:
                yield from self._index_records(page, start, kind)
            if kind in {TABLE_INNER, INDEX_INNER}:
                fresh = [child for child in _children(page, start) if child not in seen]
                seen.update(fresh)
                pending += reversed(fresh)

    def leaves_of(self, root: int) -> Iterator[int]:
        """Which pages a table's tree ends in, in its order."""
        pending, seen = [root], {root}
        while pending:
            number = pending.pop()
            page = self.newest(number)
            if page and page[0] == TABLE_INNER:
                fresh = [child for child in _children(page, 0) if child not in seen]
                seen.update(fresh)
                pending += reversed(fresh)
            else:
                yield number

    def is_empty_table(self, root: int) -> bool:
        page = self.newest(root)
        return bool(page) and page[0] == TABLE_LEAF and page[3:5] == b"\0\0"

    def index_leaves(self) -> Iterator[Record]:
        """Every record that lies on a newest leaf of a table without rowids: for when no root is known."""
        for number in range(1, self.count + 1):
            page = self.newest(number)
            if page and page[0] in {INDEX_LEAF, INDEX_INNER} and number > 1:
                yield from self._index_records(page, 0, page[0])

    def _index_records(self, page: bytes, start: int, kind: int) -> Iterator[Record]:
        inner = kind == INDEX_INNER
        most = (PAGE_BYTES - 12) * 64 // 255 - 23
        for at in _cells(page, start, 12 if inner else 8):
            try:
                size, body = _varint(page, at + 4 if inner else at)
                yield _record(self._payload(page, body, size, most))
            except UNREADABLE:
                continue

    def _payload(self, page: bytes, at: int, size: int, most: int) -> bytes:
        """What a cell holds, with its overflow pages."""
        if size > _MOST_PAYLOAD:
            raise ValueError(size)
        if size <= most:
            return page[at : at + size]
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE_BYTES - 4)
        local = local if local <= most else least
        found = page[at : at + local]
        (next_page,) = struct.unpack_from(">I", page, at + local)
        while len(found) < size and next_page:
            more = self.newest(next_page)
            if not more:
                raise ValueError(next_page)
            (next_page,) = struct.unpack_from(">I", more)
            found += more[4 : 4 + size - len(found)]
        if len(found) < size:
            raise ValueError(size)
        return found


def _frames(wal: int | None, size: int) -> Frames:
    """Which frames hold: as SQLite's own recovery, which stops at the first that its checksums do not cover."""
    newest: dict[int, Image] = {}
    pending: list[Image] = []
    if wal is None or size < WAL_HEADER:
        return Frames(newest, pending)
    header = os.pread(wal, WAL_HEADER, 0)
    order, salt, sums = _begins(header)
    holds = order != ""
    step = FRAME_HEADER + PAGE_BYTES
    for offset in range(WAL_HEADER, size - step + 1, step):
        frame = os.pread(wal, step, offset)
        number, commit, *seen = struct.unpack_from(">4I", frame)
        if holds:
            sums = _checksum(frame[:8], sums, order)
            sums = _checksum(frame[FRAME_HEADER:], sums, order)
            holds = seen == salt and sums == struct.unpack_from(">2I", frame, 16)
        pending.append(Image(number, UNCHECKED, offset + FRAME_HEADER, in_wal=True))
        if holds and commit:
            newest.update((it.number, replace(it, rank=COMMITTED)) for it in pending)
            pending = []
    return Frames(newest, [it for it in pending if 0 < it.number < _MOST_PAGES])


def _begins(header: bytes) -> tuple[str, list[int], tuple[int, int]]:
    """Byte order, salt and checksum of a WAL; no order when its header does not hold."""
    magic, _, size, _, *salt = struct.unpack(">6I", header[:24])
    order = "<" if magic & 1 == 0 else ">"
    sums = _checksum(header[:24], (0, 0), order)
    holds = magic & ~1 == _WAL_MAGIC and size == PAGE_BYTES
    return order if holds and sums == struct.unpack(">2I", header[24:]) else "", salt, sums


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _size(fd: int | None) -> int:
    return 0 if fd is None else os.fstat(fd).st_size


def _cells(page: bytes, start: int, header: int) -> Iterator[int]:
    (count,) = struct.unpack_from(">H", page, start + 3)
    if count > _MOST_CELLS:
        return
    for cell in struct.unpack_from(f">{count}H", page, start + header):
        if cell >= start + header:
            yield cell


def _children(page: bytes, start: int) -> list[int]:
    cells = list(_cells(page, start, 12))
    inner = [struct.unpack_from(">I", page, at)[0] for at in cells if at + 4 <= PAGE_BYTES]
    return [*inner, struct.unpack_from(">I", page, start + 8)[0]]


def _varint(text: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = text[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | text[at], at + 1


def _record(payload: bytes) -> Record:
    end, at = _varint(payload, 0)
    types = []
    while at < end:
        kind, at = (payload[at], at + 1) if payload[at] < 0x80 else _varint(payload, at)
        types.append(kind)
    values: Record = []
    at = end
    for kind in types:
        if kind >= 12:
            upto = at + (kind - 12) // 2
            found = payload[at:upto]
            values.append(found.decode("utf-8", "surrogatepass") if kind & 1 else found)
        elif kind <= 6:
            upto = at + _WIDTH[kind]
            values.append(int.from_bytes(payload[at:upto], "big", signed=True) if kind else None)
        elif kind in {8, 9}:
            upto = at
            values.append(kind - 8)
        else:
            raise ValueError(kind)
        at = upto
    if at > len(payload):
        raise ValueError(at)
    return values


def _checksum(text: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(text) // 4}I", text)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = first + one + second & 0xFFFFFFFF
        second = second + other + first & 0xFFFFFFFF
    return first, second
