"""A crowd of devices over real HTTP: each asks any of several servers, believes only answers, and keeps a ledger.

Rules:
- A request that was not answered, or by 503, is sent again, to a server by chance: as a balancer would do it.
- What a device was told and what it shipped is in its ledger; `missing` compares that with what the database has.
"""

from __future__ import annotations

import json
import random  # noqa: TID251 - what a device does next, and which server it takes, is chance from a seed
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from cloudly.store import join_tokens
from cloudly.store.store import Store
from cloudly.tokens import new_join_token
from interfaces.world import RealWorld, new_secret, now_ms
from tests.cloudly.given import Device

PATIENCE_S = 4.0
"""For an answer: a server that is frozen must not hold a device for long."""
STATES = ("offered", "applying", "succeeded")


@dataclass
class Ways:
    """What a device needs of several servers: any of them at a time, and a clock."""

    clients: Sequence[httpx.AsyncClient]
    chance: random.Random
    world: RealWorld = field(default_factory=RealWorld)

    @property
    def client(self) -> httpx.AsyncClient:
        return self.chance.choice(self.clients)


@dataclass
class Life:
    """One device: it does what it is ordered, and has other things to tell besides."""

    device: Device
    ways: Ways
    generation: int = 0
    orders: dict[int, str] = field(default_factory=dict)
    """Which deployment each generation was, by the answers."""
    done: list[str] = field(default_factory=list)
    acked: int = 0
    beats: int = 0
    unanswered: int = 0
    """Requests that had to be sent again."""

    async def live(self, token: str, ended: anyio.Event) -> None:
        await self._answered(lambda: self.device.ask(token), 201)
        while not ended.is_set():
            deployment = await self._beat()
            if deployment and deployment not in self.done:
                await self._update(deployment)
            else:
                await self._tell("enrollment/1", *self._turn())
            await self._rest(0.4, 1.2)
        await self._beat()  # says which generation it has seen

    async def _beat(self) -> str:
        """The deployment that it is to have; empty: none."""
        answer = await self._answered(
            lambda: self.device.beat(reported={"observed_generation": self.generation}), 200
        )
        desired = answer.json()["desired"]
        generation, app = desired["generation"], desired["app"]
        assert generation >= self.generation, "a generation went back"
        deployment = "" if app is None else str(app["deployment"])
        known = self.orders.setdefault(generation, deployment)
        assert known == deployment, "two targets for one generation"
        self.generation = generation
        self.beats += 1
        return deployment

    async def _update(self, deployment: str) -> None:
        self.done.append(deployment)
        stream = f"app-update/{len(self.done)}"
        for src, dst in zip(("new", *STATES), STATES, strict=False):
            await self._tell(stream, src, dst, deployment=deployment)
            await self._rest(0.1, 0.4)

    def _turn(self) -> tuple[str, str]:
        number = len(self.device.journals.get("core", []))
        return f"s{number}", f"s{number + 1}"

    async def _tell(self, stream: str, src: str, dst: str, **data: Any) -> None:
        """One more fact in its journal, shipped until it is acked."""
        self.device.fact(stream, src, dst, **data)
        batch = self.device.batch(self.acked + 1)
        answer = await self._answered(lambda: self.device.ship(batch), 200)
        seq = answer.json()["ack"]["seq"]
        assert seq >= self.acked, "an ack went back"
        assert answer.json()["ack"]["hash"] == self.device.hash_at("core", seq).hex()
        self.acked = seq

    async def _answered(
        self, ask: Callable[[], Awaitable[httpx.Response]], status: int
    ) -> httpx.Response:
        """However long it takes: the story has a deadline."""
        while True:
            try:
                answer = await ask()
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                assert answer.status_code == status, answer.text
                return answer
            self.unanswered += 1
            await self.ways.world.sleep(self.ways.chance.uniform(0.1, 0.4))

    async def _rest(self, least_s: float, most_s: float) -> None:
        await self.ways.world.sleep(self.ways.chance.uniform(least_s, most_s))


@dataclass
class Crowd:
    lives: list[Life] = field(default_factory=list)
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Its story is over: each says its last word."""

    async def live(self, ports: Sequence[int], count: int, token: str) -> None:
        """Until `ended`."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=count)
        async with anyio.create_task_group() as tasks:
            clients = [
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, limits=limits
                )
                for port in ports
            ]
            for number in range(count):
                ways: Any = Ways(clients, random.Random(number))  # noqa: S311 - a story's
                secret = new_secret(ways.world)
                device = Device(ways, f"{number:032x}", secret=secret, writer="w")
                self.lives.append(Life(device, ways))
                tasks.start_soon(self.lives[-1].live, token, self.ended)
        for client in clients:
            await client.aclose()

    @property
    def unanswered(self) -> int:
        return sum(life.unanswered for life in self.lives)

    @property
    def orders(self) -> dict[str, list[str]]:
        """The deployments that each node was told, in the order of their generations."""
        return {
            life.device.node_id: [one for _, one in sorted(life.orders.items()) if one]
            for life in self.lives
        }


def token_for(store: Store, uses: int) -> str:
    world = RealWorld()
    token, now = new_join_token(world), now_ms(world)
    new = join_tokens.NewToken(token, "", uses, now, now + 600_000)
    store.write_now(lambda db: join_tokens.create(db, new))
    return token


def rows(store: Store, sentence: str) -> list[tuple[Any, ...]]:
    return store.read_now(lambda db: [tuple(row) for row in db.execute(sentence).fetchall()])


def stored(store: Store) -> dict[str, list[str]]:
    """The hashes of each node's facts, in the order of their numbers; a gap or a double is an assertion."""
    found: dict[str, list[tuple[int, str]]] = {}
    chunks = rows(
        store,
        "SELECT n.node_id, c.events FROM journal_chunk c JOIN node n ON n.id=c.node ORDER BY c.node, c.first_seq",
    )
    for node_id, events in chunks:
        facts = [(event["seq"], event["hash"]) for event in json.loads(events)]
        found.setdefault(node_id, []).extend(facts)
    for node_id, facts in found.items():
        assert [seq for seq, _ in facts] == [*range(1, len(facts) + 1)], f"the journal of {node_id}"
    return {node_id: [link for _, link in facts] for node_id, facts in found.items()}
