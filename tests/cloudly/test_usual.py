"""Many usual requests in a few sentences: what is written is what each by itself would have written."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, and of no consequence
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from cloudly.store import journals
from cloudly.store.pg import usual
from cloudly.store.pg.database import PgDatabase
from cloudly.store.schema import metadata
from tests.cloudly.given import Device, Plane, code_of
from tests.postgresql import Server

pytestmark = pytest.mark.anyio

DEVICES = 12
MADE_UP = {"id", "salt"}
"""Columns that say nothing but in which order things came, or hold what was drawn."""


@pytest.fixture
async def two(
    tmp_path: Path,
    postgresql: Server,
    directory: Path,
    anyio_backend: object,  # noqa: ARG001 - the loop that the planes live in
) -> AsyncIterator[Callable[[bool], Plane]]:
    """Planes of the same seed: one decides in bulk on PostgreSQL, the other one by one on SQLite."""
    opened: list[Plane] = []
    with postgresql.database() as url:

        def begin(in_bulk: bool) -> Plane:  # noqa: FBT001 - which of the two
            place = tmp_path / "pg" if in_bulk else directory
            plane = Plane.begin(place, database_url=url if in_bulk else None)
            opened.append(plane)
            return plane

        yield begin
        for plane in opened:
            plane.end()


def told(plane: Plane) -> dict[str, list[str]]:
    """Every row of every table, without what is drawn."""
    skipped = {"meta", "join_token", "credential", "join_use", "former_token"}
    return {
        table: sorted(
            repr(
                sorted(
                    (name, _as_kept(value)) for name, value in row.items() if name not in MADE_UP
                )
            )
            for row in plane.rows(table)
        )
        for table in metadata.tables
        if table not in skipped
    }


def _as_kept(value: object) -> object:
    """PostgreSQL cannot hold U+0000."""
    return value.replace("\0", "?") if isinstance(value, str) else value


async def life(plane: Plane, seed: int) -> list[tuple[int, str]]:
    """Devices that heartbeat and ship at once, now and then in an unusual way; what each was answered."""
    chance = random.Random(seed)  # noqa: S311 - a seeded story
    devices = [plane.device(f"n{number:02d}") for number in range(DEVICES)]
    for number, device in enumerate(devices):
        await device.enroll()
        device.writer = f"w{number}"
    answers: list[tuple[int, str]] = []
    for turn in range(10):
        rounds = [_something(device, chance, turn) for device in devices]
        async with anyio.create_task_group() as tasks:
            for number, act in enumerate(rounds):
                tasks.start_soon(_note, answers, turn * 100 + number, act)
    return sorted(answers)


async def _note(
    answers: list[tuple[int, str]], number: int, act: Callable[[], Awaitable[Any]]
) -> None:
    answer = await act()
    code = "" if answer.status_code == 200 else code_of(answer)
    answers.append((number, f"{answer.status_code} {code}"))


def _something(device: Device, chance: random.Random, turn: int) -> Callable[[], Awaitable[Any]]:
    kind = chance.random()
    if kind < 0.35:
        said = {"host_os_version": f"os {turn}"} if chance.random() < 0.7 else {}
        return lambda: device.beat(reported=said)
    lane = "core" if chance.random() < 0.6 else "log"
    stream = chance.choice(["enrollment/1"] * 4 + ["heartbeat/1", "app-update/1", "diagnosis/1"])
    for number in range(chance.randrange(1, 6)):
        device.fact(stream, f"s{turn}", f"s{turn}.{number}", lane=lane, reason=f"r\0{number}")
    if kind < 0.75:
        return lambda: device.ship(lane=lane)
    if kind < 0.85:
        everything = device.batch(1, lane=lane)
        return lambda: device.ship(everything)  # again, from the beginning
    if kind < 0.985:
        device.writer = f"{device.writer}+"
        return device.beat
    return lambda: device.beat(epoch=f"{device.epoch}-other")


@pytest.mark.parametrize("seed", range(4))
async def test_in_bulk_and_one_by_one_write_the_same_rows_and_give_the_same_answers(
    two: Callable[[bool], Plane], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    taken = count_taken(monkeypatch)

    bulk, single = two(True), two(False)

    answers = [await life(plane, seed) for plane in (bulk, single)]

    assert answers[0] == answers[1]
    assert told(bulk) == told(single)
    assert sum(taken) > 3  # some went the way of many
    assert max(taken) > 1


def count_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    taken: list[int] = []
    decide = usual._decide

    def counted(bridge: Any, part: Any) -> Any:
        left = decide(bridge, part)
        taken.append(len(part) - len(left))
        return left

    monkeypatch.setattr(usual, "_decide", counted)
    return taken


async def test_and_this_comparison_would_see_one_fact_less(
    two: Callable[[bool], Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = journals.shown_row
    monkeypatch.setattr(journals, "shown_row", lambda *fact: (*row(*fact)[:-1], "planted"))
    bulk = two(True)
    await life(bulk, 1)
    monkeypatch.setattr(journals, "shown_row", row)
    single = two(False)
    await life(single, 1)

    assert told(bulk) != told(single)


async def test_where_the_sentences_for_many_fail_each_is_decided_by_itself(
    two: Callable[[bool], Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = two(True)
    monkeypatch.setattr(
        usual, "LIVE", "SELECT 1/0 FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[])"
    )
    devices = [await plane.device(f"n{number}").enroll() for number in range(5)]
    answers: list[int] = []

    async def beat(device: Device) -> None:
        answers.append((await device.beat()).status_code)

    async with anyio.create_task_group() as tasks:
        for device in devices:
            tasks.start_soon(beat, device)

    assert answers == [200] * 5
    assert len(plane.rows("node_live")) == 5


async def test_a_batch_that_comes_again_writes_no_row(two: Callable[[bool], Plane]) -> None:
    plane = two(True)
    assert isinstance(plane.store.database, PgDatabase)
    devices = [await plane.device(f"n{number}").enroll() for number in range(4)]
    for device in devices:
        await device.beat()
        device.fact("enrollment/1", "a", "b")
        assert (await device.ship()).status_code == 200
    before = versions(plane)

    async with anyio.create_task_group() as tasks:
        for device in devices:
            tasks.start_soon(device.ship, device.batch(1))
            tasks.start_soon(device.beat)

    assert versions(plane) == before


def versions(plane: Plane) -> dict[str, list[str]]:
    """Which transaction wrote each row that there is."""

    def asked(db: Any) -> dict[str, list[str]]:
        return {
            table: sorted(str(row[0]) for row in db.execute(f"SELECT xmin::text FROM {table}"))  # noqa: S608
            for table in metadata.tables
        }

    return plane.store.read_now(asked)
