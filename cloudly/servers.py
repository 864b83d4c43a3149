"""The servers of one Cloudly: each writes a row now and then, so that operators and the others know of it.

Rules:
- A row is of a data directory and a slot in it (`slots.py`), in `meta`: whoever takes the slot next takes the row.
- It tells where a server keeps the logs of devices: in its data directory, on its own host.
- Nothing is decided by it; a server that is not heard of any more is forgotten when its logs have ended, too.
- With SQLite there is one server, and no row.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cloudly.durable import write_durably
from cloudly.slots import alone
from cloudly.store.sql import Connection
from cloudly.store.store import Store
from interfaces.world import World, new_id, now_ms

BEAT_EVERY_S = 30.0
SILENT_MS = 100_000
"""After so long without a word it is not taken for running: three rows were left out."""
FILE = "directory-id"
ROW = "server/{}/{}"
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Server:
    directory: str
    """The id of its data directory."""
    slot: int
    host: str
    process: int
    path: str
    started_at_ms: int
    seen_at_ms: int
    ended: bool = False
    """It said that it ends; otherwise it was killed, or is running."""

    def state(self, at_ms: int) -> str:
        if self.ended:
            return "stopped"
        return "running" if at_ms - self.seen_at_ms < SILENT_MS else "silent"


def directory_id(directory: Path, world: World) -> str:
    """Drawn once for each data directory. Raises OSError."""
    file = directory / FILE
    with alone(directory / "keys.lock"):
        try:
            known = file.read_text().strip()
        except FileNotFoundError:
            known = ""
        if not known:
            known = new_id(world)
            write_durably(file, known.encode() + b"\n")
        return known


class Present:
    """This server, as the others know it."""

    def __init__(
        self, store: Store, world: World, directory: Path, slot: int, keep_ms: int
    ) -> None:
        self._store = store
        self._world = world
        self._keep_ms = keep_ms
        now = now_ms(world)
        self.server = Server(
            directory_id(directory, world),
            slot,
            socket.gethostname(),
            os.getpid(),
            str(directory.absolute()),
            now,
            now,
        )

    async def beat(self) -> None:
        await self._write(ended=False)

    async def end(self) -> None:
        await self._write(ended=True)

    async def _write(self, *, ended: bool) -> None:
        now = now_ms(self._world)
        self.server = replace(self.server, seen_at_ms=now, ended=ended)
        forget_before = now - max(self._keep_ms, DAY_MS)

        def write(db: Connection) -> None:
            note(db, self.server)
            forget(db, forget_before)

        await self._store.write(write)


def note(db: Connection, server: Server) -> None:
    fields = asdict(server)
    key = ROW.format(fields.pop("directory"), fields.pop("slot"))
    db.execute(
        "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (key, json.dumps(fields)),
    )


def forget(db: Connection, before_ms: int) -> None:
    """Those that were not heard of since."""
    for one in listed(db):
        if one.seen_at_ms < before_ms:
            db.execute("DELETE FROM meta WHERE key=?", (ROW.format(one.directory, one.slot),))


def listed(db: Connection) -> list[Server]:
    """All that are known, by host and slot."""
    rows = db.execute("SELECT key, value FROM meta WHERE key LIKE 'server/%'").fetchall()
    found = [_server(str(row[0]), json.loads(row[1])) for row in rows]
    return sorted(found, key=lambda one: (one.host, one.path, one.slot))


def elsewhere(servers: Iterable[Server], directory: str) -> list[str]:
    """Where logs of devices are that are not in this data directory: `host:path`, in order."""
    return sorted({f"{one.host}:{one.path}" for one in servers if one.directory != directory})


def _server(key: str, fields: dict[str, Any]) -> Server:
    _, directory, slot = key.split("/")
    return Server(directory=directory, slot=int(slot), **fields)
