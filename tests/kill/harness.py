"""The kill matrix's machinery: real processes, real sockets, real SIGKILL.

A *town* (Cloudly and a Supervisor, at many times their real speed) is one process, the agent another; both are forked
from one that has imported everything, so that a kill costs seconds. The agent kills itself at a named point: before a
commit, after it, after a step has acted, or between the lines of writing the identity. It acknowledges each fact to a
file of its own after it was written: what was acknowledged must be there afterwards.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from pydantic import SecretStr

from baserunner.agent import Agent, neighbours
from baserunner.settings import Settings
from cloudly.app import create_app
from cloudly.settings import Settings as CloudlySettings
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.store import Store
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import RealWorld, new_id, now_ms
from journal.facts import Fact
from journal.journal import Journal
from journal.reader import open_reader
from simulators.supervisor import (
    BEHAVIOUR_LABEL,
    BackendSetup,
    BackendTargets,
    Setup,
    Supervisor,
    Timings,
    one_directory,
)
from tests.world.kit import commit_of, image_of

SPEED = 20.0
POLL_S = 0.04
POLICY = UpdatePolicy(
    health_soak_s=0.5, health_deadline_s=2, apply_deadline_s=20, download_deadline_s=20
)
STORY = (("1.0.0", None), ("1.1.0", "crash-after-start"))
"""Version and behaviour of each release that the operator sets, one after the other."""
ENDS = {"app-update/1": "succeeded", "app-update/2": "rolled-back"}
KEY = "supervisorcanary0123456789abcdef"
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
    urls: tuple[str, ...] = ()
    _ready: int = -1
    uuid: str = field(default_factory=lambda: new_id(RealWorld()))

    def run(self, point: str, nth: int = 1) -> Outcome:
        """The whole story, with a SIGKILL the `nth` time that `point` is passed; then to the end."""
        (self.root / "locks").mkdir(parents=True)
        (self.root / "data").mkdir()
        page, device = _listener(), _listener()
        ready, self._ready = os.pipe()
        self.urls = tuple(f"http://127.0.0.1:{s.getsockname()[1]}" for s in (page, device))
        town = _fork(lambda: anyio.run(self._town, page, device))
        page.close()
        device.close()
        try:
            assert select.select([ready], [], [], 20)[0], "the town did not come up"
            first = _wait(_fork(lambda: self._agent(point, nth)))
            second = _wait(_fork(lambda: self._agent(None, 0)))
        finally:
            os.close(ready)
            os.close(self._ready)
            os.kill(town, signal.SIGTERM)
            _wait(town)
        return self._judge(point, first, second)

    # -- the town: its own process ---------------------------------------------------------------

    async def _town(self, page: socket.socket, device: socket.socket) -> None:
        world = RealWorld()
        store = Store.open(self.root / "cloudly", world)
        app = create_app(
            store, world, CloudlySettings(data_dir=self.root / "cloudly", heartbeat_every_s=0.2)
        )
        token = NewToken(new_join_token(world), "kill", 1, now_ms(world), None)
        store.write_now(lambda db: create_token(db, token))
        (self.root / "token").write_text(token.token)
        source = BackendTargets(BackendSetup(self.urls[0], SecretStr(token.token)), world)
        supervisor = Supervisor(
            world,
            Setup(
                one_directory(self.root / "locks"),
                uuid=self.uuid,
                api_key=KEY,
                speed=SPEED,
                timings=Timings(crash_gap_s=60),
            ),
            source,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, app, page)
            await tasks.start(supervisor.run)
            tasks.start_soon(_serve, supervisor.app, device)
            tasks.start_soon(self._operate, store, supervisor)
            with anyio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            self._save_told(supervisor)
            os._exit(0)

    async def _operate(self, store: Store, supervisor: Supervisor) -> None:
        """The operator: sets the next release when Cloudly says that the one before has come to its end."""
        world = RealWorld()
        os.write(self._ready, b"!")
        while not self._enrolled(store):
            await world.sleep(0.02)
        for number, (version, behaviour) in enumerate(STORY):
            while self._closed(store) < number:
                await world.sleep(0.02)
            self._set_release(store, version, behaviour)
        while True:
            self._save_told(supervisor)
            await world.sleep(0.1)

    def _enrolled(self, store: Store) -> bool:
        rows = store.read(lambda db: db.execute("SELECT count(*) FROM epoch").fetchall())
        return bool(rows[0][0])

    def _closed(self, store: Store) -> int:
        rows = store.read(
            lambda db: db.execute(
                "SELECT count(*) FROM deployment WHERE closed AND rollback_of IS NULL"
            ).fetchall()
        )
        return int(rows[0][0])

    def _set_release(self, store: Store, version: str, behaviour: str | None) -> None:
        from cloudly.cli.release import apply
        from cloudly.store.wanted import NewRelease

        labels = {"main": {BEHAVIOUR_LABEL: behaviour}} if behaviour else {}
        new = NewRelease(commit_of(version), version, {"main": image_of(version)}, labels)
        store.write_now(lambda db: apply(db, new, POLICY, self.uuid, again=False))

    def _save_told(self, supervisor: Supervisor) -> None:
        bodies = [told.body for told in supervisor.told if told.what == "update"]
        (self.root / "told.new").write_text(json.dumps(bodies))
        (self.root / "told.new").replace(self.root / "told")

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
            cloudly_url=self.urls[0],
            data_dir=self.root / "data",
            lock_dir=self.root / "locks",
            join_token=SecretStr((self.root / "token").read_text()),
            supervisor_address=self.urls[1],
            supervisor_key=SecretStr(KEY),
            device_uuid=self.uuid,
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
        told = json.loads((self.root / "told").read_text())
        cancels = sum(1 for body in told if body and body.get("cancel"))
        return Outcome(
            point=point,
            fired=os.WIFSIGNALED(first) and os.WTERMSIG(first) == signal.SIGKILL,
            ends=self._ends(),
            lost=[fact for fact in acknowledged if fact not in there],
            told={"download": len(told) - cancels, "apply": cancels},
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


async def _serve(app: Any, listener: socket.socket) -> None:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    await server._serve([listener])


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener


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


def _fork(body: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must not return into pytest
        traceback.print_exc()
        os._exit(1)


def _wait(pid: int) -> int:
    return os.waitpid(pid, 0)[1]
