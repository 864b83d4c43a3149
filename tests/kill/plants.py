"""Planted defects of the agent's process: an ordeal that stays green with one of them is worth nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from journal.pen import Pen
from journal.reading import Row


def nothing_is_synced() -> None:
    """synchronous=NORMAL for all facts: a power cut takes what was called durable."""

    def never(self: Pen, *, soon: bool) -> None:  # noqa: ARG001 - the real one's
        self._connection.execute("PRAGMA synchronous=NORMAL")

    Pen._sync = never  # type: ignore[method-assign]


def told_too_early() -> None:
    """Memory moves, and all is told, a moment before the fact is written."""
    insert = Pen.insert
    late: list[Callable[[], None]] = []

    def hesitant(self: Pen, statement: str, row: Row, *, kind: str, soon: bool) -> None:
        while late:
            late.pop()()
        late.append(lambda: insert(self, statement, row, kind=kind, soon=soon))

    Pen.insert = hesitant  # type: ignore[method-assign]


PLANTS: Mapping[str, Callable[[], None]] = {
    "": lambda: None,
    "nothing-is-synced": nothing_is_synced,
    "told-too-early": told_too_early,
}
"""By name; the empty one is none."""
