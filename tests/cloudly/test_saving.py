"""What is only in memory is saved in slices: in bulk on PostgreSQL, beside what others decide, and at the end too."""

from __future__ import annotations

import random  # noqa: TID251 - rows by chance, from a seed
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cloudly.ingest import Heard
from cloudly.problems import StoreUnavailable
from cloudly.store import presence, saving
from cloudly.store.devices import KeptReports, Measured
from cloudly.store.heads import Heads
from cloudly.store.pg.database import PgDatabase
from cloudly.store.presence import Part
from cloudly.store.saving import Saving
from interfaces.world import now_ms
from tests.cloudly.given import Plane
from tests.cloudly.test_postgresql import held
from tests.cloudly.test_supervisor_contract import register

pytestmark = [pytest.mark.anyio]
on_both = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

TABLES = ("node_live", "node_status", "lane", "device")


@on_postgresql
@pytest.mark.parametrize("seed", range(5))
async def test_in_bulk_is_what_row_by_row_is(plane: Plane, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a story's
    numbers = []
    for number in range(8):
        device = await plane.device(f"{number:032x}", writer="w").enroll()
        await register(plane, plane.join_token(), uuid=device.node_id, api_key=f"{number:032x}")
        device.fact("enrollment/1", "new", "s1")
        await device.beat()
        await plane.world.sleep(1)
        numbers.append(plane.node(device.node_id)["id"])
    part, kept = by_chance(chance, [*numbers, 99], now_ms(plane.world))

    def both(db: Any) -> tuple[Any, Any, Any]:
        found = [rows_of(db)]
        for write in (by_row, in_bulk):
            db.execute("SAVEPOINT one")
            write(db, part, kept)
            found.append(rows_of(db))
            db.execute("ROLLBACK TO one")
        return found[0], found[1], found[2]

    before, row_by_row, bulk = plane.store.write_now(both)

    assert bulk == row_by_row
    assert bulk != before


def by_row(db: Any, part: Part, kept: KeptReports) -> None:
    part.write(db)
    kept.write(db)


def in_bulk(db: Any, part: Part, kept: KeptReports) -> None:
    saving._write_part(db, part)
    saving._write_reports(db, kept)


def rows_of(db: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(
            (tuple(row) for row in db.execute(f"SELECT * FROM {table}").fetchall()),  # noqa: S608
            key=repr,
        )
        for table in TABLES
    }


def by_chance(
    chance: random.Random, numbers: list[int], present_ms: int
) -> tuple[Part, KeptReports]:
    """Older, as old and newer than what is there; of some nodes, and of one that is unknown."""

    def at_ms() -> int:
        return present_ms - chance.choice([0, 3_000, 5_000, 100_000])

    def some() -> list[int]:
        return chance.sample(numbers, 6)

    seen = {node: (at_ms(), f'{{"uptime_s": {chance.random()}}}') for node in some()}
    heads = {
        node: Heads(
            chance.choice(["epoch-1", "epoch-1", "unknown"]),
            {
                lane: Heard(chance.randint(0, 5), chance.randbytes(32), chance.choice(["w", "x"]))
                for lane in chance.sample(["core", "log"], chance.randint(1, 2))
            },
        )
        for node in some()
    }
    measured = {node: Measured(at_ms(), "{}", chance.choice([None, 7])) for node in some()}
    return Part(seen, heads), KeptReports(measured, {node: at_ms() for node in some()})


@on_postgresql
async def test_who_decides_about_another_node_does_not_wait_while_memory_is_saved(
    plane: Plane,
) -> None:
    """Another process holds a row of the first node: the saving waits for it, and nobody for the saving."""
    devices = [await plane.device(f"{number:032x}").enroll() for number in range(3)]
    for device in devices[:2]:
        await device.beat()
        await plane.world.sleep(1)
        await device.beat(reported={"uptime_s": 2.0})
    database, answers = plane.store.database, list[int]()
    assert isinstance(database, PgDatabase)
    first = plane.node(devices[0].node_id)["id"]
    await plane.world.sleep(16)

    lock = f"SELECT 1 FROM node WHERE id={first} FOR UPDATE"  # noqa: S608 - a test's own
    async with anyio.create_task_group() as tasks, held(database, lock):
        tasks.start_soon(plane.store.save_presence_if_due)
        while not database.in_flight:
            await checkpoint()
        for device in devices[1:]:
            answers.append((await device.beat(agent_version="0.2.0")).status_code)
        waiting = dict(plane.store.unsaved)

    assert answers == [200, 200]
    assert first in waiting  # it was under way all the time
    assert plane.store.unsaved == {}
    seen = {row["node"]: row["last_seen_at_ms"] for row in plane.rows("node_live")}
    assert seen[first] == waiting[first][0]


@on_both
async def test_at_the_end_memory_is_saved_in_slices_and_what_was_saved_stays(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "AT_ONCE", 2)
    devices = [await plane.device(f"{number:032x}").enroll() for number in range(5)]
    for device in devices:
        await device.beat()
    await plane.world.sleep(5)
    for device in devices:
        await device.beat()
    newest, writes, calls = now_ms(plane.world), Saving._write, list[Any]()

    def fails_from_the_third_on(self: Saving, db: Any, part: Any) -> None:
        calls.append(part)
        if len(calls) >= 3:
            raise StoreUnavailable("the disk is full")
        writes(self, db, part)

    monkeypatch.setattr(Saving, "_write", fails_from_the_third_on)
    again = plane.again()

    saved = [row for row in again.rows("node_live") if row["last_seen_at_ms"] == newest]
    assert len(calls) >= 3
    assert len(saved) == 4
    assert "the last times of nodes were not saved" in caplog.text
    again.end()
