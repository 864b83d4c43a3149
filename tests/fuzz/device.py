"""A device of a trace: the real agent on a real directory, killed, copied, restored, damaged."""

from __future__ import annotations

import json
import random  # noqa: TID251 - a trace is made from a seed
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from pydantic import SecretStr

from baserunner import agent as agent_module
from baserunner import desk, epochs, orders, retention, updates
from baserunner.agent import Agent, neighbours
from baserunner.anchor import FILE
from baserunner.enrollment import steps as enrollment
from baserunner.settings import Settings
from interfaces.world import new_id
from journal import succession
from journal.facts import Fact
from journal.problems import JournalProblem
from journal.reader import open_reader
from simulators.world import SimWorld
from tests.fuzz.damage import DAMAGES
from tests.fuzz.ledger import End, Ledger, Watched
from tests.fuzz.line import Line
from tests.world.outside import QuietHost

HOST = "d00d" * 8
"""The host's uuid; a clone of the disk has it too."""


class Device:
    def __init__(
        self,
        name: str,
        root: Path,
        line: Line,
        ledger: Ledger,
        tasks: anyio.abc.TaskGroup,
        *,
        join_token: str,
        anchored: bool,
    ) -> None:
        self.name = name
        self.line = line
        self.world = SimWorld(f"{name}-{line.rng.random()}")
        self.token = join_token
        self.runs = False
        self.backup: Path | None = None
        self.anchored: set[End] = set()
        """What the anchor held whenever something befell the disk."""
        self._root = root / name
        self._ledger = ledger
        self._tasks = tasks
        self._disks = 0
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._anchor = self._root / "anchor" if anchored else None
        self._root.mkdir()
        self.data.mkdir()
        if self._anchor:
            self._anchor.mkdir()

    @property
    def data(self) -> Path:
        return self._root / f"data-{self._disks}"

    @property
    def home(self) -> Path:
        return self.data / "baseos"

    def settings(self) -> Settings:
        return Settings(
            cloudly_url="http://cloudly.example",
            data_dir=self.data,
            lock_dir=self._root,
            join_token=SecretStr(self.token),
            supervisor_address=None,
            supervisor_key=None,
            device_uuid=HOST,
            runtime=None,
            heartbeat_min_s=1.0,
            supervisor_poll_s=2.0,
            log_level="INFO",
            anchor_dir=self._anchor,
        )

    # -- power -------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.runs:
            return
        self.runs = True
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._live, self._scope, self._ended)

    async def _live(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                near = neighbours(
                    self.settings(),
                    self.world,
                    cloudly_transport=self.line,
                    host=QuietHost(self.world),
                )
                await Agent(self.settings(), near).run()
        finally:
            ended.set()

    async def stop(self) -> None:
        """SIGTERM: the journal is closed properly."""
        if self.runs:
            self._scope.cancel()
            await self._ended.wait()
            self.runs = False

    async def cut_power(self) -> None:
        """The process is gone at this instant, its files are as they are."""
        if not self.runs:
            return
        self._move_to_a_copy()
        line, self.line.cut = self.line.cut, True
        await self.stop()
        self.line.cut = line
        self._forget_old_disks()

    def reboot(self) -> None:
        self.world.reboot()

    def _look_at_anchor(self) -> None:
        file = self._anchor / FILE if self._anchor else None
        if file and file.exists():
            held = json.loads(file.read_text())
            self.anchored |= {
                (held["epoch"], lane, end["hash"]) for lane, end in held["lanes"].items()
            }

    def _move_to_a_copy(self) -> None:
        self._look_at_anchor()
        before = self.data
        self._ledger.gone.add(self.home)
        self._disks += 1
        shutil.copytree(before, self.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))

    def _forget_old_disks(self) -> None:
        for old in self._root.glob("data-*"):
            if old != self.data:
                shutil.rmtree(old)

    # -- disks -------------------------------------------------------------------------------------

    async def wipe(self, fresh_token: str) -> None:
        """A reflash, with a new join token."""
        await self.cut_power()
        self._look_at_anchor()
        self._ledger.endanger(self.name)
        shutil.rmtree(self.data)
        self.data.mkdir()
        self.token = fresh_token

    async def back_up(self) -> None:
        """A copy of /data of a stopped agent."""
        ran = self.runs
        await self.stop()
        if self.home.exists():
            self.backup = self._root / "backup"
            shutil.rmtree(self.backup, ignore_errors=True)
            shutil.copytree(self.data, self.backup)
        if ran:
            self.start()

    async def restore(self) -> bool:
        if self.backup is None:
            return False
        await self.cut_power()
        self._look_at_anchor()
        self._ledger.endanger(self.name)
        shutil.rmtree(self.data)
        shutil.copytree(self.backup, self.data)
        return True

    def clone_from(self, other: Device) -> None:
        """The disk of another device, as it is at this instant."""
        shutil.rmtree(self.data)
        ignored = shutil.ignore_patterns("*-shm", "*.lock")
        shutil.copytree(other.data, self.data, ignore=ignored)

    async def damage(self, rng: random.Random) -> str:
        """Something happens to the journal's file while the power is off."""
        await self.cut_power()
        if not (self.home / "journal.db").exists():
            return ""
        self._look_at_anchor()
        self._ledger.endanger(self.name)
        how = rng.choice(sorted(DAMAGES))
        return how if DAMAGES[how](self.home, rng) else ""

    # -- people ------------------------------------------------------------------------------------

    def order_reboot(self) -> None:
        """Refused, because no Supervisor is there: two transitions of a machine of its own."""
        if self.runs and (self.home / "orders").exists():
            order = orders.Order(kind=orders.OrderKind.REBOOT, by="fuzz")
            orders.place(self.home, new_id(self.world), order)

    def give_token(self, token: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / orders.TOKEN_FILE).write_text(token)

    def enrollment(self) -> str:
        """Where its latest enrollment stands; empty when that cannot be read."""
        try:
            with open_reader(self.home) as reader:
                infos = reader.streams("enrollment")
                return infos[-1].state if infos else ""
        except (JournalProblem, OSError):
            return ""


TIGHT = replace(retention.LIMITS, max_bytes=60_000, keep_log=40, keep_core=20, step=60)
"""A journal that forgets within a day what a real one keeps for years."""


def hurry_less(patch: pytest.MonkeyPatch, *, tight: bool) -> None:
    """Looks that find nothing cost nearly all the time of a trace."""
    patch.setattr(retention, "LIMITS", TIGHT if tight else retention.LIMITS)
    patch.setattr(desk, "ORDERS_EVERY_S", 30.0)
    patch.setattr(updates, "HOLD_EVERY_S", 600.0)
    patch.setattr(enrollment, "TOKEN_LOOK_S", 60.0)


def watch(patch: pytest.MonkeyPatch, ledger: Ledger, names: dict[str, str]) -> None:
    """From now on every journal that an agent opens is watched; `names`: whose directory is whose."""

    def take(journal: Watched, fact: Fact, soon: bool) -> None:  # noqa: FBT001
        home = journal._reserve._path.parent
        if home not in ledger.gone:
            journal.taker = journal.taker or ledger.of(_owner(home, names))
            journal.taker(journal, fact, soon)

    def begin_epoch(directory: Path, **how: Any) -> Any:
        began = succession.begin_epoch(directory, **how)
        ledger.copied(directory)
        return began

    patch.setattr(Watched, "watch", staticmethod(take))
    patch.setattr(agent_module, "Journal", Watched)
    patch.setattr(epochs, "begin_epoch", begin_epoch)


def _owner(home: Path, names: dict[str, str]) -> str:
    return next((name for part, name in names.items() if part in home.parts), "?")
