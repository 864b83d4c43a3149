"""Cloudly, one device and its Supervisor in one process under virtual time: real programs, simulated world.

Nothing is patched: Cloudly and the Supervisor are mounted by ASGI transports, the disk is real, time is virtual. A
power cut copies the device's files as they are at that instant and lets a new agent wake up from the copy; what the
old agent still writes while it is torn down goes to files that nobody reads again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
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
from interfaces.reported import Space
from interfaces.world import new_id, now_ms
from journal.facts import Fact
from journal.reader import open_reader
from simulators.supervisor import (
    BEHAVIOUR_LABEL,
    BackendSetup,
    BackendTargets,
    Setup,
    Supervisor,
    one_directory,
)
from simulators.supervisor.sources import target_state
from simulators.world import SimWorld

CLOUDLY_URL = "https://cloudly.example"
KEY = "supervisorcanary0123456789abcdef"
POLICY = UpdatePolicy(health_soak_s=10, health_deadline_s=60)


class QuietHost:
    """A host whose readings never change, so that a seed gives the same story on every machine."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def uptime_s(self) -> float:
        return self._world.monotonic()

    def memory(self) -> Space | None:
        return Space(total_bytes=1_000_000_000, free_bytes=400_000_000)

    def disk(self) -> Space | None:
        return Space(total_bytes=8_000_000_000, free_bytes=4_000_000_000)

    def temperature_c(self) -> float | None:
        return 48.5

    def addresses(self) -> tuple[str, ...]:
        return ("192.0.2.9",)

    def hostname(self) -> str:
        return "simulated"


class Plugged(httpx.AsyncBaseTransport):
    """A transport that can be unplugged, changed or wrapped while it is in use."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.plugged = True
        self.requests: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if not self.plugged:
            raise httpx.ConnectError("unplugged")
        return await self.inner.handle_async_request(request)


@dataclass
class Place:
    """Everything there is, and what a story does to it."""

    root: Path
    tasks: anyio.abc.TaskGroup
    world: SimWorld
    store: Store
    supervisor: Supervisor
    to_cloudly: Plugged
    to_supervisor: Plugged
    uuid: str
    cloudly_world: SimWorld
    app: Any
    points: Callable[[str], None] = lambda _: None
    lives: int = 0
    agent_scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    agent_ended: anyio.Event = field(default_factory=anyio.Event)
    join_token: str | None = None
    heartbeat_every_s: float = 60.0

    # -- the device ------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        return self.root / f"data-{self.lives}"

    @property
    def home(self) -> Path:
        return self.data / "baseos"

    def settings(self) -> Settings:
        return Settings(
            cloudly_url=CLOUDLY_URL,
            data_dir=self.data,
            lock_dir=self.root / "locks",
            join_token=None if self.join_token is None else SecretStr(self.join_token),
            supervisor_address="http://supervisor",
            supervisor_key=SecretStr(KEY),
            device_uuid=self.uuid,
            runtime="baseos",
            heartbeat_every_s=self.heartbeat_every_s,
            supervisor_poll_s=2.0,
            log_level="DEBUG",
        )

    def start_agent(self) -> None:
        self.data.mkdir(exist_ok=True)
        self.agent_scope, self.agent_ended = anyio.CancelScope(), anyio.Event()
        self.tasks.start_soon(self._live, self.agent_scope, self.agent_ended)

    async def _live(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        settings = self.settings()
        near = neighbours(
            settings,
            self.world,
            cloudly_transport=self.to_cloudly,
            supervisor_transport=self.to_supervisor,
            host=QuietHost(self.world),
            points=self.points,
        )
        try:
            with scope:
                await Agent(settings, near).run()
        finally:
            ended.set()

    async def stop_agent(self) -> None:
        """SIGTERM."""
        self.agent_scope.cancel()
        await self.agent_ended.wait()

    async def cut_power_to_agent(self) -> None:
        """The process is gone at this instant; the host goes on."""
        before = self.data
        self.lives += 1
        shutil.copytree(before, self.data, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        await self.stop_agent()

    # -- Cloudly ---------------------------------------------------------------------------------

    def make_token(self, *, uses: int = 1, lasts_s: float | None = None) -> str:
        now = now_ms(self.cloudly_world)
        ends = None if lasts_s is None else now + round(lasts_s * 1000)
        new = NewToken(new_join_token(self.cloudly_world), "test", uses, now, ends)
        self.store.write_now(lambda db: create_token(db, new))
        return new.token

    def set_release(
        self, version: str, *, policy: UpdatePolicy = POLICY, behaviour: str | None = None
    ) -> str:
        """The operator sets it for this node; returns the commit. `behaviour`: how its service misbehaves."""
        from cloudly.cli.release import apply
        from cloudly.store.wanted import NewRelease

        commit = commit_of(version)
        labels = {"main": {BEHAVIOUR_LABEL: behaviour}} if behaviour else {}
        new = NewRelease(commit, version, {"main": image_of(version)}, labels)
        self.store.write_now(lambda db: apply(db, new, policy, self.uuid, again=False))
        return commit

    # -- what can be seen ------------------------------------------------------------------------

    def facts(self, stream: str | None = None) -> list[Fact]:
        with open_reader(self.home) as reader:
            return reader.facts(stream=stream)

    def kinds(self, stream: str) -> list[str]:
        return [fact.kind for fact in self.facts(stream) if not fact.is_note]

    def state(self, stream: str) -> str | None:
        if not (self.home / "journal.db").exists():
            return None
        with open_reader(self.home) as reader:
            info = reader.stream(stream)
        return info.state if info else None

    async def until(self, what: Callable[[], bool], *, within_s: float = 600.0) -> None:
        """Let time pass until it is so. Fails the test when it does not come true."""
        deadline = anyio.current_time() + within_s
        while not what():
            assert anyio.current_time() < deadline, f"not so within {within_s} virtual seconds"
            await self.world.sleep(0.25)

    async def until_state(self, stream: str, state: str, *, within_s: float = 600.0) -> None:
        await self.until(lambda: self.state(stream) == state, within_s=within_s)

    def cancels(self) -> int:
        """How often the Supervisor was told to apply."""
        return sum(
            1
            for told in self.supervisor.told
            if told.what == "update" and isinstance(told.body, dict) and told.body.get("cancel")
        )

    def shipped_core(self) -> int:
        """Up to which core fact of the current epoch Cloudly has the journal."""
        rows = self.store.read(
            lambda db: db.execute(
                "SELECT ack_seq FROM lane WHERE lane='core' ORDER BY epoch_n DESC LIMIT 1"
            ).fetchall()
        )
        return int(rows[0][0]) if rows else 0


@asynccontextmanager
async def a_place(root: Path, *, seed: int = 1) -> AsyncIterator[Place]:
    """A device without an app, its Supervisor registered at Cloudly, no agent yet."""
    device, cloud = SimWorld(f"device-{seed}"), SimWorld(f"cloud-{seed}")
    uuid = new_id(device)
    store = Store.open(root / "cloudly", cloud)
    settings = CloudlySettings(data_dir=root / "cloudly", heartbeat_every_s=60.0)
    app = create_app(store, cloud, settings)
    to_cloudly = Plugged(httpx.ASGITransport(app))
    (root / "locks").mkdir()
    async with anyio.create_task_group() as tasks:
        place: Place | None = None
        try:
            first = NewToken(new_join_token(cloud), "test", 1, now_ms(cloud), None)
            store.write_now(lambda db: create_token(db, first))
            source = BackendTargets(
                BackendSetup(CLOUDLY_URL, SecretStr(first.token)),
                device,
                transport=httpx.ASGITransport(app),
            )
            supervisor = Supervisor(
                device,
                Setup(lock_directory=one_directory(root / "locks"), uuid=uuid, api_key=KEY),
                source,
            )
            to_supervisor = Plugged(supervisor.transport())
            place = Place(
                root=root,
                tasks=tasks,
                world=device,
                store=store,
                supervisor=supervisor,
                to_cloudly=to_cloudly,
                to_supervisor=to_supervisor,
                uuid=uuid,
                cloudly_world=cloud,
                app=app,
                join_token=first.token,
            )
            await tasks.start(supervisor.run)
            yield place
        finally:
            tasks.cancel_scope.cancel()
    store.close()


def commit_of(version: str) -> str:
    return hashlib.sha256(f"release {version}".encode()).hexdigest()[:32]


def image_of(version: str) -> str:
    digest = hashlib.sha256(f"image {version}".encode()).hexdigest()
    return f"registry.example/{commit_of(version)}@sha256:{digest}"


__all__ = ["POLICY", "Place", "a_place", "commit_of", "image_of", "target_state"]
