"""Two real `cloudly serve` on one real PostgreSQL behind a balancer: one is killed, and nothing is lost or twice."""

from __future__ import annotations

import json
import random  # noqa: TID251 - what a device does next is chance from a seed
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from cloudly import slots
from cloudly.store import join_tokens
from cloudly.store.store import Store
from cloudly.tokens import new_join_token
from interfaces.world import RealWorld, new_secret, now_ms
from tests.cloudly.balancer import Balancer
from tests.cloudly.given import Device
from tests.cloudly.served import Served, Wire
from tests.postgresql import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("engine", ["postgresql"], indirect=True),
]

DEVICES = 20
FACTS = 30
"""Of each device."""


@dataclass
class Life:
    """A device that asks again until it is answered, and believes only answers."""

    device: Device
    chance: random.Random
    acked: int = 0
    failures: int = 0
    on_ack: Callable[[], None] = lambda: None

    async def live(self, token: str) -> None:
        await self._answered(lambda: self.device.ask(token), 201)
        while self.acked < FACTS:
            if self.chance.random() < 0.3:
                await self._answered(self.device.beat, 200)
            else:
                await self._tell()

    async def _tell(self) -> None:
        facts = len(self.device.journals.get("core", []))
        for number in range(facts, min(FACTS, facts + self.chance.randint(1, 3))):
            self.device.fact("app-update/1", f"s{number}", f"s{number + 1}")
        batch = self.device.batch(self.acked + 1)
        answer = await self._answered(lambda: self.device.ship(batch), 200)
        seq, at = answer.json()["ack"]["seq"], self.acked
        assert seq >= at, "an ack went back"
        assert answer.json()["ack"]["hash"] == self.device.hash_at("core", seq).hex()
        self.acked = seq
        for _ in range(seq - at):
            self.on_ack()

    async def _answered(self, ask: Any, status: int) -> httpx.Response:
        for _ in range(200):
            try:
                answer: httpx.Response = await ask()
            except httpx.TransportError:
                self.failures += 1
                await self.device.plane.world.sleep(0.05)
                continue
            if answer.status_code != 503:
                assert answer.status_code == status, answer.text
                return answer
            self.failures += 1
            await self.device.plane.world.sleep(0.1)
        raise AssertionError("no server answered")


@dataclass
class Fleet:
    """The devices, and a word whenever so many of their facts are acked."""

    lives: list[Life] = field(default_factory=list)
    acked: int = 0
    marks: dict[int, anyio.Event] = field(default_factory=dict)

    def begin(self, client: httpx.AsyncClient) -> None:
        for number in range(DEVICES):
            wire: Any = Wire(client, RealWorld())
            device = Device(wire, f"{number:032}", secret=new_secret(RealWorld()), writer="w")
            chance = random.Random(number)  # noqa: S311 - a story's
            self.lives.append(Life(device, chance, on_ack=self._count))

    def when(self, acked: int) -> anyio.Event:
        return self.marks.setdefault(acked, anyio.Event())

    def _count(self) -> None:
        self.acked += 1
        if self.acked in self.marks:
            self.marks[self.acked].set()


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    """To look at the database from beside."""
    store = Store.open(tmp_path / "beside", RealWorld(), serves=False, database_url=database_url)
    yield store
    store.close()


def tokens(store: Store) -> list[str]:
    """One for each device, for one use."""
    world = RealWorld()
    made = [new_join_token(world) for _ in range(DEVICES)]
    now = now_ms(world)
    for token in made:
        new = join_tokens.NewToken(token, "", 1, now, now + 600_000)
        store.write_now(lambda db, new=new: join_tokens.create(db, new))  # type: ignore[misc]
    return made


def rows(store: Store, sentence: str) -> list[Any]:
    return store.read_now(lambda db: [tuple(row) for row in db.execute(sentence)])


async def story(servers: list[Served], made: list[str], kill: Served) -> tuple[Fleet, Balancer]:
    balancer, fleet = Balancer([one.port for one in servers]), Fleet()
    half, more = fleet.when(DEVICES * FACTS // 2), fleet.when(DEVICES * FACTS * 2 // 3)

    async def kill_and_start_again() -> None:
        await half.wait()
        assert kill.end(signal.SIGKILL) == -signal.SIGKILL
        await more.wait()
        await anyio.to_thread.run_sync(kill.start)  # noqa: TID251 - time is real here
        balancer.servers[servers.index(kill)] = kill.port

    with anyio.fail_after(150):
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(balancer.serve)
            limits = httpx.Limits(max_keepalive_connections=0)  # each request another server
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=20
            ) as client:
                fleet.begin(client)
                async with anyio.create_task_group() as lives:
                    lives.start_soon(kill_and_start_again)
                    for life, token in zip(fleet.lives, made, strict=True):
                        lives.start_soon(life.live, token)
            tasks.cancel_scope.cancel()
    return fleet, balancer


def check(store: Store, fleet: Fleet) -> None:
    """Every fact that was acked is there, once, and every device is the node that it was."""
    stored: dict[str, list[int]] = {}
    chunks = rows(
        store,
        "SELECT n.node_id, c.events FROM journal_chunk c JOIN node n ON n.id=c.node ORDER BY c.node, c.first_seq",
    )
    for node_id, events in chunks:
        stored.setdefault(node_id, []).extend(event["seq"] for event in json.loads(events))
    assert stored == {life.device.node_id: [*range(1, FACTS + 1)] for life in fleet.lives}
    assert rows(store, "SELECT DISTINCT uses_left FROM join_token") == [(0,)]
    assert rows(store, "SELECT count(*) FROM node") == [(DEVICES,)]
    assert rows(store, "SELECT count(*) FROM lane_gap") == [(0,)]
    assert rows(store, "SELECT count(*) FROM fence") == [(0,)]
    assert rows(store, "SELECT DISTINCT ack_seq FROM lane WHERE lane='core'") == [(FACTS,)]


@pytest.mark.parametrize("shared", [True, False], ids=["one-directory", "two-directories"])
def test_a_server_that_is_killed_under_load_loses_nothing_and_nothing_comes_twice(
    tmp_path: Path, database_url: str, store: Store, *, shared: bool
) -> None:
    directories = [tmp_path / "data", tmp_path / ("data" if shared else "other")]
    for directory in directories:
        directory.mkdir(exist_ok=True)
    first = Served(directories[0], database_url)
    if not shared:
        (directories[1] / "ticket.key").write_bytes((directories[0] / "ticket.key").read_bytes())
    servers = [first, Served(directories[1], database_url)]
    held = [slots.in_use(directory) for directory in directories]
    try:
        fleet, balancer = anyio.run(story, servers, tokens(store), servers[1])
    finally:
        codes = [one.end(signal.SIGTERM) for one in servers if one.process.poll() is None]

    check(store, fleet)
    assert codes == [0, 0]
    assert min(balancer.taken.values()) > DEVICES  # both had work
    assert balancer.refused > 0  # and one was missed
    assert [len(one) for one in held] == ([2, 2] if shared else [1, 1])
    assert len(rows(store, "SELECT key FROM meta WHERE key LIKE 'server/%'")) == 2


def test_a_server_that_ends_says_goodbye_to_postgresql_and_one_that_is_killed_cannot(
    tmp_path: Path, database_url: str, store: Store, postgresql: Server
) -> None:
    name = rows(store, "SELECT current_database()")[0][0]
    postgresql.sql(f"ALTER DATABASE {name} SET log_min_messages='debug1'")
    (tmp_path / "data").mkdir()

    def goodbyes_missed(how: signal.Signals) -> int:
        before = (postgresql.home / "log").stat().st_size
        server = Served(tmp_path / "data", database_url)
        ready = httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=20)
        assert ready.status_code == 200, ready.text
        server.end(how)
        gone = "SELECT count(*) FROM pg_stat_activity WHERE datname=current_database()"
        for _ in range(200):  # all but who asks
            if rows(store, gone) == [(1,)]:
                break
            threading.Event().wait(0.05)
        log = (postgresql.home / "log").read_bytes()[before:]
        return log.count(b"unexpected EOF") + log.count(b"reset by peer")

    assert goodbyes_missed(signal.SIGTERM) == 0
    assert goodbyes_missed(signal.SIGKILL) > 0


FORGETFUL = """
from cloudly.store.pg.database import PgDatabase
from cloudly.store.pg.bridge import Bridge
really, said = Bridge.say, [0]
async def say(self, command):
    said[0] += command == "COMMIT"
    await really(self, "ROLLBACK" if command == "COMMIT" and said[0] % 10 == 9 else command)
Bridge.say = say
"""


def test_and_this_harness_sees_a_server_that_forgets_what_it_answered(
    tmp_path: Path, database_url: str, store: Store
) -> None:
    (tmp_path / "data").mkdir()
    servers = [
        Served(tmp_path / "data", database_url),
        Served(tmp_path / "data", database_url, FORGETFUL),
    ]
    try:
        with pytest.raises(BaseExceptionGroup) as seen:
            anyio.run(story, servers, tokens(store), servers[0])
    finally:
        for one in servers:
            if one.process.poll() is None:
                one.end(signal.SIGKILL)

    assert seen.group_contains(AssertionError)
