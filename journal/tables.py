"""The small tables of a journal that may be damaged: cursor, base, streams, tombstones and the epoch.

They are read where the schema says they are; where that is gone, their rows are known by their shape.
"""

from __future__ import annotations

from collections.abc import Callable

from journal import schema
from journal.facts import Head, Lane
from journal.pages import MAGIC, Pages, Record
from journal.problems import Foreign, FromTheFuture
from journal.tombstone import Tombstone
from journal.tombstone import read as read_tombstone


def table_roots(pages: Pages) -> dict[str, int]:
    """Where each table begins, as far as the first page can be read."""
    if pages.newest(1)[:16] != MAGIC:
        return {}
    return {
        row[1]: row[3]
        for row in pages.table(1)
        if len(row) >= 5
        and row[0] == "table"
        and isinstance(row[1], str)
        and isinstance(row[3], int)
        and 0 < row[3] <= pages.count
    }


def must_be_ours(pages: Pages, roots: dict[str, int], *, anything: bool) -> None:
    first, tried = pages.newest(1), f"salvage {pages.path}"
    if first[:16] != MAGIC:
        return
    application, version = (int.from_bytes(first[at : at + 4], "big") for at in (68, 60))
    if application != schema.APPLICATION_ID and not anything and "core" not in roots:
        seen = f"it is another application's database (application id {application})"
        raise Foreign(tried, seen, "nothing was changed; find out whose it is, and move it away")
    if application == schema.APPLICATION_ID and version > schema.VERSION and "meta" in roots:
        meta = {row[0]: str(row[1]) for row in pages.table(roots["meta"]) if len(row) == 2}
        oldest = meta.get("oldest_writer", "")
        if not oldest.isdecimal() or int(oldest) > schema.VERSION:
            raise FromTheFuture(str(pages.path), version, schema.VERSION)


class Tables:
    """Cursor, base, streams, tombstones and the epoch, with the schema or by their shape."""

    def __init__(self, pages: Pages, roots: dict[str, int]) -> None:
        self._rows: dict[str, list[Record]] = {}
        everything: list[Record] | None = None
        for name, has_shape in _SHAPES.items():
            rows = list(pages.table(roots[name])) if name in roots else []
            fitting = [row for row in rows if has_shape(row)]
            if not fitting and name != "tombstone":
                everything = list(pages.index_leaves()) if everything is None else everything
                fitting = [row for row in everything if has_shape(row)]
            self._rows[name] = fitting
        self.guessed = everything is not None

    @property
    def epoch(self) -> str:
        return next((str(row[1]) for row in self._rows["meta"] if row[0] == "epoch"), "")

    def positions(self, table: str, lane: Lane) -> list[Head]:
        found = [Head(row[1], row[2]) for row in self._rows[table] if row[0] == lane]
        return sorted(set(found))

    def ack(self, lane: Lane) -> Head | None:
        """Of several candidates the one furthest back: to carry too much is harmless."""
        return next(iter(self.positions("cursor", lane)), None)

    def reached(self, lane: Lane) -> int:
        """The furthest fact that a stream names."""
        rows = [row for row in self.streams if row[2] == lane]
        return max((max(row[3], row[4] or 0) for row in rows if not row[5]), default=0)

    @property
    def streams(self) -> list[Record]:
        """One row per attempt. Of several images, the one that ends it, and begins last, is the newest."""
        best: dict[tuple[str, int], Record] = {}
        for row in self._rows["stream"]:
            key, rank = (row[0], row[1]), (row[4] or 0, row[3])
            if key not in best or rank > (best[key][4] or 0, best[key][3]):
                best[key] = [*row, "", ""][:7] if len(row) < 7 else row
        return list(best.values())

    @property
    def tombstones(self) -> list[Tombstone]:
        found = []
        for lane, first, last, why, told, *_ in self._rows["tombstone"]:
            try:
                found.append(read_tombstone((lane, first, last, why, told)))
            except (
                KeyError,
                TypeError,
                ValueError,
            ):  # what it told is damaged, its range may not be
                found.append(Tombstone(Lane(lane), first, last, why, {}, None, None))
        return found


def _is(row: Record, *types: type | tuple[type, ...]) -> bool:
    return len(row) >= len(types) and all(map(isinstance, row, types))


_LANES = frozenset(Lane)


def _is_meta(row: Record) -> bool:
    return len(row) == 2 and _is(row, str, str) and row[0] == "epoch"


def _is_position(row: Record) -> bool:
    return len(row) == 3 and _is(row, str, int, bytes) and row[0] in _LANES


def _is_stream(row: Record) -> bool:
    ends = (int, type(None))
    known = _is(row, str, int, str, int, ends, str) and row[2] in _LANES and row[1] > 0
    return known and all(isinstance(belief, str) for belief in row[6:7])


def _is_tombstone(row: Record) -> bool:
    return _is(row, str, int, int, str, str) and row[0] in _LANES


_SHAPES: dict[str, Callable[[Record], bool]] = {
    "meta": _is_meta,
    "base": _is_position,
    "cursor": _is_position,
    "stream": _is_stream,
    "tombstone": _is_tombstone,
}
