"""Who leads the rollouts: one process, taken over when it dies between any two facts, fenced when it does not know."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from cloudly.leading import Leading
from cloudly.problems import StoreUnavailable
from cloudly.rollouts import orders
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.phases import Phase
from cloudly.store.audit import By
from cloudly.store.governance import bans
from cloudly.store.rollouts import lease, sweeping, turning
from cloudly.store.rollouts import story as stories
from cloudly.store.store import Store
from journal.problems import IllegalFact
from tests.cloudly.given import Plane
from tests.cloudly.rolling import ALL, Rolling, canary_first, halting, plan

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

TAKEN_OVER_S = lease.LASTS_MS / 1000 + 1


class Dying:
    """A store whose process dies after so many writes: the last one is durable, and nobody hears of it."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store = store
        self._left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, work: Any) -> Any:
        done = await self._store.write(work) if self._left > 0 else None
        self._left -= 1
        if self._left <= 0:
            raise StoreUnavailable("killed")
        return done


def dying(plane: Plane, *, facts: int) -> Leading:
    """A process that leads, and is killed after it has written so many facts. Its first write is the lease."""
    return Leading(Dying(plane.store, 1 + facts), plane.world)  # type: ignore[arg-type]


async def started(plane: Plane, count: int, said: Any) -> Rolling:
    """Nobody has looked at it yet."""
    rolling = await Rolling.begin(plane, count)
    rolling.create(said)
    rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    return rolling


async def life_of(rolling: Rolling, *, facts_a_life: int | None) -> int:
    """A rollout to its end, led by processes that are killed after so many facts; how many were."""
    killed = 0
    for _ in range(150):
        leading = (
            rolling.leading if facts_a_life is None else dying(rolling.plane, facts=facts_a_life)
        )
        try:
            await leading.tick()
        except StoreUnavailable:
            killed += 1
        if rolling.believed.is_final:
            return killed
        await rolling.plane.world.sleep(TAKEN_OVER_S)
        await rolling.all_beat()
        for device in rolling.has_it():
            if rolling.grant(device)["outcome"] is None:
                await rolling.succeeds(device)
    raise AssertionError(f"no end: {rolling.believed}")


@pytest.mark.parametrize("facts_a_life", [1, 2])
async def test_a_leader_killed_between_any_two_facts_is_taken_over_and_the_story_is_the_same(
    plane: Plane, facts_a_life: int
) -> None:
    rolling = await started(plane, 3, canary_first())
    undisturbed = Rolling(plane, rolling.devices)

    killed = await life_of(rolling, facts_a_life=facts_a_life)
    undisturbed.create(canary_first(), version="3.0.0")
    undisturbed.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
    await life_of(undisturbed, facts_a_life=None)

    assert killed > 3
    told, expected = (
        [kind for kind in one.kinds if kind != "outcomes-counted"] for one in (rolling, undisturbed)
    )
    assert told == expected
    assert told.count("phase-opened") == told.count("soak-passed") == 2
    assert rolling.believed.counts == undisturbed.believed.counts
    assert rolling.believed.counts.succeeded == 3


async def test_a_halt_is_written_once_though_the_leader_dies_after_each_fact(plane: Plane) -> None:
    rolling = await started(plane, 2, plan(halt=halting(min_failures=1, most_failures=1)))
    await rolling.tick()
    await rolling.all_beat()
    await rolling.leading.leave()
    await rolling.fails(rolling.devices[0])

    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            await dying(plane, facts=1).tick()
        await plane.world.sleep(TAKEN_OVER_S)
        if rolling.believed.state == "halted":
            break
    await rolling.tick()

    assert rolling.kinds.count("halted") == 1
    assert rolling.kinds.count("outcomes-counted") == 1
    assert rolling.believed.counts.rolled_back == 1


async def test_of_two_processes_one_leads_and_the_other_waits(plane: Plane) -> None:
    rolling = await started(plane, 1, plan())
    first, second = (Leading(plane.store, plane.world) for _ in range(2))

    for _ in range(20):
        await first.tick()
        await second.tick()
        await plane.world.sleep(1)

    assert (first.leads, second.leads) == (True, False)
    [row] = plane.rows("lease")
    assert row["epoch"] == 1
    assert {fact.boot_id for fact in rolling.facts} == {"0", "1"}


async def test_a_leader_that_stops_looking_is_taken_over_within_ten_seconds(plane: Plane) -> None:
    rolling = await started(plane, 1, plan())
    first, second = (Leading(plane.store, plane.world) for _ in range(2))
    await first.tick()
    killed_s = plane.world.monotonic()

    while not second.leads:
        await plane.world.sleep(1)
        await second.tick()

    assert 4 < plane.world.monotonic() - killed_s <= 10
    assert rolling.believed.state == "admitting"


async def test_a_leader_that_ends_gives_its_lease_back_and_is_followed_at_once(
    plane: Plane,
) -> None:
    await started(plane, 1, plan())
    first, second = (Leading(plane.store, plane.world) for _ in range(2))
    await first.tick()

    await first.leave()
    await second.tick()

    assert (first.leads, second.leads) == (False, True)
    assert plane.rows("lease")[0]["epoch"] == 2


async def test_an_older_leader_that_wakes_up_is_fenced_and_writes_nothing(plane: Plane) -> None:
    rolling = await started(plane, 1, plan())
    older, younger = (Leading(plane.store, plane.world) for _ in range(2))
    await older.tick()
    held = older._lease
    assert held is not None
    await plane.world.sleep(TAKEN_OVER_S)
    await younger.tick()
    await rolling.all_beat()
    before = rolling.kinds

    older._lease = lease.Lease(held.epoch, rolling.now_ms + 10**9)  # it slept, and does not know
    await older.tick()

    assert rolling.kinds == before
    assert not older.leads
    await younger.tick()
    assert rolling.kinds != before


async def test_a_fact_under_an_older_lease_is_refused_in_its_own_transaction(plane: Plane) -> None:
    rolling = await started(plane, 1, plan())
    await rolling.tick()
    story = rolling.story
    halt = Decision("halted", {"by": "cloudly", "why": "evidence", "reason": "x"})

    def write(epoch: int) -> None:
        plane.store.write_now(
            lambda db: stories.append(db, story, halt, now_ms=rolling.now_ms, lease_epoch=epoch)
        )

    for epoch in (7, 2):
        with pytest.raises(stories.Fenced):
            write(epoch)
    assert rolling.believed.state == "admitting"
    write(1)
    assert rolling.believed.state == "halted"


async def test_a_fact_that_the_chart_forbids_is_not_written(plane: Plane) -> None:
    rolling = await started(plane, 1, plan())
    story = rolling.story

    def write(kind: str) -> None:
        plane.store.write_now(
            lambda db: stories.append(db, story, Decision(kind, {}), now_ms=rolling.now_ms)
        )

    for kind in ("settled", "soak-passed", "created"):
        with pytest.raises(IllegalFact):
            write(kind)

    assert rolling.kinds == ["created", "started"]


@pytest.mark.parametrize(
    ("change", "broken_at"),
    [
        ("UPDATE rollout_event SET data='{}' WHERE seq=2", 2),
        ("UPDATE rollout_event SET lease_epoch=9 WHERE seq=2", 2),
        ("UPDATE rollout_event SET at_ms=at_ms+1 WHERE seq=1", 1),
        ("DELETE FROM rollout_event WHERE seq=2", 3),
    ],
)
async def test_a_story_that_was_changed_is_seen(plane: Plane, change: str, broken_at: int) -> None:
    rolling = await started(plane, 1, plan())
    await rolling.tick()
    assert stories.first_broken(1, rolling.facts) is None

    plane.store.write_now(lambda db: db.execute(change).rowcount)

    told = plane.store.read_now(lambda db: stories.facts(db, 1))
    assert stories.first_broken(1, told) == broken_at


async def test_where_there_is_nothing_to_lead_nobody_takes_the_lease_and_nothing_is_written(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 1)
    rolling.create(plan())
    commits = plane.store.database.commits

    for _ in range(5):
        await rolling.tick()
        await plane.world.sleep(1)

    assert plane.rows("lease") == []
    assert plane.store.database.commits == commits


async def test_a_leader_with_nothing_new_writes_only_its_lease(plane: Plane) -> None:
    rolling = await Rolling.begin(plane, 1, plan())
    await rolling.beat(rolling.devices[0])
    await rolling.tick()
    seq, commits = rolling.story.seq, plane.store.database.commits

    for _ in range(10):
        await plane.world.sleep(1)
        await rolling.tick()

    assert rolling.story.seq == seq
    assert plane.store.database.commits - commits <= 6


@pytest.mark.parametrize("order", ["pause", "halt"])
async def test_a_rollout_that_rests_is_led_by_nobody_and_nothing_is_written(
    plane: Plane, order: str
) -> None:
    rolling = await Rolling.begin(plane, 2, plan())
    await rolling.beat(rolling.devices[0])
    decide = getattr(orders, order)
    rolling.order(lambda rollout, _: decide(rollout, by="anna", reason="lunch"))
    await rolling.tick()
    seq, commits = rolling.story.seq, plane.store.database.commits

    for _ in range(60):
        await plane.world.sleep(1)
        await rolling.tick()

    assert rolling.story.seq == seq
    assert plane.store.database.commits == commits
    assert not rolling.leading.leads


async def test_what_comes_of_a_rollout_that_rests_is_counted_and_its_silence_too(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 3, plan(dark_after_s=600))
    await rolling.all_beat()
    rolling.order(lambda rollout, _: orders.pause(rollout, by="anna", reason="lunch"))
    await rolling.wait(60)

    await rolling.succeeds(rolling.devices[0])
    await rolling.wait(3, every_s=1)
    told = rolling.believed.counts
    await rolling.wait(700)

    assert (told.succeeded, told.in_flight) == (1, 2)
    assert rolling.believed.counts.dark == 2
    assert plane.rows("lease")[0]["epoch"] == 1


async def test_who_waited_beside_a_leader_has_listened_as_long_as_he(plane: Plane) -> None:
    """A node that died is dark no later because the leader died, too."""
    rolling = await started(plane, 1, plan(dark_after_s=600))
    first, second = (Leading(plane.store, plane.world) for _ in range(2))
    await first.tick()
    await rolling.all_beat()
    for _ in range(580):
        await first.tick()
        await second.tick()
        await plane.world.sleep(1)

    for _ in range(60):  # the first one was killed
        await plane.world.sleep(1)
        await second.tick()

    assert rolling.believed.counts.dark == 1


async def test_a_clock_that_went_back_does_not_lock_everybody_out(plane: Plane) -> None:
    await started(plane, 1, plan())
    far = ("rollouts", "gone", 3, plane.world.now().timestamp() * 1000 + 10**8)
    plane.store.write_now(
        lambda db: (
            db.execute(
                "INSERT INTO lease(name, owner, epoch, until_ms) VALUES(?,?,?,?)",
                (*far[:3], int(far[3])),
            ).rowcount
        )
    )
    leading = Leading(plane.store, plane.world)

    await leading.tick()

    assert leading.leads
    assert plane.rows("lease")[0]["epoch"] == 4


@pytest.mark.parametrize("stride", [1, 3, 4000])
async def test_a_fleet_of_many_slices_is_walked_to_its_end(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    monkeypatch.setattr(sweeping, "SLICE", 2)
    monkeypatch.setattr(sweeping, "STRIDE", stride)
    monkeypatch.setattr(turning, "SLICE", 2)
    rolling = await Rolling.begin(plane, 7, plan(Phase(name="all", share_bp=10_000, soak_s=0)))

    waiting = list[str]()
    for device in reversed(rolling.devices):
        await rolling.succeeds(device)
        waiting.append(rolling.believed.state)
        await rolling.wait(4, every_s=1)
    assert waiting == ["admitting"] * 7
    assert rolling.believed.state == "completed"


@pytest.mark.parametrize("first", [0, 3, 6])
async def test_a_walk_from_anywhere_finds_who_is_to_come_wherever_he_is(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """By place too: a phase that takes some of them by their ids alone."""
    monkeypatch.setattr(sweeping, "STRIDE", 2)
    half = Phase(name="half", share_bp=5000, soak_s=60)
    rolling = await Rolling.begin(plane, 8, plan(half, ALL))
    early = [one for one in rolling.devices if rolling.phase_of(one) == 0]
    last = early[first % len(early)]

    def swept() -> int:
        walk = sweeping.Walk(at=plane.node(rolling.devices[first].node_id)["id"])
        story = rolling.story
        for _ in range(40):
            step = partial(sweeping.walk, known=story, before=walk, now_ms=rolling.now_ms)
            walk, ended = plane.store.read_now(step)
            if ended is not None:
                return ended.to_come
        raise AssertionError("the walk does not end")

    for device in early:
        assert swept() == 1
        if device is not last:
            await rolling.beat(device)
    assert swept() == 1
    await rolling.beat(last)
    assert swept() == 0


async def test_a_rollback_of_many_slices_turns_everybody_back(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turning, "SLICE", 2)
    rolling = await Rolling.begin(plane, 7, plan(ALL))
    for device in rolling.devices:
        await rolling.succeeds(device)
    first = await rolling.joins(good=False)
    await rolling.beat(first)  # it has run nothing before
    await rolling.tick()
    rolling.order(lambda rollout, _: orders.roll_back(rollout, by="anna", reason="it smells"))

    await rolling.tick()
    told = await rolling.all_beat()
    for device in rolling.devices[:7]:
        await rolling.succeeds(device)
    await rolling.wait(3, every_s=1)

    assert [app and app["version"] for app in told] == ["1.0.0"] * 7 + ["2.0.0"]
    assert rolling.believed.state == "rolled-back"
    assert "ran well here before" in plane.node(first.node_id)["needs_operator"]


async def test_the_leading_process_and_the_check_ins_run_as_jobs_of_the_server(
    plane: Plane,
) -> None:
    rolling = await started(plane, 1, plan(Phase(name="all", share_bp=10_000, soak_s=5)))
    recurring = plane.app.state.recurring

    async with anyio.create_task_group() as group:
        group.start_soon(recurring.run)
        await plane.world.sleep(2)
        await rolling.succeeds(rolling.devices[0])
        await plane.world.sleep(12)
        group.cancel_scope.cancel()

    assert rolling.believed.state == "completed"
    assert recurring.problems() == {}
    assert plane.rows("lease")[0]["until_ms"] == 0


async def test_a_rollout_that_cannot_be_read_is_parked_and_holds_up_nothing_else(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    rolling = await Rolling.begin(plane, 3, plan())
    readable = rolling.number

    def newer(db: Any) -> int:
        number = db.execute(
            "INSERT INTO rollout(release, plan, policy, state, seq, hash, created_at_ms, is_open)"
            " SELECT release, plan, policy, state, seq, hash, created_at_ms, 1 FROM rollout WHERE id=?"
            " RETURNING id",
            (readable,),
        ).fetchone()[0]
        db.execute(
            "INSERT INTO rollout_event(rollout, seq, at_ms, kind, src, dst, data, hash, lease_epoch)"
            " SELECT CAST(? AS BIGINT), seq, at_ms, 'of-a-newer-cloudly', src, dst, data, hash, lease_epoch"
            " FROM rollout_event WHERE rollout=?",
            (number, readable),
        )
        return int(number)

    parked = plane.store.write_now(newer)
    await plane.world.sleep(2)

    answers = [await device.beat() for device in rolling.devices]
    for _ in range(5):
        await plane.world.sleep(2)
        await rolling.tick()
    ready = await plane.client.get("/readyz")

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(rolling.has_it()) == 3
    assert rolling.has_it(parked) == []
    assert ready.status_code == 200
    told = [record for record in caplog.records if "parked" in record.getMessage()]
    assert len(told) == 1  # once, not at each look


async def test_a_rollout_whose_release_is_banned_is_paused_and_goes_on_when_that_is_lifted(
    plane: Plane,
) -> None:
    rolling = await Rolling.begin(plane, 6, plan(Phase(name="one", count=1, soak_s=60), ALL))
    await rolling.all_beat()
    await rolling.tick()
    await rolling.succeeds(rolling.has_it()[0])
    await rolling.tick()
    by = By("anna", rolling.now_ms)

    plane.store.write_now(lambda db: bans.ban(db, "2.0.0", by, "it eats flash"))
    await rolling.wait(600)

    assert rolling.believed.state == "paused"
    assert "it eats flash" in rolling.believed.reason
    assert len(rolling.has_it()) == 1
    plane.store.write_now(lambda db: bans.unban(db, "2.0.0", by, "it does not"))
    rolling.order(lambda rollout, _: orders.resume(rollout, by="anna", reason="go on"))
    await rolling.wait(200)
    await rolling.all_beat()
    assert len(rolling.has_it()) == 6
