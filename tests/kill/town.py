"""A town: Cloudly, a Supervisor and an operator in one process, on loopback, at many times their real speed.

Forked from a process that has imported everything, so that it is up at once. The operator sets the next release when
Cloudly says that the one before has come to its end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from pydantic import SecretStr

from cloudly.app import create_app
from cloudly.settings import Settings as CloudlySettings
from cloudly.store.join_tokens import NewToken
from cloudly.store.join_tokens import create as create_token
from cloudly.store.store import FILE, Store
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import RealWorld, new_id, now_ms
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
OFF_S = 2.0
"""How long the Supervisor's host is off after a power cut, at speed 1."""
KEY = "supervisorcanary0123456789abcdef"

Story = tuple[tuple[str, str | None], ...]
"""Version and behaviour of each release that the operator sets, one after the other."""


@dataclass
class Town:
    """`start` it, and `stop` it in the end."""

    root: Path
    story: Story
    policy: UpdatePolicy
    urls: tuple[str, ...] = ()
    """Of Cloudly and of the Supervisor."""
    uuid: str = field(default_factory=lambda: new_id(RealWorld()))
    _pid: int = 0
    _ready: int = -1

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def token(self) -> str:
        """The join token for the agent; the Supervisor uses it too."""
        return (self.root / "token").read_text()

    def start(self) -> None:
        self.locks.mkdir(parents=True)
        page, device = _listener(), _listener()
        ready, self._ready = os.pipe()
        self.urls = tuple(f"http://127.0.0.1:{s.getsockname()[1]}" for s in (page, device))
        self._pid = fork(lambda: anyio.run(self._live, page, device))
        page.close()
        device.close()
        os.close(self._ready)
        try:
            assert select.select([ready], [], [], 20)[0], "the town did not come up"
            assert os.read(ready, 1), "the town did not come up"
        finally:
            os.close(ready)

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGTERM)
        wait_for(self._pid)

    def cut_power(self) -> None:
        """The Supervisor's host loses power, and what lies in its memory: the locks. Cloudly lives elsewhere."""
        os.kill(self._pid, signal.SIGUSR1)

    def told(self) -> dict[str, int]:
        """How often the Supervisor was told to do something, by kind."""
        bodies = json.loads((self.root / "told").read_text())
        applies = sum(1 for body in bodies if body and body.get("cancel"))
        return {"download": len(bodies) - applies, "apply": applies}

    def acked(self) -> dict[str, tuple[int, str]]:
        """Up to where Cloudly has each lane of the newest epoch: seq and hash."""
        newest = (
            "SELECT lane, ack_seq, ack_hash FROM lane WHERE epoch_n = (SELECT max(n) FROM epoch)"
        )
        with closing(sqlite3.connect(self.root / "cloudly" / FILE)) as db:
            return {lane: (seq, bytes(hash_).hex()) for lane, seq, hash_ in db.execute(newest)}

    def core(self) -> list[tuple[int, str]]:
        """Seq and hash of each core fact that Cloudly has of the newest epoch, in order."""
        newest = (
            "SELECT events FROM journal_chunk WHERE lane = 'core' AND"
            " epoch_n = (SELECT max(n) FROM epoch) ORDER BY first_seq"
        )
        with closing(sqlite3.connect(self.root / "cloudly" / FILE)) as db:
            chunks = db.execute(newest).fetchall()
        return [
            (event["seq"], event["hash"]) for (events,) in chunks for event in json.loads(events)
        ]

    # -- its process -----------------------------------------------------------------------------

    async def _live(self, page: socket.socket, device: socket.socket) -> None:
        world = RealWorld()
        store = Store.open(self.root / "cloudly", world)
        app = create_app(
            store, world, CloudlySettings(data_dir=self.root / "cloudly", heartbeat_every_s=0.2)
        )
        token = NewToken(new_join_token(world), "kill", 1, now_ms(world), None)
        store.write_now(lambda db: create_token(db, token))
        (self.root / "token").write_text(token.token)
        backend = BackendSetup(self.urls[0], SecretStr(token.token), plain_logs=True)
        source = BackendTargets(backend, world)
        supervisor = Supervisor(
            world,
            Setup(
                one_directory(self.locks),
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
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
                async for received in signals:
                    if received == signal.SIGTERM:
                        break
                    supervisor.power_cut(OFF_S)
            self._save_told(supervisor)
            os._exit(0)

    async def _operate(self, store: Store, supervisor: Supervisor) -> None:
        world = RealWorld()
        os.write(self._ready, b"!")
        while not self._enrolled(store):
            await world.sleep(0.02)
        for number, (version, behaviour) in enumerate(self.story):
            while self._closed(store) < number:
                await world.sleep(0.02)
            self._set_release(store, version, behaviour)
        while True:
            self._save_told(supervisor)
            await world.sleep(0.1)

    def _enrolled(self, store: Store) -> bool:
        rows = store.read_now(lambda db: db.execute("SELECT count(*) FROM epoch").fetchall())
        return bool(rows[0][0])

    def _closed(self, store: Store) -> int:
        rows = store.read_now(
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
        store.write_now(lambda db: apply(db, new, self.policy, self.uuid, again=False))

    def _save_told(self, supervisor: Supervisor) -> None:
        bodies = [told.body for told in supervisor.told if told.what == "update"]
        (self.root / "told.new").write_text(json.dumps(bodies))
        (self.root / "told.new").replace(self.root / "told")


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


def fork(body: Callable[[], object]) -> int:
    """The pid of a process that does this, and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must not return into pytest
        traceback.print_exc()
        os._exit(1)


def wait_for(pid: int) -> int:
    """How it ended, as `os.waitpid` says it."""
    return os.waitpid(pid, 0)[1]
