"""What the stories about Cloudly begin with: a control plane in memory, an operator, and devices that talk to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from cloudly.app import create_app
from cloudly.cli.release import apply as set_release
from cloudly.http.live import Closing
from cloudly.settings import Settings
from cloudly.store import join_tokens, reading
from cloudly.store.pg.database import PgDatabase
from cloudly.store.schema import metadata
from cloudly.store.store import Store
from cloudly.store.wanted import NewRelease
from cloudly.tokens import new_join_token
from interfaces.desired import UpdatePolicy
from interfaces.world import new_secret, now_ms
from journal.chain import genesis, link
from simulators.world import PatientLoop, SimWorld

HOUR_MS = 3_600_000
DIGEST = "sha256:" + "a1" * 32
UUID = "6ed0237ee31345bf8e22e93fd7b65839"
NODE = "/baseos/v1/nodes/"


@dataclass
class Plane:
    """Cloudly and its operator."""

    directory: Path
    world: SimWorld
    settings: Settings
    store: Store
    closing: Closing
    app: Starlette
    client: httpx.AsyncClient
    database_url: str | None = None
    """None: SQLite in the directory."""

    @classmethod
    def begin(
        cls,
        directory: Path,
        *,
        world: SimWorld | None = None,
        database_url: str | None = None,
        **options: Any,
    ) -> Plane:
        world = world or SimWorld(7)
        settings = Settings(data_dir=directory, **options)
        store = Store.open(directory, world, database_url=database_url)
        database = store.database
        if isinstance(database, PgDatabase):
            PatientLoop.neighbours.append(lambda: database.in_flight > 0)
        closing = Closing()
        app = create_app(store, world, settings, closing=closing)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://localhost"
        )
        return cls(directory, world, settings, store, closing, app, client, database_url)

    def end(self) -> None:
        self.store.close()

    def again(self) -> Plane:
        """The process ends and another begins on the same directory."""
        self.end()
        return Plane.begin(self.directory, world=self.world, database_url=self.database_url)

    def join_token(self, *, uses: int = 1, lasts_ms: int | None = HOUR_MS) -> str:
        token, now = new_join_token(self.world), now_ms(self.world)
        expires = None if lasts_ms is None else now + lasts_ms
        new = join_tokens.NewToken(token, "", uses, now, expires)
        self.store.write_now(lambda db: join_tokens.create(db, new))
        return token

    def revoke_token(self, number: int = 1) -> None:
        self.store.write_now(lambda db: join_tokens.revoke(db, number, now_ms(self.world)))

    def revoke_node(self, node_id: str) -> None:
        self.store.write_now(
            lambda db: (
                db.execute("UPDATE node SET revoked_at_ms=1 WHERE node_id=?", (node_id,)).rowcount
            )
        )

    def release(
        self,
        version: str,
        node: str | None = None,
        *,
        again: bool = False,
        force: bool = False,
        labels: dict[str, dict[str, str]] | None = None,
    ) -> Any:
        """Define a release and order it; returns the deployment id (of the first node)."""
        new = NewRelease(
            commit=commit_of(version),
            version=version,
            images={"main": f"registry.example/app-{version}@{DIGEST}"},
            labels=labels or {"main": {"io.balena.features.supervisor-api": "1"}},
        )
        done = self.store.write_now(
            lambda db: set_release(db, new, UpdatePolicy(), node, again=again, force=force)
        )
        return next((one["deployment"] for one in done if "deployment" in one), None)

    def device(self, node_id: str = UUID, **options: Any) -> Device:
        return Device(self, node_id, secret=new_secret(self.world), **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.store.read_now(
            lambda db: [dict(row) for row in db.execute(f"SELECT * FROM {table}")]  # noqa: S608 - a test's own
        )

    def at_rest(self) -> bytes:
        """All that is stored: the files, or what every table of a database elsewhere holds."""
        files = b"".join(file.read_bytes() for file in self.directory.iterdir() if file.is_file())
        if self.database_url is None:
            return files
        values = [
            value for table in metadata.tables for row in self.rows(table) for value in row.values()
        ]
        return files + b"".join(
            value if isinstance(value, bytes) else str(value).encode() for value in values
        )

    def node(self, node_id: str = UUID) -> dict[str, Any]:
        row = self.store.read_now(lambda db: reading.node(db, node_id))
        assert row is not None
        return dict(row)

    def deployment(self, deployment: str) -> dict[str, Any]:
        return next(row for row in self.rows("deployment") if row["deployment"] == deployment)


def commit_of(version: str) -> str:
    return "c" + version.encode().hex().ljust(31, "0")


@dataclass
class Device:
    """An agent as seen from the wire: it draws, asks, keeps a journal, ships it."""

    plane: Plane
    node_id: str
    secret: str
    epoch: str = "epoch-1"
    hostname: str = "kiosk-1"
    token: str = ""
    journals: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    n: int = 0
    writer: str | None = None
    """Which opening of the journal speaks."""

    async def ask(self, join_token: str, **changes: Any) -> httpx.Response:
        body = {
            "node_id": self.node_id,
            "enrollment_secret": self.secret,
            "epoch": self.epoch,
            "agent_version": "0.1.0",
            "hostname": self.hostname,
        }
        answer = await self.plane.client.post(
            NODE + "register", json=body | changes, headers=bearer(join_token)
        )
        if answer.status_code == 201:
            self.token = answer.json()["node_token"]
        return answer

    async def enroll(self) -> Device:
        answer = await self.ask(self.plane.join_token())
        assert answer.status_code == 201, answer.text
        return self

    async def beat(
        self, *, reported: dict[str, Any] | None = None, **changes: Any
    ) -> httpx.Response:
        body = {
            "node_id": self.node_id,
            "epoch": self.epoch,
            "agent_version": "0.1.0",
            "sent_at_ms": now_ms(self.plane.world),
            "reported": report(journal=self.heads()) | (reported or {}),
        }
        if self.writer is not None:
            body["writer"] = self.writer
        return await self.plane.client.post(
            NODE + "heartbeat", json=body | changes, headers=bearer(self.token)
        )

    async def announce(self, following: str, **changes: Any) -> httpx.Response:
        """Tell Cloudly the hash of the node token that is to follow."""
        body = {
            "node_id": self.node_id,
            "token_hash": hashlib.sha256(following.encode()).hexdigest(),
            "generation": 2,
        }
        return await self.plane.client.post(
            NODE + "token", json=body | changes, headers=bearer(self.token)
        )

    def fact(
        self,
        stream: str,
        src: str,
        dst: str,
        *,
        lane: str = "core",
        kind: str | None = None,
        **data: Any,
    ) -> dict[str, Any]:
        """One more fact in the journal on the device."""
        facts = self.journals.setdefault(lane, [])
        self.n += 1
        event: dict[str, Any] = {
            "seq": len(facts) + 1,
            "n": self.n,
            "stream": stream,
            "kind": kind or (f"{dst}-happened" if dst else "note"),
            "src": src,
            "dst": dst,
            "at_ms": now_ms(self.plane.world),
            "boot_id": "boot",
            "mono_ms": self.n,
            "data": json.dumps(data),
        }
        event["hash"] = link(self.hash_at(lane, len(facts)), lane=lane, **event).hex()
        facts.append(event)
        return event

    def hash_at(self, lane: str, seq: int) -> bytes:
        facts = self.journals.setdefault(lane, [])
        return bytes.fromhex(facts[seq - 1]["hash"]) if seq else genesis(self.epoch, lane)

    def heads(self) -> list[dict[str, Any]]:
        """The head of each lane that has a fact."""
        return [
            {
                "epoch": self.epoch,
                "lane": lane,
                "seq": len(facts),
                "hash": self.hash_at(lane, len(facts)).hex(),
            }
            for lane, facts in self.journals.items()
            if facts
        ]

    def begins(self, epoch: str, **note: Any) -> Device:
        """The device begins another epoch; with a note, it says why."""
        self.epoch, self.journals, self.n = epoch, {}, 0
        if note:
            self.fact("epoch/1", "", "", kind="epoch-began", **note)
        return self

    def copy(self, writer: str | None = None) -> Device:
        """Another device with the same identity and the same journal."""
        journals = {lane: list(facts) for lane, facts in self.journals.items()}
        return replace(self, journals=journals, writer=writer)

    def batch(
        self, first: int = 1, last: int | None = None, *, lane: str = "core"
    ) -> dict[str, Any]:
        facts = self.journals.setdefault(lane, [])
        return {
            "epoch": self.epoch,
            "lane": lane,
            "prev_hash": self.hash_at(lane, first - 1).hex(),
            "events": facts[first - 1 : last],
            "head": {"seq": len(facts), "hash": self.hash_at(lane, len(facts)).hex()},
            "oldest": 1,
        } | ({} if self.writer is None else {"writer": self.writer})

    async def ship(self, batch: dict[str, Any] | None = None, **changes: Any) -> httpx.Response:
        body = (self.batch() if batch is None else batch) | changes
        return await self.plane.client.post(NODE + "journal", json=body, headers=bearer(self.token))

    async def tell(self, stream: str, *states: str, **data: Any) -> httpx.Response:
        """The stream goes through these states, and the journal is shipped."""
        for src, dst in zip(("new", *states), states, strict=False):
            self.fact(stream, src, dst, **data)
        answer = await self.ship()
        assert answer.status_code == 200, answer.text
        return answer


def report(**changes: Any) -> dict[str, Any]:
    return {"supervisor": {"available": True}, "boot_id": "boot", "uptime_s": 1.0} | changes


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which always has the same shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"]
