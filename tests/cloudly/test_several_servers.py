"""Several servers on one PostgreSQL: whichever of them a request reaches, what becomes true is the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from cloudly.cli.release import apply
from cloudly.store import saving
from cloudly.store.devices import KeptReports
from cloudly.store.presence import Part
from cloudly.store.sql import Connection
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy
from interfaces.world import now_ms
from tests.cloudly.given import DIGEST, NODE, UUID, Device, Plane, bearer, code_of, commit_of
from tests.cloudly.several import Servers, statuses
from tests.cloudly.test_supervisor_contract import KEY, register, report

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("engine", ["postgresql"], indirect=True),
]


@pytest.fixture
async def servers(plane: Plane) -> AsyncIterator[Servers]:
    servers = Servers.begin(plane)
    yield servers
    servers.end()


def reported(plane: Plane, name: str) -> Any:
    return json.loads(plane.rows("node_status")[0]["reported"])[name]


def said(plane: Plane) -> dict[str, Any]:
    """What a Supervisor reported, as that server would show it."""
    number = plane.node()["id"]
    found = plane.store.read_now(lambda db: plane.store.devices.said(db, number))
    assert found is not None
    kept: dict[str, Any] = json.loads(found["report"])
    return kept


# -- what is only in memory


async def test_what_one_server_remembers_does_not_overwrite_what_another_wrote_since(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await one.world.sleep(1)
    await device.beat(reported={"uptime_s": 10.0})  # in the memory of the first only
    await one.world.sleep(1)
    await servers.at(device, 1).beat(reported={"uptime_s": 20.0, "release": "c1"})
    newest = now_ms(one.world)

    await servers.flush()

    assert (reported(one, "uptime_s"), reported(one, "release")) == (20.0, "c1")
    assert one.rows("node_live")[0]["last_seen_at_ms"] == newest


async def test_the_newest_of_what_two_servers_remember_is_kept_whoever_saves_first(
    servers: Servers,
) -> None:
    one, other = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await one.world.sleep(1)
    await servers.at(device, 1).beat(reported={"uptime_s": 10.0})
    await one.world.sleep(1)
    await device.beat(reported={"uptime_s": 20.0})

    await servers.flush()  # the one with the older report is the last

    assert reported(other, "uptime_s") == 20.0
    assert other.store.unsaved == one.store.unsaved == {}


async def test_a_page_shows_what_another_server_wrote_not_what_its_own_remembers(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await device.beat(reported={"uptime_s": 5.0})
    await one.world.sleep(5)
    await servers.at(device, 1).beat(reported={"release": "c-new"})

    row = one.store.fresh(one.node())

    assert json.loads(row["reported"])["release"] == "c-new"
    assert row["last_seen_at_ms"] == now_ms(one.world)


async def test_a_server_that_is_asked_nothing_more_saves_what_it_knows_within_16_seconds(
    servers: Servers,
) -> None:
    one, other = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await one.world.sleep(3)
    await device.beat(reported={"uptime_s": 42.0})
    seen = now_ms(one.world)
    with anyio.move_on_after(16):
        await one.app.state.recurring.run()

    assert other.rows("node_live")[0]["last_seen_at_ms"] == seen
    assert reported(other, "uptime_s") == 42.0


async def test_what_comes_while_memory_is_saved_stays_in_memory(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await one.world.sleep(1)
    await device.beat(reported={"uptime_s": 10.0})
    newer = (now_ms(one.world) + 5, json.dumps({"uptime_s": 20.0}))
    writes = saving._write_part

    def meanwhile(db: Connection, part: Part) -> None:
        writes(db, part)
        one.store.unsaved.update(dict.fromkeys(part.seen, newer))  # as a heartbeat does it
        one.store.unsaved[99] = newer

    with monkeypatch.context() as busy:
        busy.setattr(saving, "_write_part", meanwhile)
        await one.world.sleep(16)
        await one.store.save_presence_if_due()
    first, kept = reported(other, "uptime_s"), dict(one.store.unsaved)
    await servers.flush()

    assert (first, kept) == (10.0, {1: newer, 99: newer})
    assert reported(other, "uptime_s") == 20.0
    assert one.store.unsaved == {}


async def test_what_could_not_be_saved_is_saved_later(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers.planes
    device = await one.device().enroll()
    await device.beat()
    await one.world.sleep(1)
    await device.beat(reported={"uptime_s": 42.0})
    await one.world.sleep(16)
    with monkeypatch.context() as broken:
        broken.setattr(saving, "_write_part", None)
        with pytest.raises(TypeError):
            await one.store.save_presence_if_due()
    before = reported(other, "uptime_s")

    await servers.flush()

    assert (before, reported(other, "uptime_s")) == (1.0, 42.0)


async def test_many_devices_are_saved_in_parts_and_a_part_that_failed_is_saved_later(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = servers.planes
    writes = saving._write_reports
    sizes: list[int] = []
    for number in range(1, 2501):
        one.store.devices.seen(number, now_ms(one.world))

    def write(db: Connection, part: KeptReports) -> None:
        sizes.append(len(part.seen))
        if len(sizes) == 2:
            raise RuntimeError("a bug")
        writes(db, part)

    monkeypatch.setattr(saving, "_write_reports", write)
    await one.world.sleep(16)
    with pytest.raises(RuntimeError, match="a bug"):
        await one.store.save_presence_if_due()
    left = {device for part in one.store.devices.parts() for device in part.seen}
    before = one.store.database.commits
    await one.world.sleep(16)
    await one.store.save_presence_if_due()

    assert sizes == [1000, 1000, 1000, 500]
    assert left == set(range(1001, 2501))
    assert one.store.database.commits - before == 3  # two parts, and the count of this life
    assert not one.store.devices.unsaved


async def test_a_measurement_in_memory_takes_back_no_report_of_another_server(
    servers: Servers,
) -> None:
    one, other = servers.planes
    await register(one, one.join_token())
    await report(one, {"status": "Idle"})
    await one.world.sleep(1)
    await report(one, {"cpu_usage": 1})  # merged into "Idle", in the memory of the first
    await report(other, {"status": "Updating"})
    shown = said(one)
    await report(one, {"cpu_usage": 2})  # merged into what is there now

    await servers.flush()

    assert shown == {"status": "Updating"}
    assert said(other) == {"status": "Updating", "cpu_usage": 2}


async def test_nor_where_the_clock_of_that_server_is_behind(servers: Servers) -> None:
    one, other = servers.planes
    await register(one, one.join_token())
    await report(one, {"status": "Idle"})
    await one.world.sleep(1)
    await report(one, {"cpu_usage": 1})
    other.world.set_clock(one.world.now().replace(year=2025))
    for status in ("Updating", "Stopping"):
        await report(other, {"status": status})

    await servers.flush()

    assert said(one)["status"] == said(other)["status"] == "Stopping"


# -- who speaks as a node


async def test_two_devices_with_one_identity_are_fenced_wherever_they_ask(
    servers: Servers,
) -> None:
    """At once: whose turn it is to speak is asked of the database with every request."""
    one, other = servers.planes
    device = await one.device(writer="a").enroll()
    device.fact("app-update/1", "", "s1")
    await device.beat()
    clone = servers.at(device.copy("b"), 1)

    assert (await clone.beat()).status_code == 200
    beat, batch = await device.beat(), await device.ship()

    assert code_of(beat) == code_of(batch) == (409, "fenced")
    assert (await clone.beat()).status_code == (await clone.ship()).status_code == 200
    assert code_of(await servers.at(device, 1).beat()) == (409, "fenced")
    assert [row["alarm"] for row in other.rows("fence")] == [1]


async def test_a_packet_that_is_late_at_another_server_succeeds_nobody(servers: Servers) -> None:
    one, _ = servers.planes
    device = await one.device(writer="a").enroll()
    await device.beat(reported={"uptime_s": 10.0})
    late = servers.at(device.copy("never heard of"), 1)
    device.writer = "b"
    await device.beat(reported={"uptime_s": 30.0})
    await one.world.sleep(2)
    await device.beat(reported={"uptime_s": 32.0})  # in the memory of the first

    await late.beat(reported={"uptime_s": 20.0})

    assert one.rows("voice")[0]["writer"] == "b"
    assert (await device.beat(reported={"uptime_s": 34.0})).status_code == 200
    assert one.rows("fence") == []


async def test_a_head_that_only_one_server_heard_of_is_known_to_all_within_16_seconds(
    servers: Servers,
) -> None:
    """A device was put back to a snapshot, and asks another server: that one knows when the first has saved."""
    one, _ = servers.planes
    device = await one.device(writer="a").enroll()
    device.fact("app-update/1", "", "s1")
    await device.ship()
    await device.beat()
    snapshot = device.copy("b")
    device.fact("app-update/1", "s1", "s2")
    await device.beat()  # names a head that is nowhere but in the memory of the first
    await one.world.sleep(15)
    await one.app.state.recurring.once("presence")

    snapshot.fact("app-update/1", "s1", "something else")
    answer = await servers.at(snapshot, 1).ship()

    assert code_of(answer) == (409, "fork")
    assert answer.json()["ack"]["seq"] == 1


# -- decisions


async def test_a_one_time_token_lets_one_device_in_of_those_that_ask_both_servers_at_once(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    for turn in range(20):
        token, answers = one.join_token(), list[httpx.Response]()

        async def ask(
            number: int,
            *,
            turn: int = turn,
            token: str = token,
            answers: list[httpx.Response] = answers,
        ) -> None:
            device = one.device(f"{turn:02}{number:030}")
            answers.append(await servers.at(device, number % 2).ask(token))

        async with anyio.create_task_group() as all_at_once:
            for number in range(4):
                all_at_once.start_soon(ask, number)

        assert statuses(answers) == [201, 403, 403, 403]
    assert len(one.rows("node")) == 20


async def test_a_token_of_three_uses_lets_three_in(servers: Servers) -> None:
    one, _ = servers.planes
    token, answers = one.join_token(uses=3), list[httpx.Response]()

    async def ask(number: int) -> None:
        answers.append(await servers.at(one.device(f"{number:032}"), number % 2).ask(token))

    async with anyio.create_task_group() as all_at_once:
        for number in range(8):
            all_at_once.start_soon(ask, number)

    assert statuses(answers) == [201] * 3 + [403] * 5


async def test_an_enrollment_asked_of_both_servers_at_once_is_one_with_one_node_token(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    token, device, answers = one.join_token(), one.device(), list[httpx.Response]()

    async def ask(number: int) -> None:
        answers.append(await servers.at(device, number).ask(token))

    async with anyio.create_task_group() as all_at_once:
        all_at_once.start_soon(ask, 0)
        all_at_once.start_soon(ask, 1)

    assert statuses(answers) == [201, 201]
    assert len({answer.json()["node_token"] for answer in answers}) == 1
    assert [row["uses_left"] for row in one.rows("join_token")] == [0]


async def test_a_token_that_two_nodes_announce_to_both_servers_at_once_is_taken_from_one(
    servers: Servers,
) -> None:
    """The other is refused in the words in which he would be a second later."""
    one, _ = servers.planes
    devices = [await one.device(f"{number:032}").enroll() for number in range(2)]
    for turn in range(20):
        answers: list[httpx.Response] = []

        async def announce(
            number: int, *, turn: int = turn, answers: list[httpx.Response] = answers
        ) -> None:
            device = servers.at(devices[number], number)
            answers.append(await device.announce(f"bnt_of-both-{turn}"))

        async with anyio.create_task_group() as all_at_once:
            for number in (0, 1):
                all_at_once.start_soon(announce, number)

        taken, refused = sorted(answers, key=lambda answer: answer.status_code)
        assert taken.status_code == 200, taken.text
        assert code_of(refused)[1] == "malformed"
        assert "used before" in refused.text


async def test_a_batch_sent_to_both_servers_at_once_is_stored_once(servers: Servers) -> None:
    one, _ = servers.planes
    device = await one.device().enroll()
    for number in range(1, 6):
        device.fact("app-update/1", f"s{number - 1}", f"s{number}")
    answers: list[httpx.Response] = []

    async def ship(number: int) -> None:
        answers.append(await servers.at(device, number).ship())

    async with anyio.create_task_group() as all_at_once:
        for number in (0, 1, 0, 1):
            all_at_once.start_soon(ship, number)

    assert statuses(answers) == [200] * 4
    assert {answer.json()["ack"]["seq"] for answer in answers} == {5}
    assert sequence(one) == {(1, 1, "core"): [1, 2, 3, 4, 5]}


def sequence(plane: Plane) -> dict[tuple[int, int, str], list[int]]:
    """The seqs that are stored, of each node, epoch and lane, in the order of the rows."""
    found: dict[tuple[int, int, str], list[int]] = {}
    for row in sorted(plane.rows("journal_chunk"), key=lambda row: int(row["first_seq"])):
        key = (row["node"], row["epoch_n"], row["lane"])
        found.setdefault(key, []).extend(event["seq"] for event in json.loads(row["events"]))
    return found


class Life:
    """A device whose requests go to any server; what it must be able to rely on is checked at each answer."""

    def __init__(self, device: Device, servers: Servers) -> None:
        self.device = device
        self._servers = servers
        self._acked = 0
        self._generation = 0
        self.steps: Counter[str] = Counter()

    async def step(self) -> None:
        chance = self._servers.chance
        step = chance.choice((self.beat, self.ship, self.twice, self.ask_again, self.facts))
        self.steps[step.__name__] += 1
        await step()

    async def facts(self) -> None:
        for _ in range(self._servers.chance.randint(1, 4)):
            at = len(self.device.journals.get("core", []))
            self.device.fact("app-update/1", f"s{at}", f"s{at + 1}")

    async def beat(self) -> None:
        uptime = now_ms(self.device.plane.world) / 1000
        answer = await self._any.beat(
            reported={"uptime_s": uptime}, observed_generation=self._generation
        )
        self._believe_desired(answer)

    async def ship(self) -> None:
        await self.facts()
        self._believe_ack(await self._any.ship(self.device.batch(self._acked + 1)))

    async def twice(self) -> None:
        """The answer was lost, and the balancer takes another server."""
        await self.facts()
        batch, answers = self.device.batch(self._acked + 1), list[httpx.Response]()

        async def send(device: Device) -> None:
            answers.append(await device.ship(batch))

        async with anyio.create_task_group() as at_once:
            at_once.start_soon(send, self._any)
            at_once.start_soon(send, self._any)
        for answer in answers:
            self._believe_ack(answer)

    async def ask_again(self) -> None:
        """Two heartbeats at once, as after a timeout."""

        async def send(device: Device) -> None:
            self._believe_desired(await device.beat(observed_generation=self._generation))

        async with anyio.create_task_group() as at_once:
            at_once.start_soon(send, self._any)
            at_once.start_soon(send, self._any)

    @property
    def _any(self) -> Device:
        return self._servers.any(self.device)

    def _believe_ack(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        acked = answer.json()["ack"]["seq"]
        assert acked >= self._acked, "an ack went back"
        assert answer.json()["ack"]["hash"] == self.device.hash_at("core", acked).hex()
        self._acked = acked

    def _believe_desired(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        self._generation = max(self._generation, answer.json()["desired"]["generation"])


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_server_devices_reach_each_fact_is_there_once_and_nothing_is_missing(
    servers: Servers, seed: int
) -> None:
    servers = Servers(servers.planes, type(servers.chance)(seed))
    one = servers.planes[0]
    lives = []
    for number in range(6):
        device = servers.any(one.device(f"{number:032}", hostname=f"kiosk-{number}"))
        assert (await device.ask(one.join_token())).status_code == 201
        lives.append(Life(device, servers))

    async def live(life: Life) -> None:
        for _ in range(30):
            await life.step()
            await one.world.sleep(servers.chance.uniform(0, 3))

    async def order() -> None:
        for version in range(12):
            plane = servers.planes[version % 2]
            await plane.store.write(wanting(f"1.0.{version}"))
            await one.world.sleep(4)

    async with anyio.create_task_group() as all_at_once:
        for life in lives:
            all_at_once.start_soon(live, life)
        all_at_once.start_soon(order)
    for life in lives:
        await life.ship()
    await servers.flush()

    stored = sequence(servers.planes[1])
    assert sorted(stored.values(), key=len) == sorted(
        ([*range(1, len(life.device.journals["core"]) + 1)] for life in lives), key=len
    )
    assert one.rows("lane_gap") == one.rows("fence") == []
    assert {row["ack_seq"] - row["head_seq"] for row in one.rows("lane")} == {0}
    told = Counter((row["node"], row["generation"]) for row in one.rows("deployment"))
    assert set(told.values()) == {1}, "two targets for one generation"
    assert all(sum(node == one for one, _ in told) == 12 for node, _ in told)
    assert sum(life.steps["twice"] for life in lives) > 10  # the fault was there


def wanting(version: str) -> Any:
    """An order for all nodes."""
    new = NewRelease(
        commit_of(version), version, {"main": f"registry.example/app-{version}@{DIGEST}"}, {}
    )
    return lambda db: apply(db, new, UpdatePolicy(), None, again=False)


async def test_orders_given_at_once_by_two_servers_have_generations_of_their_own(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    for number in range(3):
        await one.device(f"{number:032}").enroll()

    async def order(number: int) -> None:
        plane = servers.planes[number % 2]
        await plane.store.write(wanting(f"1.0.{number}"))

    async with anyio.create_task_group() as all_at_once:
        for number in range(10):
            all_at_once.start_soon(order, number)

    for node in (1, 2, 3):
        found = [row["generation"] for row in one.rows("deployment") if row["node"] == node]
        assert sorted(found) == list(range(1, 11))
    assert {row["generation"] for row in one.rows("desired")} == {10}


async def test_a_node_revoked_at_one_server_is_refused_by_the_other_at_once(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    device = await one.device().enroll()
    await servers.at(device, 1).beat()

    one.revoke_node(UUID)

    assert code_of(await servers.at(device, 1).beat()) == (401, "node-revoked")
    asked = await servers.planes[1].client.post(
        NODE + "journal", json=device.batch(), headers=bearer(device.token)
    )
    assert code_of(asked) == (401, "node-revoked")


async def test_a_release_ordered_at_one_server_is_the_target_that_the_other_gives(
    servers: Servers,
) -> None:
    one, _ = servers.planes
    await register(one, one.join_token())
    asked = [
        (await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(KEY)))
        for plane in servers.planes
    ]
    await one.store.write(wanting("1.0.0"))

    after = [
        (await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(KEY)))
        for plane in servers.planes
    ]

    assert asked[0].headers["etag"] == asked[1].headers["etag"]
    assert after[0].content == after[1].content != asked[0].content
    assert after[0].headers["etag"] == after[1].headers["etag"]
