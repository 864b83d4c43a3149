"""What a check-in asks of the database, counted: the same with ten thousand nodes as with a few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudly.rollouts import orders
from cloudly.rollouts.phases import Phase
from cloudly.store.pg.bridge import Bridge
from cloudly.store.sqlite import SqliteDatabase
from tests.cloudly.given import Device, Plane
from tests.cloudly.rolling import ALL, Rolling, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

MANY = 10_000
FRAME = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "SELECT PG_ADVISORY", "PRAGMA")


@contextmanager
def listening(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every sentence that is said to the database, without what only frames a transaction."""
    said = list[str]()

    def hear(sentence: str) -> None:
        if not sentence.upper().startswith(FRAME):
            said.append(sentence)

    database = plane.store.database
    if isinstance(database, SqliteDatabase):
        database._connection.set_trace_callback(hear)
        yield said
        database._connection.set_trace_callback(None)
        return
    execute: Callable[..., Any] = Bridge.execute

    def heard(bridge: Bridge, sentence: str, parameters: Any = ()) -> Any:
        hear(sentence)
        return execute(bridge, sentence, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(Bridge, "execute", heard)
        yield said


async def asked(plane: Plane, device: Device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What one heartbeat without news asks. What the process knows of rollouts is fresh."""
    await plane.store.rollouts.look()
    await device.beat()
    await plane.store.rollouts.look()
    with listening(plane, monkeypatch) as said:
        answer = await device.beat()
    assert answer.status_code == 200
    return said


def crowd(plane: Plane, rollout: int, *, in_flight: int) -> None:
    """Ten thousand more nodes; all of them were given the order, and most have succeeded and been counted."""

    def work(db: Any) -> None:
        rows = [(10_000 + n, f"crowd-{n:06}") for n in range(MANY)]
        db.executemany(
            "INSERT INTO node(id, node_id, hostname, device_type, agent_version, created_at_ms)"
            " VALUES(?,?,'','','',1)",
            rows,
        )
        db.executemany(
            "INSERT INTO rollout_grant(rollout, node, phase, at_ms, deployment, outcome, outcome_at_ms, reason,"
            " counted) VALUES(?,?,0,5,?,?,6,'',?)",
            [
                (rollout, number, f"d{number}", *((None, "") if at < in_flight else ("superseded",) * 2))
                for at, (number, _) in enumerate(rows)
            ],
        )  # fmt: skip

    plane.store.write_now(work)


def writes(said: list[str]) -> list[str]:
    return [one for one in said if one.split()[0] in {"INSERT", "UPDATE", "DELETE"}]


async def test_without_an_open_rollout_a_heartbeat_asks_nothing_of_them(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 1)

    said = await asked(plane, rolling.devices[0], monkeypatch)

    assert [one for one in said if "rollout" in one and "p.rollout" not in one] == []
    assert writes(said) == []


async def test_a_node_that_is_not_of_the_phase_by_place_costs_no_question_at_all(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 8)
    before = await asked(plane, rolling.devices[0], monkeypatch)
    some = plan(Phase(name="some", share_bp=3000), ALL)
    two = [await Rolling.begin(plane, 0, some) for _ in range(2)]
    both = [one for one in rolling.devices if all(each.phase_of(one) == 1 for each in two)]

    said = await asked(plane, both[0], monkeypatch)

    assert len(said) == len(before)
    assert writes(said) == []


async def test_a_node_that_was_given_the_order_costs_no_question_either(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 2)
    before = await asked(plane, rolling.devices[1], monkeypatch)
    two = await Rolling.begin(plane, 0, plan(selector="label.none"))
    one = Rolling(plane, rolling.devices)
    one.create(plan())

    one.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await one.tick()
    await one.beat(rolling.devices[0])
    assert two.has_it() == []

    said = await asked(plane, rolling.devices[0], monkeypatch)

    assert (
        len(said) - len(before) <= 2
    )  # the selector of the other asks for its row, and how it stands
    assert writes(said) == []


async def test_a_selector_costs_two_questions_for_each_rollout_and_no_write(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 1)
    before = await asked(plane, rolling.devices[0], monkeypatch)
    for _ in range(2):
        await Rolling.begin(plane, 0, plan(selector="label.site=lab"))

    said = await asked(plane, rolling.devices[0], monkeypatch)

    assert len(said) == len(before) + 4
    assert writes(said) == []


async def test_a_grant_costs_the_same_with_ten_thousand_nodes_as_with_two(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = await Rolling.begin(plane, 3, plan())
    first = await granting(few, few.devices[0], monkeypatch)

    crowd(plane, few.number, in_flight=200)
    second = await granting(few, few.devices[1], monkeypatch)

    assert len(second) == len(first)
    assert {few.grant(one)["outcome"] for one in few.devices[:2]} == {None}
    if isinstance(plane.store.database, SqliteDatabase):
        scans = [(one, plan) for one in second for plan in plans(plane, one) if is_scan(plan)]
        assert scans == []


async def test_a_tick_looks_at_what_is_in_flight_and_never_at_all_grants(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolling = await Rolling.begin(plane, 2, plan(selector="label.none"))
    crowd(plane, rolling.number, in_flight=200)
    await rolling.tick()

    with listening(plane, monkeypatch) as said:
        await rolling.tick()

    assert len(said) < 40
    if isinstance(plane.store.database, SqliteDatabase):
        steps = [(one, step) for one in said for step in plans(plane, one)]
        assert [step for step in steps if is_scan(step[1])] == []
        walks = [one for one, step in steps if "rollout_grant_1 (rollout=?)" in step]
        assert [one for one in walks if "LIMIT" not in one] == []


async def granting(rolling: Rolling, device: Device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    await rolling.plane.store.rollouts.look()
    with listening(rolling.plane, monkeypatch) as said:
        app = await rolling.beat(device)
    assert app is not None
    assert app["version"] == "2.0.0"
    return said


def plans(plane: Plane, sentence: str) -> list[str]:
    rows = plane.store.read_now(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sentence}").fetchall())
    return [str(row[3]) for row in rows]


def is_scan(step: str) -> bool:
    """Of a table that grows with the fleet. `SCAN n` walks all of it; a search uses an index."""
    return step.startswith(
        ("SCAN node", "SCAN rollout_grant", "SCAN deployment", "SCAN desired", "SCAN n", "SCAN g")
    )
