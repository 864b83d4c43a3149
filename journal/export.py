"""A journal as lines of JSON, to carry away and to look at elsewhere; checked against its hashes when it is read again.

- first line: what it is, the epoch, and for each lane its base, its head and Cloudly's ack
- then one line per fact, in the order in which they happened, then one per stream, then what was dropped before its ack
- `data` is the exact text that was hashed, hashes are hex

No secret can be in it that is not in a fact: nothing else of the device is read, and a fact takes plain values only (a
SecretStr is refused, `facts.canonical`). tests/secrets looks for its canaries in exports too. Nothing is blotted out on
the way: a hash would not hold any more.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from journal import schema, succession
from journal.connection import connect
from journal.facts import Fact, Head, Lane, split_name
from journal.problems import Damaged, Malformed, NotWritable, translate
from journal.reading import Reading
from journal.tombstone import Tombstone, bury
from journal.verify import LaneCheck, Report

FORMAT = "baseos-journal/1"
# fmt: off
_FIELDS = ("seq", "n", "stream", "kind", "src", "dst", "at_ms", "boot_id", "mono_ms", "skew_ms", "data")
# fmt: on


def lines(journal: Reading) -> Iterator[str]:
    """Everything up to where the journal ends now, in constant memory. Without line ends."""
    base = {lane: journal.base(lane) for lane in Lane}
    head = {lane: journal.head(lane) for lane in Lane}
    acked = {lane: journal.acked(lane) for lane in Lane}
    stones = [stone for lane in Lane for stone in journal.tombstones(lane)]
    yield _dump(
        {
            "format": FORMAT,
            "epoch": journal.epoch,
            "lanes": {
                lane: {
                    "base": _told(base[lane]),
                    "head": _told(head[lane]),
                    "acked": _told(acked[lane]),
                }
                for lane in Lane
            },
        }
    )
    lanes = (_facts(journal, lane, base[lane], head[lane]) for lane in Lane)
    for fact in heapq.merge(*lanes, key=lambda fact: fact.n):
        values = {name: getattr(fact, name) for name in _FIELDS}
        yield _dump({"lane": fact.lane, **values, "hash": fact.hash.hex()})
    for info in journal.spans():
        began = {
            "first_seq": info.first_seq,
            "last_seq": info.last_seq,
            "carried": info.carried,
            "belief": info.belief,
        }
        yield _dump({"stream_of": info.lane, "name": info.name, **began})
    for stone in stones:
        told = asdict(stone)
        yield _dump({"dropped_of": told.pop("lane"), **told})


@dataclass(frozen=True, slots=True)
class Header:
    epoch: str
    base: dict[Lane, Head]
    head: dict[Lane, Head]
    acked: dict[Lane, Head]


class Import:
    """Reads an export; every fact is checked as it passes, the ends when all have passed."""

    def __init__(self, text: Iterable[str]) -> None:
        self._lines = enumerate((line for line in text if line.strip()), start=1)
        self.header = self._header()
        self.streams: list[dict[str, Any]] = []
        self.tombstones: list[Tombstone] = []
        self._checks = {lane: LaneCheck(lane, self.header.base[lane]) for lane in Lane}

    def facts(self) -> Iterator[Fact]:
        for number, line in self._lines:
            values = _load(number, line)
            if "stream_of" in values:
                self.streams.append(_known_stream(number, values))
                continue
            if "dropped_of" in values:
                self.tombstones.append(_tombstone(number, values))
                continue
            fact = _fact(number, values)
            self._checks[fact.lane].see(fact)
            yield fact

    def report(self) -> Report:
        """Ask when all facts have passed."""
        for lane, check in self._checks.items():
            if check.head != self.header.head[lane]:
                check.say(
                    self.header.head[lane].seq, f"is where {lane} ends, by the header; it does not"
                )
        problems = [problem for check in self._checks.values() for problem in check.problems]
        return Report({lane: check.report() for lane, check in self._checks.items()}, problems)

    def _header(self) -> Header:
        number, line = next(self._lines, (1, "null"))
        values = _load(number, line)
        if values.get("format") != FORMAT:
            raise Malformed(
                "read an export", f"line {number} is no {FORMAT} header", "pass a whole export"
            )
        try:
            lanes = {lane: values["lanes"][lane] for lane in Lane}
            ends = {
                end: {lane: _position(lanes[lane].get(end) or lanes[lane][older]) for lane in Lane}
                for end, older in (("base", "base"), ("head", "head"), ("acked", "base"))
            }
            return Header(str(values["epoch"]), **ends)
        except (KeyError, TypeError, ValueError) as error:
            seen = f"its header lacks {error}"
            raise Malformed("read an export", seen, "pass a whole export") from error


def check(text: Iterable[str]) -> Report:
    """Verify an export without keeping it."""
    reading = Import(text)
    for _ in reading.facts():
        pass
    return reading.report()


def load(text: Iterable[str], directory: Path) -> Report:
    """Make a journal in `directory` from an export, to ask it like a device's. Raises Damaged, leaves nothing."""
    path = directory / schema.FILE
    if path.exists():
        seen = "a journal is there"
        raise NotWritable(f"load an export into {directory}", seen, "choose an empty directory")
    for leftover in (schema.FILE + "-wal", succession.NEXT):
        if (
            directory / leftover
        ).exists():  # of a journal: it would be applied to ours, or take its place
            seen = f"{leftover} of a journal is there"
            raise NotWritable(f"load an export into {directory}", seen, "choose an empty directory")
    reading = Import(text)
    schema.create(path, epoch=reading.header.epoch, connect=lambda file: connect(file, mode="rwc"))
    try:
        with closing(connect(path, mode="rw")) as connection:
            return _fill(connection, reading)
    except BaseException as error:
        path.unlink()
        if isinstance(error, sqlite3.Error):
            raise translate(error, tried=f"load an export into {directory}") from error
        raise


def _fill(connection: sqlite3.Connection, reading: Import) -> Report:
    from sqlite_utils import Database

    database = Database(connection)
    for lane, facts in _by_lane(reading.facts()):
        database.table(lane.value).insert_all(facts)
    for lane, base in reading.header.base.items():
        database.table("base").update(lane.value, base._asdict())
    for lane, acked in reading.header.acked.items():
        database.table("cursor").update(lane.value, acked._asdict())
    database.table("stream").insert_all(_stream_row(values) for values in reading.streams)
    for stone in reading.tombstones:
        bury(connection, stone)
    report = reading.report()
    for problem in report.problems[:1]:
        seen = f"{problem.lane} {problem.seq} {problem.what}"
        raise Damaged("load an export", seen, "`check` names every problem of it")
    return report


def _facts(journal: Reading, lane: Lane, base: Head, head: Head) -> Iterator[Fact]:
    after = base.seq
    for page in journal.pages(lane, after=after, upto=head.seq):
        if page[0].seq != after + 1:
            seen = f"{lane} {after + 1} is no longer there: it was trimmed meanwhile, or is damaged"
            raise Damaged("export", seen, "begin again; if it says so again, `verify` tells more")
        yield from page
        after = page[-1].seq


def _by_lane(facts: Iterable[Fact]) -> Iterator[tuple[Lane, list[dict[str, object]]]]:
    kept: dict[Lane, list[dict[str, object]]] = {lane: [] for lane in Lane}
    for fact in facts:
        row: dict[str, object] = {name: getattr(fact, name) for name in _FIELDS}
        row["boot"] = row.pop("boot_id")
        kept[fact.lane].append({**row, "hash": fact.hash})
        if len(kept[fact.lane]) == 1_000:
            yield fact.lane, kept[fact.lane]
            kept[fact.lane] = []
    yield from ((lane, rows) for lane, rows in kept.items() if rows)


def _stream_row(values: dict[str, Any]) -> dict[str, object]:
    machine, _, attempt = values["name"].rpartition("/")
    kept = {name: values[name] for name in ("first_seq", "last_seq", "carried")}
    kept["belief"] = values.get("belief", "")
    return {"machine": machine, "attempt": int(attempt), "lane": values["stream_of"], **kept}


def _known_stream(number: int, values: dict[str, Any]) -> dict[str, Any]:
    try:
        split_name(values["name"])
        Lane(values["stream_of"])
        return {**values, "first_seq": int(values["first_seq"]), "carried": str(values["carried"])}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        seen = f"line {number} is no stream ({error})"
        raise Malformed("read an export", seen, "pass it whole") from error


def _tombstone(number: int, values: dict[str, Any]) -> Tombstone:
    try:
        lane = Lane(values.pop("dropped_of"))
        return Tombstone(lane=lane, **values)
    except (TypeError, ValueError) as error:
        seen = f"line {number} is nothing that was dropped ({error})"
        raise Malformed("read an export", seen, "pass it whole") from error


def _fact(number: int, values: dict[str, Any]) -> Fact:
    try:
        shown = {name: values[name] for name in _FIELDS if name != "skew_ms"}
        return Fact(
            lane=Lane(values["lane"]),
            skew_ms=values.get("skew_ms"),
            hash=bytes.fromhex(values["hash"]),
            **shown,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(
            "read an export", f"line {number} is no fact ({error})", "pass it whole"
        ) from error


def _told(head: Head) -> dict[str, object]:
    return {"seq": head.seq, "hash": head.hash.hex()}


def _position(values: dict[str, Any]) -> Head:
    return Head(int(values["seq"]), bytes.fromhex(values["hash"]))


def _dump(values: dict[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _load(number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise Malformed(
            "read an export", f"line {number} is not JSON ({error})", "pass it whole"
        ) from error
    if not isinstance(values, dict):
        raise Malformed("read an export", f"line {number} is not an object", "pass it whole")
    return values
