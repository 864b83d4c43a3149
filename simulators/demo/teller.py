"""Telling the story: follows `baserunner journal tail` and prints what happened, for people."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
from rich.console import Console
from rich.markup import escape

from simulators.demo.stage import Stage, StageFailure

Told = dict[str, Any]
QUIET = frozenset({"heartbeat-sent", "heartbeat-answered"})
GOOD = frozenset({"enrolled", "succeeded", "rolled-back", "staged"})
BAD = frozenset({"rollback-needed", "failed", "refused", "rejected"})
BAR = 24


class Teller:
    """Prints facts as they come, and lets the script wait for one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.facts: list[Told] = []
        self._began = stage.world.monotonic()
        self._beats = 0
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str, *, style: str = "bold") -> None:
        """A line of the script's own."""
        self._console.print(f"[{style}]{self._clock()}  {escape(text)}[/{style}]")

    async def follow(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Read the journal as an engineer would, until cancelled."""
        journal = self.stage.directory / "data" / "baseos" / "journal.db"
        while not journal.exists():
            self.stage.check_alive()
            await self.stage.world.sleep(0.1)
        task_status.started()
        command = [
            sys.executable,
            "-m",
            "baserunner",
            "journal",
            "tail",
            "-f",
            "-n",
            "1000",
            "--json",
        ]
        while True:
            # A reader that started in the very moment of creation may find no tables yet: then it is asked again.
            await self._follow_once(command)
            await self.stage.world.sleep(0.2)

    async def _follow_once(self, command: list[str]) -> None:
        environment = {**os.environ, **self.stage.agent_environment, "PYTHONUNBUFFERED": "1"}
        async with await anyio.open_process(command, env=environment, stderr=None) as tail:
            assert tail.stdout is not None  # noqa: S101 - a pipe by default
            try:
                buffer = b""
                async for chunk in tail.stdout:
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in lines:
                        self._heard(json.loads(line))
            finally:
                if tail.returncode is None:
                    tail.send_signal(signal.SIGKILL)

    async def wait_for(self, what: str, match: Callable[[Told], bool], within_s: float) -> Told:
        """The first fact that matches, told already or to come. Raises StageFailure."""
        deadline = self.stage.world.monotonic() + within_s
        looked = 0
        while self.stage.world.monotonic() < deadline:
            for fact in self.facts[looked:]:
                if match(fact):
                    return fact
            looked = len(self.facts)
            self.stage.check_alive()
            await self.stage.world.sleep(0.05)
        raise StageFailure(f"the story did not get to {what} within {within_s:g} s")

    def _heard(self, fact: Told) -> None:
        if self.facts and fact["n"] <= self.facts[-1]["n"]:
            return
        self.facts.append(fact)
        if fact["kind"] in QUIET:
            self._beats += 1
            if self._beats > 2:
                return
        self._console.print(f"{self._clock()}  {self._line(fact)}")

    def _line(self, fact: Told) -> str:
        stream = f"[dim]{fact['stream']:<14}[/dim]"
        if fact["kind"] == "progressed":
            percent = int(fact["data"]["percent"])
            full = round(percent * BAR / 100)
            return (
                f"{stream} [cyan]{'━' * full}[/cyan][dim]{'━' * (BAR - full)}[/dim] {percent:>3} %"
            )
        colour = "green" if fact["dst"] in GOOD else "red" if fact["dst"] in BAD else "yellow"
        return f"{stream} [{colour}]{fact['dst']:<16}[/{colour}] {escape(fact['said'])}"

    def _clock(self) -> str:
        return f"{self.stage.world.monotonic() - self._began:6.1f} s"
