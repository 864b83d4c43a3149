"""What Supervisors say and are told: reports, settings, names, tags, targets.

Rules:
- A report is merged in the transaction that keeps it, so that two of them cannot lose one another.
- Measurements and the time of the last request stay in memory and go out with the presence of nodes.
- A target is made once for what it is made of: the same rows give the same bytes and the same ETag.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar
from zlib import crc32

from cloudly.balena.report import Difference, merge
from cloudly.balena.target import Target, etag, target_state
from cloudly.problems import Refused
from cloudly.store import joining, targets
from cloudly.store.group import Group
from cloudly.store.sql import Connection
from cloudly.tokens import fingerprint

T = TypeVar("T")

KEPT_TARGETS = 2_000
"""Targets of some 2 KB each, one for a device."""
MOST_CONFIG = 64 * 1024
"""Characters of all settings of a device: they travel with each of its targets."""


class Supervisor(Protocol):
    """Who asks (`cloudly.balena.door`)."""

    @property
    def device(self) -> int: ...
    @property
    def key_hash(self) -> bytes: ...


class Read(Protocol):
    """`Store.read`."""

    async def __call__(self, question: Callable[[Connection], T]) -> T: ...


Completed = Callable[[int, Target], Awaitable[Target]]


async def _as_it_is(_device: int, target: Target) -> Target:
    return target


class Devices:
    def __init__(self, read: Read, group: Group, app_uuid: str) -> None:
        self._read = read
        self._group = group
        self.app_uuid = app_uuid
        self._targets: OrderedDict[int, tuple[targets.Ingredients, bytes, str]] = OrderedDict()
        """The newest of each device, with what it was made of."""
        self.completed: Completed = _as_it_is
        """What is added to a node's target beside its release; the same for the same ingredients."""
        self._measured: dict[int, tuple[int, str]] = {}
        self._seen: dict[int, int] = {}

    async def target(self, device: int, uuid: str) -> tuple[bytes, str]:
        """The body of the target state and its ETag."""
        made_of: targets.Ingredients = await self._read(lambda db: targets.ingredients(db, device))
        known = self._targets.get(device)
        if known is None or known[0] != made_of:
            plain: Target = await self._read(lambda db: targets.made(db, made_of))
            target = await self.completed(device, plain)
            body = target_state(uuid=uuid, app_uuid=self.app_uuid, target=target)
            known = self._targets[device] = (made_of, body, etag(body))
            if len(self._targets) > KEPT_TARGETS:
                self._targets.popitem(last=False)
        self._targets.move_to_end(device)
        return known[1], known[2]

    def seen(self, device: int, at_ms: int) -> None:
        """It asked for something just now."""
        self._seen[device] = at_ms

    def said(self, db: Connection, device: int) -> dict[str, Any] | None:
        """All that is known of a Supervisor, newest first from memory; None: none has registered."""
        row = db.execute(
            "SELECT registered_at_ms, info, report, report_at_ms, seen_at_ms, name FROM device WHERE node=?",
            (device,),
        ).fetchone()
        if row is None:
            return None
        said = dict(row)
        if device in self._measured:
            said["report_at_ms"], said["report"] = self._measured[device]
        if device in self._seen:
            said["seen_at_ms"] = self._seen[device]
        return said

    async def save_report(self, who: Supervisor, difference: Difference, at_ms: int) -> None:
        """Merge a report. Durable when it returns, but for measurements. Raises Refused (too-large)."""
        device = who.device
        if difference.is_measurement:
            known: str | None = await self._read(lambda db: self._known_of(db, who))
            if known is not None:
                self._measured[device] = (at_ms, merge(known, difference))
                return
        await self._group.write(
            partial(self._save_report, who=who, difference=difference, at_ms=at_ms), node=device
        )

    def _known_of(self, db: Connection, who: Supervisor) -> str | None:
        _still_valid(db, who)
        return self._known(db, who.device)

    def _known(self, db: Connection, device: int) -> str | None:
        measured = self._measured.get(device)
        if measured is not None:
            return measured[1]
        row = db.execute("SELECT report FROM device WHERE node=?", (device,)).fetchone()
        return None if row is None else row[0]

    def _save_report(
        self, db: Connection, who: Supervisor, difference: Difference, at_ms: int
    ) -> None:
        device = who.device
        report = merge(self._known_of(db, who), difference)
        db.execute(
            "UPDATE device SET report=?, report_at_ms=?, api_secret_hash=coalesce(?, api_secret_hash)"
            " WHERE node=?",
            (report, at_ms, difference.api_secret_hash, device),
        )
        self._measured.pop(device, None)

    async def set_config(self, who: Supervisor, name: str, value: str, *, most: int) -> int:
        """Give this setting back with each target from now on; its number. Raises Refused (too-large)."""

        def write(db: Connection) -> int:
            _still_valid(db, who)
            db.execute(
                "INSERT INTO device_config(node, name, value) VALUES(?,?,?) ON CONFLICT(node, name)"
                " DO UPDATE SET value=excluded.value",
                (who.device, name, value),
            )
            _at_most(db, "device_config", who.device, most)
            return 1 + crc32(f"{who.device}/{name}".encode())

        return await self._group.write(write, node=who.device)

    async def set_name(self, who: Supervisor, name: str) -> None:
        def write(db: Connection) -> None:
            _still_valid(db, who)
            db.execute("UPDATE device SET name=? WHERE node=?", (name, who.device))

        await self._group.write(write, node=who.device)

    async def tags(self, device: int) -> list[dict[str, Any]]:
        rows = await self._read(
            lambda db: db.execute(
                "SELECT id, key, value FROM device_tag WHERE node=? ORDER BY key", (device,)
            ).fetchall()
        )
        return [{"id": row[0], "tag_key": row[1], "value": row[2]} for row in rows]

    async def set_tags(self, who: Supervisor, tags: dict[str, str], *, most: int) -> None:
        """Raises Refused (too-large)."""

        def write(db: Connection) -> None:
            _still_valid(db, who)
            db.executemany(
                "INSERT INTO device_tag(node, key, value) VALUES(?,?,?) ON CONFLICT(node, key)"
                " DO UPDATE SET value=excluded.value",
                [(who.device, key, value) for key, value in tags.items()],
            )
            _at_most(db, "device_tag", who.device, most)

        await self._group.write(write, node=who.device)

    async def register(self, ask: joining.DeviceAsk) -> int | None:
        """Its id; None: the uuid is registered with another key. Raises Refused."""

        def write(db: Connection) -> int | None:
            device = joining.register_device(db, ask)
            if device is not None:  # what was measured before may be another life's
                self._measured.pop(device, None)
            return device

        return await self._group.write(write)

    async def find(self, uuid: str, key: str, *, now_ms: int) -> int | None:
        """The id behind a uuid, for its device key or for a join token that admits it. Raises Refused (401)."""
        return await self._read(lambda db: _find(db, uuid, key, now_ms))

    async def uuid_of(self, device: int) -> str:
        """Raises Refused (node-unknown)."""
        row = await self._read(
            lambda db: db.execute(
                "SELECT n.node_id FROM node n JOIN device d ON d.node=n.id WHERE n.id=?", (device,)
            ).fetchone()
        )
        if row is None:
            raise Refused("node-unknown")
        return str(row[0])

    @property
    def unsaved(self) -> bool:
        return bool(self._measured or self._seen)

    def save(self, db: Connection) -> None:
        """What was only in memory."""
        db.executemany(
            "UPDATE device SET report_at_ms=?, report=? WHERE node=?",
            [(at_ms, report, device) for device, (at_ms, report) in self._measured.items()],
        )
        db.executemany(
            "UPDATE device SET seen_at_ms=?1 WHERE node=?2 AND coalesce(seen_at_ms, 0)<?1",
            [(at_ms, device) for device, at_ms in self._seen.items()],
        )

    def saved(self) -> None:
        self._measured, self._seen = {}, {}


def _find(db: Connection, uuid: str, key: str, now_ms: int) -> int | None:
    row = db.execute(
        "SELECT n.id, d.key_hash, coalesce(n.revoked_at_ms, n.retired_at_ms)"
        " FROM node n JOIN device d ON d.node=n.id WHERE n.node_id=?",
        (uuid,),
    ).fetchone()
    if row is not None and row[1] == fingerprint(key):
        if row[2] is not None:
            raise Refused("node-revoked")
        return int(row[0])
    if joining.join_token(db, key) is None:
        raise Refused("node-unknown")
    return None if row is None else joining.find_device(db, key, uuid, now_ms=now_ms)


def _still_valid(db: Connection, who: Supervisor) -> None:
    """Its key was not replaced, and it was not revoked, while its body came. Raises Refused."""
    row = db.execute(
        "SELECT coalesce(n.revoked_at_ms, n.retired_at_ms)"
        " FROM device d JOIN node n ON n.id=d.node WHERE d.node=? AND d.key_hash=?",
        (who.device, who.key_hash),
    ).fetchone()
    if row is None:
        raise Refused("node-unknown")
    if row[0] is not None:
        raise Refused("node-revoked")


def _at_most(db: Connection, table: str, device: int, most: int) -> None:
    count, size = db.execute(
        f"SELECT count(*), coalesce(sum(length(value)), 0) FROM {table} WHERE node=?",  # noqa: S608 - ours
        (device,),
    ).fetchone()
    if count > most or size > MOST_CONFIG:
        raise Refused("too-large", f"At most {most}, of {MOST_CONFIG} characters, are kept.")
