"""Writes what a salvage found into a folder of its own: a journal to read, and every fact with how far it is trusted.

- `journal.db`: all facts that are not known to be wrong, at their places; where facts are missing it has holes, which
  `verify` names. It is for reading: no agent goes on with it.
- `evidence.ndjson`: a summary, then each fact that could be read, the wrong ones too, with its trust.

The damaged files are only read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from journal import schema
from journal.connection import connect
from journal.facts import Fact, Lane, split_name
from journal.problems import NotWritable, translate
from journal.reading import COLUMNS
from journal.salvage import Salvaged, Trust

EVIDENCE = "evidence.ndjson"
NO_EPOCH = "unknown"
_WRONG = frozenset({Trust.CHANGED, Trust.UNCOMMITTED})


def summary(found: Salvaged) -> dict[str, Any]:
    """What could be read and what could not, as JSON."""
    lanes = {}
    for lane, known in found.lanes.items():
        lanes[lane.value] = {
            "base": known.base.seq,
            "acked": known.acked.seq if known.acked_known else None,
            "head": known.head.seq,
            **{trust.value: known.counts.get(trust, 0) for trust in Trust},
            "lost": [list(each) for each in known.lost],
        }
    problems = list(found.problems)
    return {"epoch": found.epoch, "whole": found.ok, "lanes": lanes, "problems": problems}


def write(found: Salvaged, directory: Path) -> int:
    """How many facts the journal in `directory` holds. Raises NotWritable, NoSpace; leaves no half journal."""
    path = directory / schema.FILE
    for name in (schema.FILE, EVIDENCE):
        if (directory / name).exists():
            tried = f"salvage into {directory}"
            raise NotWritable(tried, f"{name} is there already", "choose an empty directory")
    try:
        schema.create(path, epoch=found.epoch or NO_EPOCH, connect=lambda f: connect(f, mode="rwc"))
        with closing(connect(path, mode="rw")) as connection:
            kept = _fill(connection, found, directory / EVIDENCE)
    except (sqlite3.Error, OSError) as error:
        for name in (schema.FILE, EVIDENCE):
            (directory / name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise NotWritable(f"salvage into {directory}", str(error), "make room there") from error
        raise translate(error, tried=f"salvage into {directory}") from error
    return kept


def _fill(connection: sqlite3.Connection, found: Salvaged, evidence: Path) -> int:
    kept = 0
    with evidence.open("x", encoding="utf-8") as out:
        out.write(_dump(summary(found)) + "\n")
        connection.execute("BEGIN IMMEDIATE")
        for lane in Lane:
            for row, told in _facts(found, lane):
                out.write(told + "\n")
                if row is not None:
                    kept += connection.execute(_INSERT[lane], row).rowcount
            known = found.lanes[lane]
            for table, position in (("base", known.base), ("cursor", known.acked)):
                update = f"UPDATE {table} SET seq = ?, hash = ? WHERE lane = ?"  # noqa: S608 - ours
                connection.execute(update, (*position, lane.value))
        for info in found.streams:
            row = (*split_name(info.name), info.lane.value, info.first_seq, info.last_seq)
            connection.execute(_STREAM, (*row, info.carried, info.belief))
        connection.execute("COMMIT")
    return kept


def _facts(found: Salvaged, lane: Lane) -> Iterator[tuple[tuple[object, ...] | None, str]]:
    for fact, trust in found.facts(lane):
        yield (
            (None if trust in _WRONG else _row(fact)),
            _dump({"trust": trust.value, **_told(fact)}),
        )


def _row(fact: Fact) -> tuple[object, ...]:
    return tuple(getattr(fact, "boot_id" if name == "boot" else name) for name in _NAMES)


def _told(fact: Fact) -> dict[str, object]:
    told = {name: getattr(fact, name) for name in ("lane", *Fact._fields[1:-1])}
    return {**told, "hash": fact.hash.hex()}


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), default=str)


_NAMES = COLUMNS.split(", ")
_MARKS = ", ".join("?" * len(_NAMES))
# fmt: off
_INSERT = {lane: f"INSERT OR IGNORE INTO {lane} ({COLUMNS}) VALUES ({_MARKS})" for lane in Lane}  # noqa: S608 - ours
# fmt: on
_STREAM = (
    "INSERT OR IGNORE INTO stream (machine, attempt, lane, first_seq, last_seq, carried, belief) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
