"""Whatever happens in whatever order: no update is applied under a live lease, and none waits for a dead one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from baserunner.app_update.machine import NO_NEW_LOCK
from baserunner.locks import leases as module
from baserunner.locks.leases import Leases
from baserunner.problems import LeaseRefused
from interfaces.local import Acquire, Held, LockState, Release, Renew
from interfaces.world import new_id
from simulators.world import VirtualLoop
from tests.world.alone import Alone, a_device_alone

T = TypeVar("T")
SHORT = settings(
    max_examples=25,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
BLINK_S = 0.01
"""Stamps are in milliseconds."""
GOES_ON_WITHIN_S = 120.0
"""An update that nothing stands in the way of any more is applied, and proved, in less."""


@dataclass
class Believed:
    """What a neighbour may count on, by a clock that neither stops nor jumps: the test's own."""

    held: Held
    ttl_s: float
    live_until: float
    """Until then it must be live,"""
    dead_from: float
    """and from then on it must not."""
    boots: int = 0
    awaits_start: bool = False
    """The host went down: its rest counts from the agent's next start."""
    rest_s: float = 0.0


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.loop = VirtualLoop()
        self.wrong: list[str] = []
        self.believed: list[Believed] = []
        self.applies = 0
        self._over = asyncio.Event()
        ready: asyncio.Future[Alone] = self.loop.create_future()
        self._story = self.loop.create_task(self._play(ready))
        self.device = self.loop.run_until_complete(ready)
        self.device.points = self._watch

    async def _play(self, ready: asyncio.Future[Alone]) -> None:
        async with a_device_alone(Path(self.directory.name)) as device:
            await device.world.sleep(1)
            ready.set_result(device)
            await self._over.wait()

    def now(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def _watch(self, point: str) -> None:
        """In the agent's own commits."""
        if point not in {"before-commit:apply-requested", "before-commit:rollback-requested"}:
            return
        self.applies += 1
        at = self.loop.time()
        for one in self.believed:
            if at < one.live_until - BLINK_S:
                left_s = one.live_until - at
                self.wrong.append(f"{point} while {one.held.lock.owner} had {left_s:.3f} s left")

    # -- a neighbour -----------------------------------------------------------------------------

    running = precondition(lambda self: self.device.runs)
    holding = precondition(lambda self: self.device.runs and self.believed)
    which = st.integers(min_value=0, max_value=50)
    ttls = st.sampled_from([5.0, 30.0, 61.0, 300.0, 900.0])

    @running
    @rule(ttl_s=ttls)
    def acquire(self, ttl_s: float) -> None:
        self.now(self._acquire(ttl_s))

    async def _acquire(self, ttl_s: float) -> None:
        device = self.device
        ask = Acquire(
            owner=f"app-{len(self.believed)}",
            reason="a backup",
            ttl_s=ttl_s,
            request_id=new_id(device.world),
        )
        try:
            held = device.leases.acquire(ask)
        except LeaseRefused as refused:
            allowed = {"locked-out": device.update()[1] in NO_NEW_LOCK, "busy": True}
            if not allowed.get(refused.code):
                self.wrong.append(f"acquire was refused in {device.update()}: {refused}")
            return
        if device.update()[1] in NO_NEW_LOCK:
            self.wrong.append(f"acquired while {device.update()}")
        if device.leases.acquire(ask).key != held.key:
            self.wrong.append("the same request was told another key")
        ends = self.loop.time() + ttl_s
        self.believed.append(Believed(held, ttl_s, ends, ends + BLINK_S))

    @holding
    @rule(which=which, ttl_s=ttls)
    def renew(self, which: int, ttl_s: float) -> None:
        self.now(self._renew(self.believed[which % len(self.believed)], ttl_s))

    async def _renew(self, one: Believed, ttl_s: float) -> None:
        at = self.loop.time()
        try:
            lock = self.device.leases.renew(
                one.held.lock.lock, Renew(key=one.held.key, ttl_s=ttl_s)
            )
        except LeaseRefused as refused:
            if at < one.live_until - BLINK_S:
                self.wrong.append(f"a live lease was lost: {refused}")
            return
        if at > one.dead_from:
            self.wrong.append("a dead lease was renewed")
        one.live_until, one.boots, one.ttl_s = at + lock.left_s, 0, ttl_s
        one.dead_from = one.live_until + BLINK_S
        if abs(lock.left_s - ttl_s) > 1 + BLINK_S:
            self.wrong.append(f"renewed for {ttl_s} s, and {lock.left_s} s are left")

    @holding
    @rule(which=which, by_operator=st.booleans())
    def end(self, which: int, by_operator: bool) -> None:  # noqa: FBT001
        self.now(self._end(self.believed[which % len(self.believed)], by_operator=by_operator))

    async def _end(self, one: Believed, *, by_operator: bool) -> None:
        lock = one.held.lock.lock
        try:
            if by_operator:
                self.device.leases.break_(lock, by="uid 0", reason="urgent")
            elif (
                self.device.leases.release(lock, Release(key=one.held.key)).state is LockState.HELD
            ):
                self.wrong.append("released, and still held")
        except LeaseRefused as refused:
            if self.loop.time() < one.live_until - BLINK_S:
                self.wrong.append(f"a live lease could not be ended: {refused}")
        one.live_until = one.dead_from = self.loop.time()

    # -- the world -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now(self.device.world.sleep(seconds))

    @rule(days=st.sampled_from([-20_000, -0.01, 0.01, 20_000]))
    def the_wall_clock_jumps(self, days: float) -> None:
        self.device.world.jump(timedelta(days=days))

    @running
    @rule()
    def an_update_is_offered(self) -> None:
        self.now(self._offer())

    async def _offer(self) -> None:
        self.device.offer()

    @running
    @rule(ttl_s=ttls, seconds=st.sampled_from([0.0, 1.0, 20.0]))
    def an_update_is_offered_under_a_lease(self, ttl_s: float, seconds: float) -> None:
        self.now(self._acquire(ttl_s))
        self.now(self._offer())
        self.time_passes(seconds)

    @rule(answers=st.sampled_from([True, True, False]))
    def the_supervisor_answers_or_does_not(self, answers: bool) -> None:  # noqa: FBT001
        self.device.to_supervisor.plugged = answers

    @running
    @rule(properly=st.booleans(), dark_s=st.sampled_from([0.0, 10.0, 400.0]))
    def the_agent_restarts(self, properly: bool, dark_s: float) -> None:  # noqa: FBT001
        self.now(self._restart(dark_s, properly=properly))

    async def _restart(self, dark_s: float, *, properly: bool) -> None:
        await (self.device.stop_agent() if properly else self.device.crash_agent())
        await self.device.world.sleep(dark_s)
        self._start()

    @running
    @rule(dark_s=st.sampled_from([0.0, 45.0]))
    def the_host_reboots(self, dark_s: float) -> None:
        self.now(self._reboot(dark_s))

    async def _reboot(self, dark_s: float) -> None:
        went_down = self.loop.time()
        await self.device.reboot_host()
        for one in self.believed:
            one.boots += 1
            one.awaits_start = one.dead_from > went_down
            may_stay = one.boots <= module.MOST_BOOTS
            # It takes a moment to go down.
            one.rest_s = max(0.0, one.live_until - went_down - 1) if may_stay else 0.0
        await self.device.world.sleep(dark_s)
        self._start()

    def _start(self) -> None:
        self.device.start_agent()
        at = self.loop.time()
        for one in self.believed:
            if one.awaits_start:
                one.awaits_start = False
                one.live_until = at + one.rest_s
                one.dead_from = at + one.ttl_s + BLINK_S

    # -- what is always so -----------------------------------------------------------------------

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert not self.wrong, self.wrong
        assert not self._story.done(), self._story

    def teardown(self) -> None:
        try:
            if not self.wrong and not self._story.done():
                self.now(self._nobody_holds_it_up())
                assert not self.wrong, self.wrong
        finally:
            self._over.set()
            self.now(asyncio.wait_for(asyncio.shield(self._story), 60))
            self.loop.close()
            self.directory.cleanup()

    async def _nobody_holds_it_up(self) -> None:
        """Once no lease is live, what is staged goes on by itself."""
        device = self.device
        device.to_supervisor.plugged = True
        last = max((one.dead_from for one in self.believed), default=0.0)
        await device.world.sleep(max(0.0, last - self.loop.time()) + 5)
        await device.world.sleep(GOES_ON_WITHIN_S)
        if device.leases.held():
            self.wrong.append(f"held by nobody: {device.leases.held()}")
        name, state = device.update()
        if state == "staged":
            self.wrong.append(f"{name} is staged, and no lease is live: {device.leases.why_not()}")
        if state and not device.journal.streams("app-update", newest=1)[0].ended:
            await device.world.sleep(3600)
            if not device.journal.streams("app-update", newest=1)[0].ended:
                self.wrong.append(f"{device.update()} has not come to its end")


def test_no_update_is_applied_under_a_live_lease_and_none_waits_for_a_dead_one() -> None:
    run_machine(AnyOrder, settings=SHORT)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ("the gate", "before-commit:apply-requested while app-"),
        ("the end of dead leases", "held by nobody|dead lease was renewed|no lease is live"),
        (
            "restarts forget",
            "a live lease was lost|before-commit:apply-requested while|a live lease could",
        ),
    ],
)
def test_what_is_broken_on_purpose_is_found(
    broken: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match broken:
        case "the gate":
            monkeypatch.setattr(Leases, "why_not", lambda _: "")
        case "the end of dead leases":
            monkeypatch.setattr(Leases, "_left_s", lambda _, lease: lease.lasts_s)
        case _:
            monkeypatch.setattr(module, "open_leases", lambda _: ([], []))

    with pytest.raises(AssertionError, match=found):
        run_machine(AnyOrder, settings=settings(SHORT, phases=[Phase.generate]))
