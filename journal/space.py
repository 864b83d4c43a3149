"""Giving space back: after the journal has shrunk much, its file shrinks too, a few pages at a time.

In steady state nothing is given back: facts go where facts went, and a file settles at its working size (journal
note, 4.7). What is free beyond what new facts may soon need is cut off the file's end by SQLite's incremental vacuum,
in steps that fit into the WAL. It works in files that were made for it (`schema.create`); older ones keep their size.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.reading import Reading

PAGES = 64
"""At most so many pages move in one step: about 130 pages of WAL, half of its working size."""
LEAST_FREE_BYTES = 2 << 20
"""Never give away what a full disk will need: `schema.FREE_PAGES_BYTES`, and as much again for the next facts."""
MUCH = 4
"""Give back when more than a quarter of the file is free; with less, the next facts take it."""


def to_give_back(journal: Reading) -> int:
    """How many pages the file's end may lose now; 0: none."""
    free = journal.free_bytes()
    spare = free - max(LEAST_FREE_BYTES, (journal.used_bytes() + free) // MUCH)
    if spare <= 0 or not journal.can_shrink():
        return 0
    return min(PAGES, spare // journal.page_bytes())


def give_back(connection: sqlite3.Connection, pages: int) -> None:
    for _ in range(pages):
        # It yields a row without columns for every page, and Python asks for one: one call is one page.
        connection.execute("PRAGMA incremental_vacuum(1)")
