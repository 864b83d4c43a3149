"""Which streams there are: entered with their first fact, closed with their final one, in those facts' transactions."""

from __future__ import annotations

import sqlite3

from journal.facts import Fact, Lane, split_name
from journal.problems import IllegalFact, Malformed
from journal.reading import Reading


class Roster:
    """The writer's view: it remembers the open ones, of which there are few, and asks for the others."""

    def __init__(self, journal: Reading) -> None:
        self._journal = journal
        self._open: dict[str, Lane] = {info.name: info.lane for info in journal.open_streams()}

    def opens(self, fact: Fact) -> bool:
        """Whether it is the first fact of a new stream. A note belongs to a stream, and is no part of it."""
        if fact.is_note:
            return False
        lane = self._open.get(fact.stream)
        if lane is None:
            if self._journal.stream(fact.stream):
                raise IllegalFact(f"{fact.stream}, which has ended", fact.src, fact.kind, ())
            return True
        if lane != fact.lane:
            tried, seen = f"write {fact.kind!r} to {fact.lane}", f"the stream lives in {lane}"
            raise Malformed(tried, seen, "keep a stream in one lane")
        return False

    def took(self, fact: Fact, *, opens: bool, final: bool) -> None:
        """Its transaction is committed."""
        if opens:
            self._open[fact.stream] = fact.lane
        if final:
            self._open.pop(fact.stream, None)


def enter(connection: sqlite3.Connection, fact: Fact, *, opens: bool, final: bool) -> None:
    """Inside the transaction of a first or a final fact."""
    machine, attempt = split_name(fact.stream)
    if opens:
        insert = "INSERT INTO stream (machine, attempt, lane, first_seq, last_seq) VALUES (?, ?, ?, ?, ?)"
        last = fact.seq if final else None
        connection.execute(insert, (machine, attempt, fact.lane.value, fact.seq, last))
    else:
        update = "UPDATE stream SET last_seq = ? WHERE machine = ? AND attempt = ?"
        connection.execute(update, (fact.seq, machine, attempt))
