"""The enrollment ticket: what lets the agent of one registered node enroll, and nobody else (docs/adr/0014).

A service on a balenaOS device cannot read config.json, where the join token is. The node's Supervisor can, and has
registered with it. So Cloudly gives the agent, through the target state of that node, a ticket in the join token's
place: it stands for the use that the Supervisor made of the token.

Rules:
- A ticket is for one node and one key of its Supervisor. It enrolls the agent once, as the join token would have.
- It is made again at each poll, the same each time: an environment that changes would restart the agent.
- Nothing of it is at rest but the key that it is made with, which lies beside the database and not in it, so that a
  copy of the database lets nobody in. Without its file, new tickets are made, and an enrolled agent needs none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path

from cloudly.durable import write_durably
from cloudly.problems import StoreUnsafe
from cloudly.slots import alone
from cloudly.store.sql import Connection
from interfaces.world import World

FILE = "ticket.key"
LOCK = "keys.lock"
KEY_BYTES = 32
FORM = re.compile(r"bet_([1-9][0-9]{0,17})_[A-Za-z0-9_-]{43}")
DEVICE = "SELECT n.node_id, d.key_hash FROM device d JOIN node n ON n.id=d.node WHERE d.node=?"


class Tickets:
    """Made and checked with the key of one data directory, which is drawn when the first one is made."""

    def __init__(self, directory: Path, world: World) -> None:
        self._file = directory / FILE
        self._world = world
        self._key: bytes | None = None

    def of(self, db: Connection, node: int) -> str | None:
        """The ticket of a node; None: no Supervisor has registered for it. Raises StoreUnsafe, OSError."""
        row = db.execute(DEVICE, (node,)).fetchone()
        if row is None:
            return None
        return _ticket(self.key(), node, str(row[0]), bytes(row[1]))

    def node_of(self, db: Connection, presented: str) -> int | None:
        """Whose ticket it is; None: it is no ticket, or none any more. Raises StoreUnsafe, OSError."""
        found = FORM.fullmatch(presented)
        key = self._read() if found else None
        if found is None or key is None:
            return None
        node = int(found[1])
        row = db.execute(DEVICE, (node,)).fetchone()
        if row is None:
            return None
        made = _ticket(key, node, str(row[0]), bytes(row[1]))
        return node if hmac.compare_digest(made, presented) else None

    def key(self) -> bytes:
        """Drawn if there is none. Raises StoreUnsafe, OSError."""
        return self._read() or self._draw()

    def _read(self) -> bytes | None:
        if self._key is None:
            try:
                key = self._file.read_bytes()
            except FileNotFoundError:
                return None
            if len(key) != KEY_BYTES:
                raise StoreUnsafe(
                    f"{self._file} has {len(key)} bytes and should have {KEY_BYTES}: restore it, or"
                    " remove it, and agents that have not enrolled yet get new tickets"
                )
            self._key = key
        return self._key

    def _draw(self) -> bytes:
        with alone(self._file.with_name(LOCK)):
            key = self._read()  # another server's, which was as quick
            if key is None:
                key = self._world.random_bytes(KEY_BYTES)
                write_durably(self._file, key)
                self._key = key
        return key


def _ticket(key: bytes, node: int, node_id: str, key_hash: bytes) -> str:
    message = b"enrollment-ticket/1/" + node_id.encode() + b"/" + key_hash
    mac = hmac.new(key, message, hashlib.sha256).digest()
    return f"bet_{node}_{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
