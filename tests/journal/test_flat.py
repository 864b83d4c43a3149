"""Opening, recalling and reading near the end cost the same however long the journal is, in SQLite's own steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from journal.facts import Lane
from journal.journal import Journal
from journal.reader import open_reader
from journal.recall import recall
from journal.retention import Limits
from tests.journal.given import MACHINE, open_at, write_story

_watching: list[Callable[[], int]] = []


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's progress handler is the counter; a connection that is made while somebody watches gets one."""
    connect = sqlite3.connect

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        if _watching:
            connection.set_progress_handler(_watching[-1], 1)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)


class Steps:
    """Steps of SQLite's virtual machine in all connections that are opened while it watches."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> int:
        self.count += 1
        return 0

    def __enter__(self) -> Self:
        _watching.append(self.tick)
        return self

    def __exit__(self, *_: object) -> None:
        _watching.pop()

    def of(self, act: Callable[[], object]) -> int:
        before = self.count
        act()
        return self.count - before


def lengthen(place: Path, updates: int) -> None:
    """Many finished updates, written soon: quick to make."""
    with open_at(place) as journal:
        first = int(journal.next_stream_name("app-update").rpartition("/")[2])
        for attempt in range(first, first + updates):
            for kind, src, dst in (
                ("offered", "new", "offered"),
                ("failed", "offered", "failed"),
            ):
                data = {"release": "1"}
                name, end = f"app-update/{attempt}", dst == "failed"
                journal.append(name, kind, src, dst, data, soon=True, final=end)
                journal.note(name, "progressed", {"percent": 1})


def costs(place: Path) -> dict[str, int]:
    with Steps() as steps:
        journals: list[Journal] = []
        cost = {"open": steps.of(lambda: journals.append(open_at(place)))}
        (journal,) = journals
        name = journal.next_stream_name("app-update")
        write_story(journal, attempt=int(name.rpartition("/")[2]), upto=3)
        cost["append"] = steps.of(
            lambda: journal.append(name, "asked-again", "applying", "applying")
        )
        cost["recall"] = steps.of(lambda: recall(journal, name, MACHINE))
        cost["story"] = steps.of(lambda: journal.facts(stream=name))
        cost["first"] = steps.of(lambda: journal.facts(stream="app-update/1", lane=Lane.CORE))
        cost["tail"] = steps.of(lambda: journal.tail(20))
        cost["open_streams"] = steps.of(journal.open_streams)
        cost["newest"] = steps.of(lambda: journal.streams("app-update", newest=3))
        cost["newest of each"] = steps.of(lambda: journal.streams(newest=1))
        cost["nothing to forget"] = steps.of(lambda: journal.retain(Limits(keep_core=9_999)))
        cost["next_name"] = steps.of(lambda: journal.next_stream_name("app-update"))
        cost["ship"] = steps.of(lambda: journal.facts(lane=Lane.CORE, after=20, limit=20))
        end = recall(journal, name, MACHINE)
        end.record("failed")
        journal.close()
    return cost


@pytest.fixture(scope="module")
def short_and_long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    short, long = tmp_path_factory.mktemp("short"), tmp_path_factory.mktemp("long")
    lengthen(short, 30)
    lengthen(long, 3_000)
    return short, long


def test_nothing_an_agent_does_every_day_grows_with_its_journal(
    short_and_long: tuple[Path, Path],
) -> None:
    short, long = (costs(place) for place in short_and_long)

    assert min(short.values()) > 5, f"the watcher saw nothing: {short}"
    # Bisection over 100 x the facts takes log2(100), 7 more looks of about 15 steps.
    grown = {what: (short[what], long[what]) for what in short if long[what] > short[what] + 120}
    assert not grown


def test_that_measure_sees_a_query_that_reads_all_facts(
    short_and_long: tuple[Path, Path],
) -> None:
    def scan(place: Path) -> int:
        with Steps() as steps, open_reader(place) as reader:
            return steps.of(lambda: reader._rows("SELECT count(data) FROM core WHERE n > 0", ()))

    short, long = (scan(place) for place in short_and_long)

    assert long > 50 * short
