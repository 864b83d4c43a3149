"""The loop that drives one attempt of one machine to its end.

A step acts on the world and returns the one fact that happened, or says when to look again. The loop records the fact
(legal, written, believed) and goes on with the next state's step. After a restart the same loop goes on from the
recalled state: waking up is reading.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio

from baserunner.logs import Changes
from baserunner.problems import LockProblem, NeighbourProblem
from interfaces.world import World
from journal.recall import Stream

S = TypeVar("S")
log = logging.getLogger(__name__)

HELD_UP_S = 30.0
"""How long a fact that may not be written yet is left alone; who held it up wakes us when that is over."""
LEAST_WAIT_S = 0.001
"""Stamps are in milliseconds: a shorter rest is rounding, and waiting for it would be a loop that never rests."""


@dataclass(frozen=True, slots=True)
class Happened:
    """The one fact a step's act led to. `soon`: may become durable with the next durable fact.

    `unless` says why it may not be written after all; it is asked in the same moment in which the fact is written, with
    nothing awaited between: what it looked at is still so.
    """

    kind: str
    data: Mapping[str, object] = field(default_factory=dict)
    soon: bool = False
    unless: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing to record yet: look again after `seconds`, or when woken."""

    seconds: float
    why: str = ""


Step = Callable[[Stream[S]], Awaitable[Happened | Later]]


class Alarm:
    """A sleep that can be ended early."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; True if rung. A ring before the wait counts."""
        with anyio.move_on_after(seconds):
            await self._rung.wait()
        rung = self._rung.is_set()
        self._rung = anyio.Event()
        return rung


async def _nothing_before(_stream: Stream[Any], _outcome: Happened) -> None:
    """Facts come without notes."""


@dataclass(frozen=True, slots=True)
class Driver:
    """What driving needs beside the steps."""

    world: World
    retry_s: float
    """How soon to look again when a neighbour did not answer."""
    recorded: Callable[[Stream[Any]], None] = lambda _: None
    """Told after each fact that was written."""
    before: Callable[[Stream[Any], Happened], Awaitable[None]] = _nothing_before
    """Awaited before each fact is written: for notes that belong with it, so that one sync makes both durable."""
    points: Callable[[str], None] = lambda _: None
    """Told after each step, before its fact is written: where a harness kills."""

    async def drive(
        self,
        stream: Stream[S],
        steps: Mapping[str, Step[S]],
        alarm: Alarm,
        *,
        stop_in: frozenset[str] = frozenset(),
    ) -> None:
        """Go on until the attempt has ended, or enters a state of `stop_in`.

        Raises JournalProblem when a fact cannot be written. A problem that stays the same is logged once.
        """
        trouble, waiting = Changes(), Changes()
        while not stream.ended:
            outcome = await self._step(stream, steps[stream.state], trouble, waiting)
            self.points(f"after-step:{stream.name.partition('/')[0]}:{stream.state}")
            if isinstance(outcome, Happened):
                why_not = await self._record(stream, outcome)
                if not why_not:
                    if stream.state in stop_in:
                        return
                    continue
                outcome = Later(HELD_UP_S, why_not)
                self._tell(stream, outcome, waiting)
            await alarm.wait(max(outcome.seconds, LEAST_WAIT_S))

    async def advance(self, stream: Stream[S], steps: Mapping[str, Step[S]]) -> None:
        """Go on as far as it goes now: until the attempt has ended, has to wait, or has no step for its state.

        Raises JournalProblem when a fact cannot be written.
        """
        trouble, waiting = Changes(), Changes()
        while not stream.ended and stream.state in steps:
            outcome = await self._step(stream, steps[stream.state], trouble, waiting)
            self.points(f"after-step:{stream.name.partition('/')[0]}:{stream.state}")
            if not isinstance(outcome, Happened) or await self._record(stream, outcome):
                return

    async def _record(self, stream: Stream[S], outcome: Happened) -> str:
        """Why it was not written; empty: it was."""
        await self.before(stream, outcome)
        if why_not := outcome.unless():
            return why_not
        fact = stream.record(outcome.kind, outcome.data, soon=outcome.soon)
        log.info("%s %s: %s -> %s", stream.name, fact.kind, fact.src, fact.dst)
        self.recorded(stream)
        return ""

    async def _step(
        self, stream: Stream[S], step: Step[S], trouble: Changes, waiting: Changes
    ) -> Happened | Later:
        try:
            outcome = await step(stream)
        except (NeighbourProblem, LockProblem) as problem:
            trouble.tell(logging.WARNING, log, f"{stream.name} waits in {stream.state}: {problem}")
            return Later(self.retry_s, str(problem))
        trouble.tell(logging.INFO, log, "")
        if isinstance(outcome, Later) and outcome.why:
            self._tell(stream, outcome, waiting)
        return outcome

    def _tell(self, stream: Stream[S], outcome: Later, waiting: Changes) -> None:
        waiting.tell(logging.INFO, log, f"{stream.name} waits in {stream.state}: {outcome.why}")


def elapsed_s(stream: Stream[S], world: World, run_started: float) -> float:
    """Seconds that this run has seen the stream in its state, by the monotonic clock.

    Time in the dark, before this run began, is not held against it: nobody looked, and nobody tried.
    `run_started`: the monotonic clock at this run's start.
    """
    now = world.monotonic()
    entered = stream.entered
    if entered is not None and entered.boot_id == world.boot_id():
        return now - max(entered.mono_ms / 1000, run_started)
    return now - run_started
