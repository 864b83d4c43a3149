"""What Supervisors say and are told: reports, settings, names, tags, targets.

Rules:
- A report is merged in the transaction that keeps it, so that two of them cannot lose one another.
- Measurements and the time of the last request stay in memory and go out with the presence of nodes.
- Other servers hear the same devices. `report_at_ms` grows with each write of a report, so it says which one a
  measurement in memory was merged into; where another one is in the database now, that one is right.
- A target is made once for what it is made of: the same rows give the same bytes and the same ETag.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar
from zlib import crc32

from cloudly.balena.report import Difference, merge
from cloudly.balena.target import Target, etag, target_state
from cloudly.problems import Refused
from cloudly.store import joining, targets
from cloudly.store.group import Group
from cloudly.store.presence import AT_ONCE
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


@dataclass(frozen=True, slots=True)
class Measured:
    """A report with measurements that are only in memory."""

    at_ms: int
    report: str
    base_ms: int | None
    """`report_at_ms` of the report that they were merged into."""


@dataclass(frozen=True, slots=True)
class KeptReports:
    """What of some devices is only in memory, as it is when it begins to be written."""

    measured: Mapping[int, Measured]
    seen: Mapping[int, int]

    @property
    def nodes(self) -> list[int]:
        return sorted(self.measured.keys() | self.seen.keys())

    def write(self, db: Connection) -> None:
        db.executemany(
            "UPDATE device SET report_at_ms=?, report=? WHERE node=? AND report_at_ms IS NOT DISTINCT FROM ?",
            [
                (version_of(one.at_ms, one.base_ms), one.report, device, one.base_ms)
                for device, one in sorted(self.measured.items())
            ],
        )
        db.executemany(
            "UPDATE device SET seen_at_ms=?1 WHERE node=?2 AND coalesce(seen_at_ms, 0)<?1",
            [(at_ms, device) for device, at_ms in sorted(self.seen.items())],
        )


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
        self._measured: dict[int, Measured] = {}
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
        measured = self._measured.get(device)
        if measured is not None and measured.base_ms == said["report_at_ms"]:
            said["report_at_ms"], said["report"] = measured.at_ms, measured.report
        said["seen_at_ms"] = max(
            (at_ms for at_ms in (said["seen_at_ms"], self._seen.get(device)) if at_ms is not None),
            default=None,
        )
        return said

    async def save_report(self, who: Supervisor, difference: Difference, at_ms: int) -> None:
        """Merge a report. Durable when it returns, but for measurements. Raises Refused (too-large)."""
        device = who.device
        if difference.is_measurement:
            known, base_ms = await self._read(lambda db: self._known_of(db, who))
            if known is not None:
                self._measured[device] = Measured(at_ms, merge(known, difference), base_ms)
                return
        await self._group.write(
            partial(self._save_report, who=who, difference=difference, at_ms=at_ms), node=device
        )

    def _known_of(self, db: Connection, who: Supervisor) -> tuple[str | None, int | None]:
        """All that it has reported, and what `report_at_ms` was when that was written."""
        _still_valid(db, who)
        report, base_ms = db.execute(
            "SELECT report, report_at_ms FROM device WHERE node=?", (who.device,)
        ).fetchone()
        measured = self._measured.get(who.device)
        if measured is not None and measured.base_ms == base_ms:
            report = measured.report
        return report, base_ms

    def _save_report(
        self, db: Connection, who: Supervisor, difference: Difference, at_ms: int
    ) -> None:
        device = who.device
        known, base_ms = self._known_of(db, who)
        db.execute(
            "UPDATE device SET report=?, report_at_ms=?, api_secret_hash=coalesce(?, api_secret_hash)"
            " WHERE node=?",
            (
                merge(known, difference),
                version_of(at_ms, base_ms),
                difference.api_secret_hash,
                device,
            ),
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

    def parts(self) -> Iterator[KeptReports]:
        """What is only in memory, as it is when each part is asked for; some devices at a time."""
        numbers = iter(sorted(self._measured.keys() | self._seen.keys()))
        while some := list(islice(numbers, AT_ONCE)):
            yield KeptReports(
                {device: self._measured[device] for device in some if device in self._measured},
                {device: self._seen[device] for device in some if device in self._seen},
            )

    def saved(self, kept: KeptReports) -> None:
        """That is durable; what came meanwhile stays."""
        for device, measured in kept.measured.items():
            if self._measured.get(device) is measured:
                del self._measured[device]
        for device, at_ms in kept.seen.items():
            if self._seen.get(device) == at_ms:
                del self._seen[device]


def version_of(at_ms: int, before_ms: int | None) -> int:
    """When a report was written, and later than the one before in any case: clocks of servers differ."""
    return at_ms if before_ms is None else max(at_ms, before_ms + 1)


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
