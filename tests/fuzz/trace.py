"""One trace: a node, its Cloudly and what befalls them, all from one seed, under virtual time."""

from __future__ import annotations

import importlib.util
import random  # noqa: TID251 - a trace is made from a seed
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from simulators.world import run_virtual
from tests.fuzz.cloud import Cloud
from tests.fuzz.device import Device, hurry_less, watch
from tests.fuzz.judge import Verdict, drained, judge
from tests.fuzz.ledger import Ledger
from tests.fuzz.line import Line

TIGHT_SHARE = 0.06
HEAL_S = 4 * 3600.0
LOOK_S = 300.0


@dataclass
class Trace:
    seed: int
    story: list[str] = field(default_factory=list)
    befell: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)


class World:
    def __init__(
        self, trace: Trace, root: Path, tasks: anyio.abc.TaskGroup, patch: pytest.MonkeyPatch
    ) -> None:
        self.trace = trace
        self.rng = random.Random(trace.seed)  # noqa: S311 - a trace is made from a seed
        self.cloud = Cloud(root, trace.seed)
        self.ledger = Ledger()
        self._root = root
        self._tasks = tasks
        self.tight = self.rng.random() < TIGHT_SHARE
        hurry_less(patch, tight=self.tight)
        if importlib.util.find_spec("sniffio") is None:  # httpx looks for it at each request
            patch.setitem(sys.modules, "sniffio", None)
        watch(patch, self.ledger, {"first": "first", "clone": "clone"})
        anchored = self.rng.random() < 0.5
        self.first = self._device("first", anchored=anchored)
        self.clone: Device | None = None
        self.trace.befell["anchored" if anchored else "not anchored"] += 1

    def _device(self, name: str, *, anchored: bool) -> Device:
        line = Line(self.cloud.transport, self.cloud.told, self.rng)
        self.cloud.lines.append(line)
        token = self.cloud.new_join_token()
        return Device(
            name, self._root, line, self.ledger, self._tasks, join_token=token, anchored=anchored
        )

    @property
    def devices(self) -> list[Device]:
        return [self.first, *([self.clone] if self.clone else [])]

    def say(self, what: str) -> None:
        self.trace.story.append(f"{anyio.current_time():9.0f} s  {what}")

    def befell(self, what: str) -> None:
        self.trace.befell[what] += 1
        self.say(what)

    async def run(self) -> None:
        self.first.start()
        self.befell("tight disk" if self.tight else "roomy disk")
        rests: tuple[int, ...] = (1, 20, 70, 400, 1500)
        if self.tight:  # long without a line, so that it has to drop what Cloudly never had
            await anyio.sleep(200)  # noqa: TID251 - virtual
            self.first.line.cut = True
            rests = (1, 400, 8_000)
        for _ in range(self.rng.randint(3, 9)):
            await anyio.sleep(self.rng.choice(rests))  # noqa: TID251 - virtual
            act = self.rng.choices(list(ACTS), [weight for _, weight in ACTS.values()])[0]
            before = len(self.trace.story)
            await ACTS[act][0](self)
            if len(self.trace.story) == before:
                self.befell(act)
        await self._heal()
        self.trace.verdict = judge(self.cloud, self.devices, self.ledger)

    async def _heal(self) -> None:
        """The weather is good, the power is on, people do what the pages ask them to do."""
        self.say("all is well from here")
        if self.clone is not None:  # a clone is switched off by who finds out; its disk stays
            await self.clone.stop()
        line = self.first.line
        line.badness, line.cut = 0.0, False
        self.first.start()
        until = anyio.current_time() + HEAL_S
        while anyio.current_time() < until:
            await anyio.sleep(LOOK_S)  # noqa: TID251 - virtual
            if self.first.enrollment() in {"refused", "awaiting-token"}:
                self.say("a fresh join token is given")
                self.first.give_token(self.cloud.new_join_token())
            elif drained(self.first):
                break
        await self.first.stop()


async def _cut_the_line(world: World) -> None:
    world.first.line.cut = not world.first.line.cut


async def _bad_weather(world: World) -> None:
    for device in world.devices:
        device.line.badness = world.rng.choice((0.0, 0.2, 0.6))


async def _power_cut(world: World) -> None:
    await world.first.cut_power()
    if world.rng.random() < 0.5:
        world.first.reboot()
    world.first.start()


async def _stop_and_start(world: World) -> None:
    await world.first.stop()
    world.first.start()


async def _orders(world: World) -> None:
    world.first.order_reboot()


async def _jump(world: World) -> None:
    world.first.world.jump(timedelta(days=world.rng.choice((-20_000, -3, 1, 4_000))))


async def _reflash(world: World) -> None:
    await world.first.wipe(world.cloud.new_join_token())
    world.first.start()


async def _back_up_data(world: World) -> None:
    await world.first.back_up()


async def _restore_data(world: World) -> None:
    if not await world.first.restore():
        world.say("restore-data (there is no backup)")
    world.first.start()


async def _back_up_cloudly(world: World) -> None:
    world.cloud.back_up()


async def _restore_cloudly(world: World) -> None:
    if not world.cloud.restore():
        world.say("restore-cloudly (there is no backup)")


async def _clone(world: World) -> None:
    if world.clone is not None or not world.first.home.exists():
        world.say("clone (there is one, or nothing to copy)")
        return
    world.clone = world._device("clone", anchored=False)
    world.clone.clone_from(world.first)
    world.clone.start()


async def _damage(world: World) -> None:
    how = await world.first.damage(world.rng)
    world.befell(f"damage: {how or 'none'}")
    world.first.start()


Act = Callable[[World], Awaitable[None]]
# fmt: off
ACTS: dict[str, tuple[Act, int]] = {
    "cut-the-line":     (_cut_the_line,    4),
    "bad-weather":      (_bad_weather,     4),
    "power-cut":        (_power_cut,       5),
    "stop-and-start":   (_stop_and_start,  2),
    "orders":           (_orders,          6),
    "clock-jumps":      (_jump,            2),
    "reflash":          (_reflash,         1),
    "back-up-data":     (_back_up_data,    3),
    "restore-data":     (_restore_data,    2),
    "back-up-cloudly":  (_back_up_cloudly, 3),
    "restore-cloudly":  (_restore_cloudly, 2),
    "clone":            (_clone,           1),
    "damage":           (_damage,          2),
}
# fmt: on


def run_trace(seed: int, *, keep: bool = False) -> Trace:
    trace = Trace(seed)
    root = Path(tempfile.mkdtemp(prefix=f"trace-{seed}-", dir=_ram()))

    async def story() -> None:
        async with anyio.create_task_group() as tasks:
            world = World(trace, root, tasks, patch)
            await world.run()
            world.cloud.store.close()
            tasks.cancel_scope.cancel()

    with pytest.MonkeyPatch.context() as patch:
        try:
            run_virtual(story)
        finally:
            if not keep:
                shutil.rmtree(root)
    return trace


def _ram() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a trace is short
