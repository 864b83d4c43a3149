"""Old facts are let go, the chain still holds, and nothing disappears in silence."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloudly.cli import app as cli
from cloudly.export import Check, lines, verify
from cloudly.forgetting import Forgetting
from cloudly.problems import StoreUnavailable
from cloudly.store import outbox, webhooks
from interfaces.world import now_ms
from tests.cloudly.given import UUID, Device, Plane, code_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

DAY_S = 86_400


@pytest.fixture
async def keeper(
    directory: Path, database_url: str | None, anyio_backend: object
) -> AsyncIterator[Plane]:
    """A control plane that keeps facts for ten days."""
    del anyio_backend
    plane = Plane.begin(directory, database_url=database_url, journal_days=10)
    yield plane
    plane.end()


async def daily(device: Device, days: int, *, each: int = 3, lane: str = "core") -> None:
    """So many facts a day, shipped as they happen."""
    for _ in range(days):
        first = len(device.journals.get(lane, [])) + 1
        for _ in range(each):
            device.fact("locks/1", "a", "b", lane=lane)
        answer = await device.ship(device.batch(first, lane=lane))
        assert answer.status_code == 200, answer.text
        await device.plane.world.sleep(DAY_S)


async def let_go(plane: Plane) -> None:
    """The recurring job, until it has walked over all."""
    await Forgetting(plane.store, plane.world, plane.settings).tick()


def chunks(plane: Plane) -> list[tuple[str, int, int]]:
    rows = [(row["lane"], row["first_seq"], row["last_seq"]) for row in plane.rows("journal_chunk")]
    return sorted(rows)


def marks(plane: Plane) -> list[tuple[str, int, int, str]]:
    rows = plane.rows("lane_gap")
    return sorted((row["lane"], row["first_seq"], row["last_seq"], row["why"]) for row in rows)


def checks(plane: Plane) -> dict[str, Check]:
    number = plane.node()["id"]
    found = plane.store.read_now(lambda db: list(verify(db, number)))
    return {f"{one.epoch_n}/{one.lane}": one for one in found}


async def test_old_facts_are_let_go_and_it_is_on_record_how_many(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 30)

    await let_go(keeper)

    assert chunks(keeper)[0] == ("core", 61, 63)  # ten days ago, to the day
    assert marks(keeper) == [("core", 1, 60, "retention")]
    check = checks(keeper)["1/core"]
    assert (check.facts, check.missing, check.let_go, check.problems) == (30, 0, 60, [])


async def test_each_walk_makes_the_same_record_longer(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await let_go(keeper)
    first = marks(keeper)
    await daily(device, 5)
    await let_go(keeper)
    await let_go(keeper)

    assert first == [("core", 1, 15, "retention")]
    assert marks(keeper) == [("core", 1, 30, "retention")]
    assert checks(keeper)["1/core"].problems == []


async def test_the_device_ships_on_and_sends_again_as_if_nothing_had_happened(
    keeper: Plane,
) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await keeper.world.sleep(100 * DAY_S)
    await let_go(keeper)
    kept = chunks(keeper)

    known = await device.beat()
    repeated = await device.ship(device.batch(40))
    old = await device.ship(device.batch(1, 5))  # an answer that was lost long ago
    device.fact("locks/1", "b", "c")
    fresh = await device.ship(device.batch(46))
    forged = device.copy()
    forged.journals["core"][-1] = {**forged.journals["core"][-1], "hash": "00" * 32}
    forged.fact("locks/1", "c", "d")
    refused = await forged.ship(forged.batch(47))

    assert kept == [("core", 43, 45)]  # the last chunk stays, however old
    assert {ack["lane"]: ack["seq"] for ack in known.json()["acks"]}["core"] == 45
    assert [one.status_code for one in (repeated, old, fresh)] == [200, 200, 200]
    assert fresh.json()["ack"]["seq"] == 46
    assert code_of(refused) == (409, "fork")
    assert checks(keeper)["1/core"].problems == []


async def test_a_change_of_what_is_left_is_still_found(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await let_go(keeper)
    row = min(keeper.rows("journal_chunk"), key=lambda one: int(one["first_seq"]))
    events = json.loads(row["events"])
    events[0]["dst"] = "changed"
    keeper.store.write_now(
        lambda db: (
            db.execute(
                "UPDATE journal_chunk SET events=? WHERE id=?", (json.dumps(events), row["id"])
            ).rowcount
        )
    )

    assert "does not follow" in checks(keeper)["1/core"].problems[0]  # the first fact after the gap


async def test_a_lost_record_is_found_as_well(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await let_go(keeper)
    keeper.store.write_now(lambda db: db.execute("DELETE FROM lane_gap").rowcount)

    assert "no gap is on record" in checks(keeper)["1/core"].problems[0]


async def test_what_the_device_had_dropped_stays_on_record_as_it_was(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 2)
    for _ in range(4):
        device.fact("locks/1", "a", "b")
    device.fact("locks/1", "a", "b")
    dropped = {"first_seq": 7, "last_seq": 10, "why": "space"}
    await device.ship(device.batch(11), oldest=11, gaps=[dropped])
    await daily(device, 14)

    await let_go(keeper)

    assert marks(keeper) == [
        ("core", 1, 6, "retention"),
        ("core", 7, 10, "space"),
        ("core", 11, 23, "retention"),
    ]
    check = checks(keeper)["1/core"]
    assert (check.missing, check.let_go, check.problems) == (4, 19, [])


async def test_both_lanes_and_older_epochs_are_let_go(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 3)
    await daily(device, 3, lane="log")
    device.begins("epoch-2", why="reset", **{"from": "epoch-1"})
    await device.ship()
    await daily(device, 15)

    await let_go(keeper)

    found = checks(keeper)
    assert {name: one.let_go for name, one in found.items()} == {
        "1/core": 6, "1/log": 6, "2/core": 16, "2/log": 0,
    }  # fmt: skip
    assert not [one.problems for one in found.values() if one.problems]


async def test_nothing_since_the_order_of_an_open_deployment_is_let_go(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 5)
    deployment = keeper.release("1.0.0")
    now = now_ms(keeper.world)
    keeper.store.write_now(
        lambda db: db.execute("UPDATE deployment SET ordered_at_ms=?", (now,)).rowcount
    )  # the operator's command has another clock
    await device.tell("app-update/1", "offered", deployment=deployment)
    await daily(device, 30)
    await let_go(keeper)
    held = marks(keeper)
    device.fact("app-update/1", "offered", "succeeded", deployment=deployment)
    await device.ship(device.batch(len(device.journals["core"])))
    await let_go(keeper)

    assert held == [("core", 1, 15, "retention")]
    assert marks(keeper)[0][2] > 60


async def test_without_days_everything_is_kept(plane: Plane) -> None:
    device = await plane.device().enroll()
    await daily(device, 5)
    await plane.world.sleep(60 * DAY_S)

    await let_go(plane)

    assert len(chunks(plane)) == 5
    assert marks(plane) == []


async def test_a_batch_may_come_between_two_slices(
    keeper: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudly.store.forgetting.SLICE", 2)
    device = await keeper.device().enroll()
    await daily(device, 30)
    really = keeper.store.decide_about
    slices = []

    async def decide_about(node: int, work: Any) -> Any:
        slices.append(node)
        device.fact("locks/1", "a", "b")
        assert (await device.ship(device.batch(len(device.journals["core"])))).status_code == 200
        return await really(node, work)

    monkeypatch.setattr(keeper.store, "decide_about", decide_about)
    await let_go(keeper)

    assert len(slices) >= 10
    assert marks(keeper) == [("core", 1, 60, "retention")]
    check = checks(keeper)["1/core"]
    assert (check.let_go + check.facts, check.problems) == (90 + len(slices), [])


async def test_a_database_that_fails_in_the_middle_loses_nothing_and_is_told(
    keeper: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await keeper.device().enroll()
    await daily(device, 30)

    async def decide_about(_node: int, _work: Any) -> Any:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(keeper.store, "decide_about", decide_about)
        with pytest.raises(StoreUnavailable):
            await let_go(keeper)
    whole = len(chunks(keeper))
    await keeper.world.sleep(7)  # that one's lease
    await let_go(keeper)

    assert whole == 30
    assert marks(keeper) == [("core", 1, 63, "retention")]  # seven seconds make it a day


# -- not in silence


async def test_the_page_the_story_and_the_export_say_so(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await let_go(keeper)
    number = keeper.node()["id"]

    page = (await keeper.client.get(f"/nodes/{UUID}")).text
    exported = keeper.store.read_now(lambda db: list(lines(db, number, UUID)))

    assert "15 older facts of the core lane (1 to 15), which Cloudly got until 2026-11-27" in page
    assert "were let go on 2026-12-08" in page
    assert "(15 older let go)" in page
    assert "missing in the core lane" not in page
    gaps = [one["gap"] for one in exported if "gap" in one]
    assert [(one["why"], one["first_seq"], one["last_seq"]) for one in gaps] == [("retention", 1, 15)]  # fmt: skip


async def test_the_commands_say_so(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 15)
    await let_go(keeper)
    run = CliRunner()

    def said(*words: str) -> str:
        done = run.invoke(cli, ["node", *words, "--data-dir", str(keeper.directory)])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    assert "15 older facts of the core lane (1 to 15)" in said("journal", UUID)
    assert "let go by Cloudly" in said("gaps", UUID)
    verified = json.loads(said("verify-journal", UUID, "--json"))
    assert {one["lane"]: one["let_go"] for one in verified} == {"core": 15, "log": 0}


# -- what lies beside


async def test_transitions_and_diagnoses_go_with_their_facts(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    number = keeper.node()["id"]
    now = now_ms(keeper.world)
    keeper.store.write_now(
        lambda db: (
            db.execute(
                "INSERT INTO diagnosis(id, node, asked_at_ms, answered_at_ms, answer) VALUES('d1',?,?,?,'{}')",
                (number, now, now),
            ).rowcount
        )
    )
    await daily(device, 15)
    before = len(keeper.rows("transition"))
    await let_go(keeper)

    assert (before, len(keeper.rows("transition"))) == (45, 30)
    assert keeper.rows("diagnosis") == []
    assert len(keeper.rows("stream")) == 1  # its last state stays


async def test_events_are_let_go_after_a_week_when_no_webhook_waits_for_them(
    plane: Plane,
) -> None:
    now = now_ms(plane.world)
    on, off = (
        plane.store.write_now(
            lambda db, name=name: webhooks.create(db, name, "https://x.example/", [], now)  # type: ignore[misc]
        )
        for name in ("on", "off")
    )
    done, waits, replayed, unwanted = (
        plane.store.write_now(lambda db: outbox.tell(db, "node.odd", {}, now)) or 0
        for _ in range(4)
    )
    await plane.world.sleep(8 * DAY_S)
    later = now_ms(plane.world)

    def fares(db: Any) -> None:
        for event, at_ms in ((done, now), (replayed, later), (unwanted, now)):
            webhooks.delivered(db, on, event, 200, at_ms)
            webhooks.delivered(db, off, event, 200, now)
        webhooks.disable(db, off, "by the operator", now)  # it waits, and will for ever

    plane.store.write_now(fares)
    plane.store.write_now(lambda db: outbox.tell(db, "node.new", {}, later))
    await let_go(plane)

    left = {row["id"] for row in plane.rows("outbox")}
    assert left == {waits, replayed, max(left)}
    assert {row["event"] for row in plane.rows("delivery")} == left


async def test_the_server_walks_once_an_hour(keeper: Plane) -> None:
    device = await keeper.device().enroll()
    await daily(device, 30)
    jobs, job = keeper.app.state.recurring, keeper.app.state.forgetting

    await jobs.once("forgetting")
    first = job.slices
    await daily(device, 1)
    await keeper.world.sleep(2 * DAY_S)
    await jobs.once("forgetting")
    await jobs.once("forgetting")

    assert (first, job.slices) == (1, 2)
    assert jobs.problems() == {}
