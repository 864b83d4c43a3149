"""Pins of nodes and of fleets: set, lifted, listed, and read for the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloudly.governance import people
from cloudly.governance.pins import Pin, Scope
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.governance import bans
from cloudly.store.sql import Connection, Row


@dataclass(frozen=True, slots=True)
class Target:
    """A node or a fleet, found."""

    scope: Scope
    number: int
    name: str

    @property
    def words(self) -> str:
        return f"{self.scope} {self.name}"


def pin(  # noqa: PLR0913 - whom, to what, who
    db: Connection,
    target: Target,
    release: int | None,
    by: By,
    *,
    reason: str,
    until_ms: int | None,
) -> Pin:
    """In the place of one that was there before. Raises BadOrder."""
    why = people.reason(reason, f"pin {target.words}")
    if until_ms is not None and until_ms <= by.at_ms:
        raise BadOrder(f"pin {target.words}: it would end before it begins")
    version = ""
    if release is not None:
        bans.must_not_be_banned(db, release)
        version = db.execute("SELECT version FROM release WHERE id=?", (release,)).fetchone()[0]
    db.execute(
        "INSERT INTO pin(scope, scope_id, release, actor, reason, at_ms, until_ms) VALUES(?,?,?,?,?,?,?)"
        " ON CONFLICT(scope, scope_id) DO UPDATE SET release=excluded.release, actor=excluded.actor,"
        " reason=excluded.reason, at_ms=excluded.at_ms, until_ms=excluded.until_ms",
        (target.scope.value, target.number, release, by.person, why, by.at_ms, until_ms),
    )
    audit.note(
        db, by, f"{target.scope}.pinned", f"{target.scope}/{target.name}",
        release=version or None, reason=why, until_ms=until_ms,
    )  # fmt: skip
    return Pin(target.scope, target.name, release, version, by.person, why, until_ms)


def unpin(db: Connection, target: Target, by: By, *, reason: str = "") -> None:
    """Raises BadOrder when there is none."""
    gone = db.execute(
        "DELETE FROM pin WHERE scope=? AND scope_id=?", (target.scope.value, target.number)
    ).rowcount
    if not gone:
        raise _no_such(target)
    why = people.note(reason, "reason")
    audit.note(db, by, f"{target.scope}.unpinned", f"{target.scope}/{target.name}", reason=why)


_PINS = (
    "SELECT p.scope, p.scope_id, coalesce(n.node_id, f.name) AS name, n.hostname, r.version, r.commit_id,"
    " p.actor, p.reason, p.at_ms, p.until_ms FROM pin p"
    " LEFT JOIN node n ON p.scope='node' AND n.id=p.scope_id"
    " LEFT JOIN fleet f ON p.scope='fleet' AND f.id=p.scope_id"
    " LEFT JOIN release r ON r.id=p.release"
)


def listed(db: Connection) -> list[Row]:
    """All, also those that have ended, the newest first."""
    return db.execute(f"{_PINS} ORDER BY p.at_ms DESC, p.scope, p.scope_id").fetchall()


def page(db: Connection, *, after: tuple[str, int], limit: int) -> list[Row]:
    """By key: those of fleets, then those of nodes; after that scope and number."""
    return db.execute(
        f"{_PINS} WHERE (p.scope, p.scope_id)>(?,?) ORDER BY p.scope, p.scope_id LIMIT ?",
        (*after, limit),
    ).fetchall()


def found(db: Connection, target: Target) -> Row:
    """Whether or not it has ended. Raises NoSuch."""
    row: Row | None = db.execute(
        f"{_PINS} WHERE p.scope=? AND p.scope_id=?", (target.scope.value, target.number)
    ).fetchone()
    if row is None:
        raise _no_such(target)
    return row


def _no_such(target: Target) -> NoSuch:
    return NoSuch("pin", f"{target.words} is not pinned: `cloudly pin list` shows what is")


def of(db: Connection, scope: Scope, number: int, name: str) -> Pin | None:
    """Whether or not it has ended."""
    row: Any = db.execute(
        "SELECT p.release, r.version, p.actor, p.reason, p.until_ms FROM pin p"
        " LEFT JOIN release r ON r.id=p.release WHERE p.scope=? AND p.scope_id=?",
        (scope.value, number),
    ).fetchone()
    if row is None:
        return None
    return Pin(scope, name, row[0], row[1] or "", row[2], row[3], row[4])


def forget(db: Connection, scope: Scope, number: int) -> None:
    """Of a fleet that is removed: another may get its number."""
    db.execute("DELETE FROM pin WHERE scope=? AND scope_id=?", (scope.value, number))
