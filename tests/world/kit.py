"""Cloudly, one device and its Supervisor in one process under virtual time: real programs, simulated world.

Nothing is patched: Cloudly and the Supervisor are mounted by ASGI transports, the disk is real, time is virtual. A
power cut copies the device's files as they are at that instant and lets a new agent wake up from the copy; what the
old agent still writes while it is torn down goes to files that nobody reads again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
from pydantic import SecretStr

from baserunner import orders
from baserunner.agent import Agent, neighbours
from baserunner.cli.status import Status, status_of
from baserunner.locks.leases import Leases
from baserunner.settings import Settings
from cloudly import reports, views
from cloudly.app import create_app
from cloudly.http.live import Closing
from cloudly.settings import Settings as CloudlySettings
from cloudly.store import diagnoses, migrate, reading, rotation, wanted
from cloudly.store.connection import connect
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.join_tokens import revoke as revoke_token
from cloudly.store.sql import Connection
from cloudly.store.store import FILE, Store
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import new_id, now_ms
from journal.facts import Fact, Lane
from journal.problems import NoJournal
from journal.reader import open_reader
from simulators.supervisor import (
    BEHAVIOUR_LABEL,
    BackendSetup,
    BackendTargets,
    Setup,
    Supervisor,
    one_directory,
)
from simulators.supervisor.registry import Registry
from simulators.supervisor.sources import target_state
from simulators.world import SimWorld
from tests.world.outside import Instead, Plugged, QuietHost

CLOUDLY_URL = "https://cloudly.example"
KEY = "supervisorcanary0123456789abcdef"
POLICY = UpdatePolicy(health_soak_s=10, health_deadline_s=60)


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
    to_backend: Plugged
    """The Supervisor's own line to Cloudly."""
    uuid: str
    cloudly_world: SimWorld
    app: Any
    points: Callable[[str], None] = lambda _: None
    lives: int = 0
    agent_scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    agent_ended: anyio.Event = field(default_factory=anyio.Event)
    closing: Closing = field(default_factory=Closing)
    """Says to what is open at Cloudly that it ends."""
    join_token: str | None = None
    heartbeat_min_s: float = 1.0
    supervisor_poll_s: float = 2.0
    data_root: Path | None = None
    """Where the data directory is, if not in `root`."""
    cloudly_every_s: float = 60.0
    agent: Agent | None = None
    """The newest one."""
    starts: int = 0
    """How many agents have been started so far."""
    commits: int = 0
    """Of all agents so far: as long as it stays the same, no journal has changed."""

    # -- the device ------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        return (self.data_root or self.root) / f"data-{self.lives}"

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
            heartbeat_min_s=self.heartbeat_min_s,
            supervisor_poll_s=self.supervisor_poll_s,
            log_level="DEBUG",
        )

    def start_agent(self, *, make_data: bool = True) -> None:
        if make_data:
            self.data.mkdir(exist_ok=True)
        self.starts += 1
        self.agent_scope, self.agent_ended = anyio.CancelScope(), anyio.Event()
        self.tasks.start_soon(self._live, self.agent_scope, self.agent_ended)

    async def _live(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                await self.live()
        finally:
            ended.set()

    async def live(self) -> None:
        """One process of the agent, until it is cancelled."""
        settings = self.settings()
        near = neighbours(
            settings,
            self.world,
            cloudly_transport=self.to_cloudly,
            supervisor_transport=self.to_supervisor,
            host=QuietHost(self.world),
            points=self._pass,
        )
        self.agent = Agent(settings, near)
        await self.agent.run()

    @property
    def leases(self) -> Leases:
        """Of the agent that runs, as its local API has them."""
        assert self.agent is not None
        assert self.agent.life is not None, "the agent has no journal now"
        return self.agent.life.leases

    def _pass(self, point: str) -> None:
        self.commits += point.startswith("after-commit:")
        self.points(point)

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

    async def reboot_host(self, *, off_s: float = 20.0) -> None:
        """The host loses power: the agent, the lock directories and the boot id go. Returns when all runs again."""
        boots = self.world.boots
        self.supervisor.power_cut(off_s)
        await self.until(lambda: self.world.boots > boots and self.supervisor.alive)
        await self.until(lambda: not self.agent_ended.is_set())

    async def _host_goes_down(self) -> None:
        """The Supervisor's host calls this before it goes; what is a container comes back with it."""
        if self.agent_ended.is_set():
            return
        await self.cut_power_to_agent()
        self.tasks.start_soon(self._start_after_boot, self.world.boots)

    async def _start_after_boot(self, boots: int) -> None:
        while self.world.boots == boots or not self.supervisor.alive:
            await self.world.sleep(0.25)
        self.start_agent()

    def someone_locks(self) -> Path:
        """Another program's lock, by the Supervisor's other name for it: the agent does not take it for its own."""
        lock = self.root / "locks" / "resin-updates.lock"
        lock.write_text("a backup is running")
        return lock

    # -- Cloudly ---------------------------------------------------------------------------------

    def make_token(self, *, uses: int = 1, lasts_s: float | None = None) -> str:
        now = now_ms(self.cloudly_world)
        ends = None if lasts_s is None else now + round(lasts_s * 1000)
        new = NewToken(new_join_token(self.cloudly_world), "test", uses, now, ends)
        self.store.write_now(lambda db: create_token(db, new))
        return new.token

    def set_release(
        self,
        version: str,
        *,
        policy: UpdatePolicy = POLICY,
        behaviour: str | None = None,
        image: str | None = None,
    ) -> str:
        """The operator sets it for this node; returns the commit. `behaviour`: how its service misbehaves."""
        world, commit = self.cloudly_world, commit_of(version)
        labels = {"main": {BEHAVIOUR_LABEL: behaviour}} if behaviour else {}
        new = wanted.NewRelease(commit, version, {"main": image_of(version)}, labels)
        document, deployment, now = policy.model_dump_json(), new_id(world), now_ms(world)

        def order(db: Connection) -> None:
            release = wanted.define_release(db, new, now)
            if image is not None:  # as an older Cloudly took it; this one refuses some
                db.execute("UPDATE release_service SET image=? WHERE release=?", (image, release))
            node = reading.find(db, self.uuid)["id"]
            asked = wanted.Order(node, release, document, deployment, now)
            wanted.set_release(db, asked, again=False)

        self.store.write_now(order)
        return commit

    def give_token(self, token: str) -> None:
        """With `baserunner enroll`."""
        self.home.mkdir(exist_ok=True)
        (self.home / orders.TOKEN_FILE).write_text(token)

    def order(self, kind: orders.OrderKind) -> Path:
        """Of somebody with a shell on the device; returns where the answer will be."""
        return orders.place(self.home, new_id(self.cloudly_world), orders.Order(kind=kind, by="me"))

    def revoke_token(self, number: int) -> None:
        self.store.write_now(lambda db: revoke_token(db, number, now_ms(self.cloudly_world)))

    def revoke_node(self) -> None:
        now = now_ms(self.cloudly_world)
        self.store.write_now(
            lambda db: db.execute(
                "UPDATE node SET revoked_at_ms=? WHERE node_id=?", (now, self.uuid)
            )
        )

    def forget_node(self) -> None:
        """Cloudly no longer knows the node token, as after a restore of a backup from before the enrollment."""
        self.store.write_now(lambda db: db.execute("DELETE FROM credential"))

    def node(self) -> views.NodeView:
        """The node as Cloudly's page shows it, now."""
        row = self.store.read_now(lambda db: reading.node(db, self.uuid))
        assert row is not None, "Cloudly does not know this node"
        node, shown = row["id"], dict(row)
        if node in self.store.unsaved:
            shown["last_seen_at_ms"], shown["reported"] = self.store.unsaved[node]
        now = now_ms(self.cloudly_world)
        return views.node_view(shown, versions={}, now_ms=now, every_s=self.cloudly_every_s)

    def reported(self) -> dict[str, Any]:
        """What the node said of itself last, as Cloudly has it."""
        row = self.store.read_now(lambda db: reading.node(db, self.uuid))
        assert row is not None
        return reports.load(self.store.fresh(row)["reported"])

    def deployment_states(self) -> list[str]:
        """Of every deployment, oldest first."""
        rows = self.store.read_now(
            lambda db: db.execute("SELECT state FROM deployment ORDER BY rowid").fetchall()
        )
        return [str(row[0]) for row in rows]

    def core_at_cloudly(self) -> list[tuple[int, str]]:
        """Seq and hash of each core fact that Cloudly stored of the current epoch, in order."""
        rows = self.store.read_now(
            lambda db: db.execute(
                "SELECT events FROM journal_chunk WHERE lane='core' AND epoch_n="
                "(SELECT max(n) FROM epoch) ORDER BY first_seq"
            ).fetchall()
        )
        return [(event["seq"], event["hash"]) for row in rows for event in json.loads(row[0])]

    def core_on_device(self) -> list[tuple[int, str]]:
        with open_reader(self.home) as reader:
            return [(fact.seq, fact.hash.hex()) for fact in reader.facts(lane=Lane.CORE)]

    # -- what can be seen ------------------------------------------------------------------------

    def epoch(self) -> str:
        with open_reader(self.home) as reader:
            return reader.epoch

    def facts(self, stream: str | None = None) -> list[Fact]:
        with open_reader(self.home) as reader:
            return reader.facts(stream=stream)

    def kinds(self, stream: str) -> list[str]:
        return [fact.kind for fact in self.facts(stream) if not fact.is_note]

    def state(self, stream: str) -> str | None:
        try:
            with open_reader(self.home) as reader:
                info = reader.stream(stream)
        except NoJournal:
            return None
        return info.state if info else None

    def status(self) -> Status:
        """What `baserunner status` says."""
        return status_of(self.home)

    def node_number(self) -> int:
        """Of the one node, in Cloudly's database."""
        found = self.store.read_now(lambda db: db.execute("SELECT id FROM node").fetchone())
        return int(found[0])

    def ask_diagnosis(self) -> str:
        """The operator asks the node to look at itself."""
        diagnosis, node = new_id(self.world), self.node_number()
        now = now_ms(self.cloudly_world)
        self.store.write_now(lambda db: diagnoses.ask(db, node, diagnosis, now_ms=now))
        return diagnosis

    def ask_rotation(self) -> None:
        """The operator wants another node token there."""
        node, now = self.node_number(), now_ms(self.cloudly_world)
        self.store.write_now(lambda db: rotation.ask(db, [node], now_ms=now))

    def credential(self) -> dict[str, Any]:
        """What Cloudly has of the one node's tokens."""
        return self.store.read_now(
            lambda db: dict(db.execute("SELECT * FROM credential").fetchone())
        )

    def restore_credential(self, before: dict[str, Any]) -> None:
        """Cloudly's tokens are those of a backup."""
        columns = ", ".join(f"{name}=?" for name in before)

        def restore(db: Connection) -> None:
            db.execute("DELETE FROM former_token")
            db.execute(f"UPDATE credential SET {columns}", tuple(before.values()))  # noqa: S608 - its columns

        self.store.write_now(restore)

    async def stop_cloudly(self) -> None:
        """SIGTERM: what is open ends, then the database is closed."""
        self.closing.now = True
        await self.world.sleep(5)
        self.store.close()

    async def until(
        self, what: Callable[[], bool], *, within_s: float = 600.0, look_s: float = 0.25
    ) -> None:
        """Let time pass until it is so. Fails the test when it does not come true."""
        deadline = anyio.current_time() + within_s
        while not what():
            assert anyio.current_time() < deadline, f"not so within {within_s} virtual seconds"
            await self.world.sleep(look_s)

    async def until_state(
        self, stream: str, *states: str, within_s: float = 600.0, look_s: float = 0.25
    ) -> None:
        """Until the stream is in that state, or in one of those."""
        looked_at = -1

        def is_there() -> bool:
            nonlocal looked_at
            if self.commits == looked_at:
                return False
            looked_at = self.commits
            return self.state(stream) in states

        await self.until(is_there, within_s=within_s, look_s=look_s)

    async def enrolled(self) -> None:
        """Start the agent, and let it enroll."""
        self.start_agent()
        await self.until_state("enrollment/1", "enrolled")

    async def runs(self, version: str) -> None:
        """Let the operator's first release of a fresh story succeed."""
        await self.enrolled()
        self.set_release(version)
        await self.until_state("app-update/1", "succeeded")

    def cancels(self) -> int:
        """How often the Supervisor was told to apply."""
        return sum(
            1
            for told in self.supervisor.told
            if told.what == "update" and isinstance(told.body, dict) and told.body.get("cancel")
        )

    def shipped_core(self) -> int:
        """Up to which core fact of the current epoch Cloudly has the journal."""
        rows = self.store.read_now(
            lambda db: db.execute(
                "SELECT ack_seq FROM lane WHERE lane='core' ORDER BY epoch_n DESC LIMIT 1"
            ).fetchall()
        )
        return int(rows[0][0]) if rows else 0


@functools.cache
def _a_new_database() -> bytes:
    """Cloudly's, before its first word: making its tables costs a quarter of a short story."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / FILE
        with contextlib.closing(connect(file)) as connection:
            migrate.bring_up_to_date(file, connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.read_bytes()


@asynccontextmanager
async def a_place(
    root: Path,
    *,
    seed: int | str = 1,
    every_s: float = 60.0,
    registry: Callable[[Any], Registry] | None = None,
    registry_service: str | None = None,
) -> AsyncIterator[Place]:
    """A device without an app, its Supervisor registered at Cloudly, no agent yet.

    `every_s`: the heartbeat interval that Cloudly sets. `registry`: where the engine pulls, from Cloudly as an app.
    """
    device, cloud = SimWorld(f"device-{seed}"), SimWorld(f"cloud-{seed}")
    uuid = new_id(device)
    (root / "cloudly").mkdir()
    (root / "cloudly" / FILE).write_bytes(_a_new_database())
    store = Store.open(root / "cloudly", cloud)
    settings = CloudlySettings(
        data_dir=root / "cloudly", heartbeat_every_s=every_s, registry_service=registry_service
    )
    closing = Closing()
    app = create_app(store, cloud, settings, closing=closing)
    to_cloudly = Plugged(httpx.ASGITransport(app))
    to_backend = Plugged(httpx.ASGITransport(app))
    (root / "locks").mkdir()

    async def host_goes_down() -> None:
        await place._host_goes_down()

    async with anyio.create_task_group() as tasks:
        try:
            first = NewToken(new_join_token(cloud), "test", 1, now_ms(cloud), None)
            store.write_now(lambda db: create_token(db, first))
            source = BackendTargets(
                BackendSetup(CLOUDLY_URL, SecretStr(first.token)),
                device,
                transport=to_backend,
            )
            supervisor = Supervisor(
                device,
                Setup(
                    lock_directory=one_directory(root / "locks"),
                    uuid=uuid,
                    api_key=KEY,
                    on_reboot=host_goes_down,
                    registry=None if registry is None else registry(app),
                    poll_interval_s=900,  # else it polls before the agent asks, in mid-story
                ),
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
                to_backend=to_backend,
                uuid=uuid,
                cloudly_world=cloud,
                app=app,
                join_token=first.token,
                cloudly_every_s=every_s,
                closing=closing,
            )
            place.agent_ended.set()
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


__all__ = [
    "POLICY",
    "Instead",
    "Place",
    "Plugged",
    "QuietHost",
    "a_place",
    "commit_of",
    "image_of",
    "target_state",
]
