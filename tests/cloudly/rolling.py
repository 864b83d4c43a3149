"""What the stories about rollouts begin with: a fleet of devices on a good release, an operator, and who leads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloudly.leading import Leading
from cloudly.rollouts import orders
from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.counting import Decision
from cloudly.rollouts.membership import first_phase
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import HaltPolicy, Plan
from cloudly.rollouts.selector import NodeView
from cloudly.store import wanted
from cloudly.store.rollouts import making, story
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy
from interfaces.world import new_id, now_ms
from journal.facts import Fact
from tests.cloudly.given import DIGEST, Device, Plane, commit_of

ALL = Phase(name="all", share_bp=10_000, soak_s=60)


def plan(*phases: Phase, **said: Any) -> Plan:
    """Everybody at once unless phases are given, with a short soak."""
    return Plan(phases=phases or (ALL,), **said)


def canary_first(**said: Any) -> Plan:
    return plan(Phase(name="one", count=1, soak_s=60), ALL, **said)


@dataclass
class Rolling:
    """One rollout of 2.0.0 over devices that run 1.0.0."""

    plane: Plane
    devices: list[Device] = field(default_factory=list)
    leading: Leading = field(init=False)
    number: int = 0
    attempts: int = 0

    def __post_init__(self) -> None:
        self.leading = self.plane.app.state.leading  # one process, however many rollouts

    @classmethod
    async def begin(cls, plane: Plane, count: int, said: Plan | None = None) -> Rolling:
        """So many devices, each on 1.0.0 by its journal; a rollout of 2.0.0 that is started and looked at once."""
        rolling = cls(plane)
        for _ in range(count):
            await rolling.joins()
        if said is not None:
            rolling.create(said)
            rolling.order(lambda rollout, plan: orders.start(rollout, plan, by="anna"))
            await rolling.tick()
        return rolling

    async def joins(self, *, good: bool = True) -> Device:
        number = len(self.devices)
        device = await self.plane.device(f"{number:032x}", hostname=f"kiosk-{number}").enroll()
        self.devices.append(device)
        if good:
            first = self.plane.release("1.0.0", device.node_id)
            await device.tell("app-update/1", "offered", "succeeded", deployment=first)
        return device

    def define(self, version: str = "2.0.0") -> int:
        images = {"main": f"registry.example/app-{version}@{DIGEST}"}
        new = NewRelease(commit_of(version), version, images, {})
        return self.plane.store.write_now(lambda db: wanted.define_release(db, new, 1))

    def create(self, said: Plan, *, version: str = "2.0.0", by: str = "anna") -> int:
        policy, salt = UpdatePolicy().model_dump_json(), new_id(self.plane.world)
        new = making.NewRollout(said, self.define(version), policy, by, salt, self.now_ms)
        self.number = self.plane.store.write_now(lambda db: making.create(db, new)).number
        return self.number

    def order(self, decide: Any, number: int | None = None) -> story.Story:
        return self.plane.store.write_now(
            lambda db: story.order(db, number or self.number, decide, now_ms=self.now_ms)
        )

    async def tick(self, leading: Leading | None = None) -> None:
        await (leading or self.leading).tick()

    async def wait(self, seconds: float, *, every_s: float = 20.0) -> None:
        """Time passes, the leading process looks; nobody checks in."""
        until = self.plane.world.monotonic() + seconds
        while self.plane.world.monotonic() < until:
            await self.plane.world.sleep(min(every_s, until - self.plane.world.monotonic()))
            await self.tick()

    async def all_beat(self) -> list[dict[str, Any] | None]:
        """Each device checks in once; what each is told to run."""
        return [await self.beat(device) for device in self.devices]

    async def beat(self, device: Device, **changes: Any) -> dict[str, Any] | None:
        """It checks in; what it is told to run."""
        answer = await device.beat(**changes)
        assert answer.status_code == 200, answer.text
        app: dict[str, Any] | None = answer.json()["desired"]["app"]
        return app

    async def ends(self, device: Device, *states: str, reason: str = "") -> None:
        """Its present order goes through these states, by its journal."""
        app = await self.beat(device)
        assert app is not None
        self.attempts += 1
        values = {"deployment": app["deployment"]} | ({"reason": reason} if reason else {})
        batch = len(device.journals.get("core", [])) + 1
        stream = f"app-update/{self.attempts + 1000}"
        for src, dst in zip(("new", *states), states, strict=False):
            device.fact(stream, src, dst, **values)
        answer = await device.ship(device.batch(batch))
        assert answer.status_code == 200, answer.text

    async def succeeds(self, device: Device) -> None:
        await self.ends(device, "offered", "applying", "succeeded")

    async def fails(self, device: Device, reason: str = "it crashed") -> None:
        await self.ends(
            device, "offered", "applying", "rollback-needed", "rolled-back", reason=reason
        )

    def has_it(self, number: int | None = None) -> list[Device]:
        """The devices that were given the order, in the order of the fleet."""
        given = {
            row["node_id"]
            for row in self.plane.store.read_now(
                lambda db: db.execute(
                    "SELECT n.node_id FROM rollout_grant g JOIN node n ON n.id=g.node WHERE g.rollout=?",
                    (number or self.number,),
                ).fetchall()
            )
        }
        return [device for device in self.devices if device.node_id in given]

    def grant(self, device: Device) -> dict[str, Any]:
        number = self.plane.node(device.node_id)["id"]
        return next(
            row
            for row in self.plane.rows("rollout_grant")
            if (row["rollout"], row["node"]) == (self.number, number)
        )

    def phase_of(self, device: Device) -> int | None:
        said = self.story
        return first_phase(said.plan, NodeView(node_id=device.node_id), said.believed.salt)

    @property
    def now_ms(self) -> int:
        return now_ms(self.plane.world)

    @property
    def story(self) -> story.Story:
        """Refolded from the facts, and compared with what the rows say."""
        told = self.plane.store.read_now(lambda db: story.recall(db, self.number))
        row = next(row for row in self.plane.rows("rollout") if row["id"] == self.number)
        assert (row["state"], row["seq"], bytes(row["hash"])) == (
            told.believed.state,
            told.seq,
            told.hash,
        )
        assert bool(row["is_open"]) is not told.believed.is_final
        assert story.first_broken(self.number, self.facts) is None
        return told

    @property
    def believed(self) -> Rollout:
        return self.story.believed

    @property
    def facts(self) -> list[Fact]:
        return self.plane.store.read_now(lambda db: story.facts(db, self.number))

    @property
    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.facts]


def halting(**said: Any) -> HaltPolicy:
    return HaltPolicy(**said)


__all__ = ["ALL", "Decision", "Rolling", "canary_first", "halting", "plan"]
