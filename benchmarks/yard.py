"""What every benchmark measures with: the same facts, a raw SQLite beside them, interleaved blocks, a table.

A ratio is the median of the ratios of neighbouring blocks: what else runs on the machine disturbs both alike. Absolute
times are this machine's, of this minute.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from journal import chain, connection, schema
from journal.chart import Arrow, Chart, Waits
from journal.facts import Lane, Stamp, canonical
from journal.journal import Journal
from journal.reading import COLUMNS
from journal.recall import Machine

BOOT = "5f0c1e9e-6b57-4b0e-9a53-0c5a9d0f0001"
EPOCH = "00112233445566778899aabbccddeeff"
INSERT = (
    "INSERT INTO core (n, stream, kind, src, dst, at_ms, boot, mono_ms, data, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

WAITS = Waits("us", "the next one", None, "it comes", "go on")
CHART = Chart(
    name="bench",
    initial="even",
    arrows=(Arrow("odd", "even", "odd"), Arrow("even", "odd", "even"), Arrow("end", "odd", "end")),
    waits={"even": WAITS, "odd": WAITS},
    final=frozenset({"end"}),
)
MACHINE: Machine[int] = Machine(CHART, 0, lambda total, fact: total + int(fact.values["bytes"]))
RUN = 10
"""Facts of one attempt in a journal that was lived in; between two attempts come as many heartbeats."""

Act = Callable[[int], object]
Seen = dict[str, list[float]]


# -- what is written ---------------------------------------------------------------------------


def stamp() -> Stamp:
    return Stamp(time.time_ns() // 1_000_000, BOOT, time.monotonic_ns() // 1_000_000)


def values(i: int) -> dict[str, object]:
    """About 150 bytes of JSON: a transition with its reasons."""
    return {
        "attempt": i % 5,
        "release": f"2026.11.0-rc{i % 10}",
        "artifact": "sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "bytes": 123_456_789 + i,
        "reason": "scheduled check, the window is open",
    }


def open_at(place: Path) -> Journal:
    place.mkdir(exist_ok=True)
    return Journal.open(place, stamp=stamp, new_epoch=lambda: EPOCH)


def append_to(journal: Journal, *, soon: bool = False, stream: str = "bench/1") -> Act:
    def append(i: int) -> object:
        src, dst = ("even", "odd") if i % 2 else ("odd", "even")
        return journal.append(stream, dst, src, dst, values(i), soon=soon)

    return append


def open_raw(place: Path) -> sqlite3.Connection:
    """The yardstick: the same file, settings and WAL; an INSERT of the same row and nothing else."""
    open_at(place).close()
    raw = connection.connect(place / schema.FILE, mode="rw")
    connection.settle(raw)
    connection.prewarm(raw, place / schema.FILE)
    return raw


def insert_raw(raw: sqlite3.Connection, i: int) -> None:
    now = stamp()
    names = ("bench/1", "odd", "even", "odd")
    data = json.dumps(values(i))
    raw.execute(INSERT, (i, *names, now.at_ms, now.boot_id, now.mono_ms, data, bytes(32)))


# -- journals that are there already -----------------------------------------------------------


def grow(place: Path, facts: int, *, one_stream: bool = False) -> None:
    """A whole journal, written beneath the API, which is quicker.

    A life: attempts of RUN facts, all ended, and as many heartbeats between them; or one open stream, and no more.
    """
    open_at(place).close()
    with closing(connection.connect(place / schema.FILE, mode="rw")) as raw:
        raw.execute("PRAGMA journal_mode=OFF")
        raw.execute("PRAGMA synchronous=OFF")
        raw.execute("BEGIN")
        marks = ", ".join("?" * len(COLUMNS.split(", ")))
        for lane in Lane:
            rows = _chained(lane, facts, one_stream=one_stream)
            raw.executemany(f"INSERT INTO {lane} ({COLUMNS}) VALUES ({marks})", rows)  # noqa: S608 - ours
        streams = [("bench", 1, "core", 1, None)] if one_stream else _streams(facts)
        raw.executemany(
            "INSERT INTO stream (machine, attempt, lane, first_seq, last_seq) VALUES (?, ?, ?, ?, ?)",
            streams,
        )
        raw.execute("COMMIT")
        raw.execute("PRAGMA journal_mode=WAL")


def _streams(facts: int) -> Iterator[tuple[object, ...]]:
    yield "heartbeat", 1, "log", 1, None
    for attempt in range(1, facts // (2 * RUN) + 1):
        yield "bench", attempt, "core", RUN * attempt - RUN + 1, RUN * attempt


def _chained(lane: Lane, facts: int, *, one_stream: bool) -> Iterator[tuple[object, ...]]:
    prev = chain.genesis(EPOCH, lane)
    texts = [canonical(values(i)) for i in range(100)] if lane is Lane.CORE else ["{}"]
    at_ms = stamp().at_ms - 1_000 * facts
    for seq, (n, *names) in enumerate(_told(lane, facts, one_stream=one_stream), 1):
        stream, kind, src, dst = names
        data, when = texts[seq % len(texts)], at_ms + 1_000 * n
        prev = chain.link(
            prev,
            lane=lane,
            seq=seq,
            n=n,
            stream=stream,
            kind=kind,
            src=src,
            dst=dst,
            at_ms=when,
            boot_id=BOOT,
            mono_ms=1_000 * n,
            data=data,
        )
        yield seq, n, stream, kind, src, dst, when, BOOT, 1_000 * n, None, data, prev


def _told(lane: Lane, facts: int, *, one_stream: bool) -> Iterator[tuple[int, str, str, str, str]]:
    """n, stream, kind, src and dst of the facts of a lane."""
    moves = (("odd", "even", "odd"), ("even", "odd", "even"))
    beats = (
        ("heartbeat-sent", "resting", "sending"),
        ("heartbeat-answered", "sending", "resting"),
    )
    if one_stream:
        if lane is Lane.CORE:
            yield from ((n, "bench/1", *moves[(n + 1) % 2]) for n in range(1, facts + 1))
        return
    for first in range(0, facts // (2 * RUN) * 2 * RUN, 2 * RUN):
        for i in range(RUN):
            if lane is Lane.LOG:
                yield first + RUN + i + 1, "heartbeat/1", *beats[i % 2]
            elif i < RUN - 1:
                yield first + i + 1, f"bench/{first // (2 * RUN) + 1}", *moves[i % 2]
            else:
                yield first + RUN, f"bench/{first // (2 * RUN) + 1}", "end", "odd", "end"


# -- measuring ---------------------------------------------------------------------------------


def interleaved(acts: dict[str, Act], blocks: int, block: int) -> Seen:
    """The median time of each act in each block, in seconds; who comes first changes from block to block."""
    names = list(acts)
    medians: Seen = {name: [] for name in acts}
    for at in range(blocks):
        turn = at % len(names)
        for name in names[turn:] + names[:turn]:
            times = [_timed(acts[name], at * block + i) for i in range(block)]
            medians[name].append(statistics.median(times))
    return medians


def _timed(act: Act, i: int) -> float:
    began = time.perf_counter()
    act(i)
    return time.perf_counter() - began


def cpu(act: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    act()
    return time.process_time() - began


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


# -- telling -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; the goal is in the unit that `value` has, which is the ratio's if it has none."""

    what: str
    measured: str
    peer: str = ""
    ratio: float | None = None
    most: float | None = None
    unit: str = ""
    value: float | None = None
    least: float | None = None
    """The goal of a ratio that is to be large: the peer's cost divided by ours."""

    def __str__(self) -> str:
        said = "" if self.ratio is None else f"{self.ratio:.2f}"
        return f"| {self.what} | {self.measured} | {self.peer} | {said} | {self._goal()} |"

    def _goal(self) -> str:
        seen = self.ratio if self.value is None else self.value
        if self.least is not None and seen is not None:
            goal = f">= {self.least:,g}"
            return goal if seen >= self.least else f"{goal}, **missed**"
        if self.most is None or seen is None:
            return ""
        goal = f"<= {self.most:,g}{self.unit}"
        return goal if seen <= self.most else f"{goal}, **missed**"


def table(what: str, peer: str, rows: Iterable[Row], measured: str = "measured") -> None:
    print(f"| {what} | {measured} | {peer} | ratio | goal |")
    print("|---|---:|---:|---:|---|")
    print("\n".join(map(str, rows)), end="\n\n")


def title(name: str) -> None:
    """The machine was not alone: how much it did beside us is said with every part."""
    print(f"## {name}\n")
    load = os.getloadavg()[0]
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}\n"
    )


def us(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.0f} us"


def ms(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms"
