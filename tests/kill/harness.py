"""The kill matrix's machinery: real processes, real sockets, real SIGKILL.

A town (`town.py`) is one process, the agent another; both are forked from one that has imported everything, so that a
kill costs seconds. The agent kills itself at a named point: before a
commit, after it, after a step has acted, or between the lines of writing the identity. It acknowledges each fact to a
file of its own after it was written: what was acknowledged must be there afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from pydantic import SecretStr

from baserunner.agent import Agent, neighbours
from baserunner.settings import Settings
from interfaces.desired import UpdatePolicy
from interfaces.world import RealWorld
from journal.facts import Fact
from journal.journal import Journal
from journal.reader import open_reader
from tests.kill.town import KEY, Story, Town, fork, wait_for

POLL_S = 0.04
POLICY = UpdatePolicy(
    health_soak_s=0.5, health_deadline_s=2, apply_deadline_s=20, download_deadline_s=20
)
STORY: Story = (("1.0.0", None), ("1.1.0", "crash-after-start"))
ENDS = {"app-update/1": "succeeded", "app-update/2": "rolled-back"}
PATIENCE_S = 30.0

Plant = Callable[[], None]
"""Breaks one promise in the agent's process: a harness that stays green with it is worth nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cell of the matrix showed."""

    point: str
    fired: bool
    """Whether the kill happened."""
    ends: dict[str, str]
    """Where each attempt stands at the end."""
    lost: list[str]
    """Facts that were acknowledged and are not there."""
    told: dict[str, int]
    """How often the Supervisor was told, by kind of request."""
    facts: int
    error: str = ""

    points: tuple[str, ...] = ()
    """Every point that was passed, in order."""

    def wrong(self, undisturbed: Outcome) -> list[str]:
        """What is not as promised, in words; empty: all is well."""
        found = []
        if not self.fired:
            found.append("the kill did not fire")
        if self.ends != ENDS:
            found.append(f"it ended as {self.ends}")
        if self.lost:
            found.append(f"{len(self.lost)} acknowledged facts were lost")
        for what, times in self.told.items():
            if times > undisturbed.told[what] + 1:
                found.append(f"told to {what} {times} times")
        if self.error:
            found.append(self.error)
        return [f"{self.point}: {what}" for what in found]


@dataclass
class Cell:
    """One town, one device, one kill."""

    root: Path
    plant: Plant | None = None
    patience_s: float = PATIENCE_S
    too_early: bool = False
    """Planted: facts are acknowledged before they are committed."""

    def __post_init__(self) -> None:
        self.town = Town(self.root, STORY, POLICY)

    def run(self, point: str, nth: int = 1) -> Outcome:
        """The whole story, with a SIGKILL the `nth` time that `point` is passed; then to the end."""
        self.town.start()
        (self.root / "data").mkdir()
        try:
            first = wait_for(fork(lambda: self._agent(point, nth)))
            second = wait_for(fork(lambda: self._agent(None, 0)))
        finally:
            self.town.stop()
        return self._judge(point, first, second)

    # -- the agent: its own process --------------------------------------------------------------

    def _agent(self, point: str | None, nth: int) -> None:
        left = nth

        def kill_here(name: str) -> None:
            nonlocal left
            with (self.root / "points").open("a") as passed:
                passed.write(name + "\n")
            left -= name == point
            if name == point and left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        _acknowledge_to(self.root / "acknowledged", too_early=self.too_early)
        if self.plant is not None:
            self.plant()
        anyio.run(self._live, kill_here)

    async def _live(self, points: Callable[[str], None]) -> None:
        world = RealWorld()
        settings = Settings(
            cloudly_url=self.town.urls[0],
            data_dir=self.root / "data",
            lock_dir=self.town.locks,
            join_token=SecretStr(self.town.token),
            supervisor_address=self.town.urls[1],
            supervisor_key=SecretStr(KEY),
            device_uuid=self.town.uuid,
            runtime="baseos",
            heartbeat_min_s=0.01,
            supervisor_poll_s=POLL_S,
            log_level="DEBUG",
        )
        agent = Agent(settings, neighbours(settings, world, points=points))
        with anyio.move_on_after(self.patience_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(agent.run)
                while self._ends() != ENDS:
                    await world.sleep(0.05)
                tasks.cancel_scope.cancel()

    # -- the judgement ---------------------------------------------------------------------------

    def _judge(self, point: str, first: int, second: int) -> Outcome:
        acknowledged = (self.root / "acknowledged").read_text().splitlines()
        with open_reader(self.root / "data" / "baseos") as reader:
            there = {f"{fact.lane} {fact.seq} {fact.hash.hex()}" for fact in reader.facts()}
        return Outcome(
            point=point,
            fired=os.WIFSIGNALED(first) and os.WTERMSIG(first) == signal.SIGKILL,
            ends=self._ends(),
            lost=[fact for fact in acknowledged if fact not in there],
            told=self.town.told(),
            facts=len(there),
            points=tuple((self.root / "points").read_text().splitlines()),
            error=""
            if os.WIFEXITED(second) and os.WEXITSTATUS(second) == 0
            else f"status {second}",
        )

    def _ends(self) -> dict[str, str]:
        home = self.root / "data" / "baseos"
        if not (home / "journal.db").exists():
            return {}
        with open_reader(home) as reader:
            return {info.name: info.state for info in reader.streams("app-update")}


def _acknowledge_to(path: Path, *, too_early: bool) -> None:
    """From now on every fact is acknowledged to that file: after it was written; or, planted, before."""
    write = Journal.write
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(fact: Fact) -> None:
        os.write(descriptor, f"{fact.lane} {fact.seq} {fact.hash.hex()}\n".encode())

    def written(self: Journal, fact: Fact, **options: bool) -> None:
        if too_early:
            acknowledge(fact)
        write(self, fact, **options)
        if not too_early:
            acknowledge(fact)

    Journal.write = written  # type: ignore[method-assign]
