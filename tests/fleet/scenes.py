"""The two rollouts of a fleet: one of a good release, which completes, and one of a bad one, which must halt itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from cloudly.rollouts.belief import Rollout
from cloudly.rollouts.dry_run import DryRun
from cloudly.rollouts.evidence import failures_to_halt, sample
from cloudly.rollouts.phases import Phase
from cloudly.rollouts.plan import HaltPolicy, Plan
from tests.fleet.accounts import Accounts, Scene, account
from tests.fleet.cloud import Cloud, commit_of, image_of
from tests.fleet.fates import Fates
from tests.fleet.witness import Fleet, Witness

EVERY_S = 3600.0
"""Between two heartbeats of a device, as Cloudly sets it; a tenth more or less by the agent's own jitter."""
DARK_AFTER_S = 4500
"""Longer than any device rests."""
SOAK_S = 600
"""Each hour of soak is another heartbeat of the whole fleet. It is shorter than `DARK_AFTER_S`: `rollout create` would
warn that who dies in a soak is not seen in it. Here devices die when the release starts, or not at all."""
TOLD_S = 300.0
"""Until what was in flight last has told all of its story."""
LOOK_S = 60.0
MOST_S = 14 * 86_400.0
GOOD, BAD = "1.0.0", "2.0.0"
HALT = HaltPolicy(base_rate=0.005, worst_rate=0.1)
OVER = frozenset({"completed", "halted"})


def good_plan(devices: int) -> Plan:
    """A canary, then everybody: a tenth of the fleet at once."""
    return Plan(
        phases=(
            Phase(name="canary", share_bp=100, soak_s=SOAK_S),
            Phase(name="all", share_bp=10_000, soak_s=SOAK_S),
        ),
        concurrency=max(50, devices // 10),
        dark_after_s=DARK_AFTER_S,
        halt=HALT,
    )


def bad_plan() -> Plan:
    """The careful one, with few in flight: that is what bounds the damage."""
    sizes = (("canary", 100), ("tenth", 1000), ("half", 5000), ("all", 10_000))
    return Plan(
        phases=tuple(Phase(name=name, share_bp=size, soak_s=SOAK_S) for name, size in sizes),
        concurrency=50,
        dark_after_s=DARK_AFTER_S,
        halt=HALT,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """`rate`: of the devices on which the bad release goes wrong; `base_rate`: the good one."""

    devices: int
    seed: int | str
    rate: float
    base_rate: float = HALT.base_rate


@dataclass
class Played:
    """What came of one rollout."""

    version: str
    told: DryRun
    """What the dry run said before it."""
    ended: Rollout
    """With the counters as they were when it was over."""
    admitted_after: int
    """Orders given after it was over."""
    accounts: Accounts
    hours: float

    @property
    def failures(self) -> int:
        """When it was over."""
        return sample(self.ended.counts, HALT).failures

    @property
    def foretold(self) -> int | None:
        """How many failures halt it in the phase in which it was over, by the dry run."""
        return self.told.phases[self.ended.phase].failures_to_halt

    @property
    def needed(self) -> int:
        """How many failures were enough, given who had succeeded and who was in flight when it was over."""
        counts = self.ended.counts
        return failures_to_halt(counts.succeeded, HALT, in_flight=counts.in_flight)


@dataclass
class Story:
    """A fleet and its Cloudly; `say` is told how far it is."""

    asked: Asked
    cloud: Cloud
    fleet: Fleet
    say: Callable[[str], None]
    look: Look
    """Shown each rollout that has ended, while the fleet still lives."""
    played: list[Played] = field(default_factory=list)
    wakes: int = 0
    """How often an agent was started."""

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.cloud.recurring.run)
            self.fleet.start(tasks, within_s=EVERY_S)
            await self._everybody_is_there()
            await self._roll_out(GOOD, good_plan(self.asked.devices))
            await self._roll_out(BAD, bad_plan())
            tasks.cancel_scope.cancel()

    async def _everybody_is_there(self) -> None:
        await self._sleep(EVERY_S + 60)
        self.say(f"{len(self.cloud.nodes())} nodes enrolled")

    async def _roll_out(self, version: str, plan: Plan) -> None:
        cloud, began_s = self.cloud, anyio.current_time()
        before = await self.fleet.witnesses()
        rollout = cloud.create(plan, cloud.release(version))
        scene = Scene(
            rollout,
            commit_of(version),
            image_of(version),
            {device.uuid: device.running for device in before},
            frozenset(device.uuid for device in before if device.dead),
        )
        told = cloud.dry_run(rollout)
        cloud.start(rollout)
        self.say(f"rollout {rollout} of {version} is started")
        ended = await self._until_over(rollout)
        hours = (anyio.current_time() - began_s) / 3600
        self.say(
            f"it is {ended.state} after {hours:.1f} h: {ended.reason or 'everybody was asked'}"
        )
        # After a halt each device checks in at least once more: to be left alone, or to be turned back.
        rest_s = 1.2 * EVERY_S if ended.state == "halted" else 0.0
        admitted_after = await self._until_settled(rollout, rest_s=rest_s) - ended.granted
        after = await self.fleet.witnesses()
        accounts = account(cloud, after, scene, self.asked.devices)
        self.wakes = sum(device.wakes for device in after)
        self.look(self, scene, after)
        self.played.append(Played(version, told, ended, admitted_after, accounts, hours))

    async def _until_over(self, rollout: int) -> Rollout:
        until_s, state = anyio.current_time() + MOST_S, ""
        while True:
            live = self.cloud.live(rollout)
            if live.state in OVER or anyio.current_time() > until_s:
                return live
            if state != (state := f"{live.state}, phase {live.phase + 1}"):
                self.say(f"{state}: {live.granted} orders, {live.counts.bad} failed")
            await self._sleep(LOOK_S)

    async def _until_settled(self, rollout: int, *, rest_s: float) -> int:
        """For so long, until nobody is in flight, nor on its way back. How many orders were given in all."""
        await self._sleep(rest_s)
        while self.cloud.live(rollout).in_flight:
            await self._sleep(LOOK_S)
        until_s = anyio.current_time() + 2 * EVERY_S
        while rest_s and self.cloud.going_back(rollout) and anyio.current_time() < until_s:
            await self._sleep(LOOK_S)
        await self._sleep(TOLD_S)
        return self.cloud.live(rollout).granted

    async def _sleep(self, seconds: float) -> None:
        await self.cloud.world.sleep(seconds)


Look = Callable[[Story, Scene, list[Witness]], None]


def fates(asked: Asked) -> Fates:
    rates = {commit_of(GOOD): asked.base_rate, commit_of(BAD): asked.rate}
    return Fates(asked.seed, rates)
