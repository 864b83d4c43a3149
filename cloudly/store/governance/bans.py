"""The never-again list of the whole fleet: by digest of an image, or by the commit of a release.

Rules:
- What is banned is given to nobody: by no order, no rollout, no channel and no fleet. Nodes that run it keep it until
  they are ordered something else; how many they are is told.
- A ban may come before anything of that digest is known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cloudly.governance import people
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.releases import find_release
from cloudly.store.sql import Connection, Row

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DIGESTS = (
    "SELECT commit_id AS digest FROM release WHERE id=?1 UNION ALL"
    " SELECT substr(image, length(image)-70) FROM release_service WHERE release=?1"
)
"""Of a release: its commit, and its images, each of which ends with its digest."""
HOLDERS = (
    "SELECT r.id FROM release r WHERE r.commit_id=?1 OR EXISTS (SELECT 1 FROM release_service i"
    " WHERE i.release=r.id AND substr(i.image, length(i.image)-70)=?1)"
)
LAST = 2**62
MOST_NAMED = 20
"""Nodes that are named in one answer; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where something banned is now."""

    running: int
    """Nodes whose last good release it is."""
    coming: int
    """Nodes that were ordered it and have not finished."""
    nodes: tuple[str, ...]
    """The first of both."""
    fleets: tuple[str, ...]
    """Which new nodes would have got it; they get nothing until the fleet wants another release."""
    channels: tuple[str, ...]
    """Where it is published."""


def banned(db: Connection, release: int) -> str:
    """Why that release is given to nobody, and how that is lifted; empty: it is not banned."""
    row = db.execute(
        f"SELECT b.digest, b.actor, b.reason, r.version, r.commit_id FROM ban b JOIN release r ON r.id=?1"  # noqa: S608 - ours
        f" WHERE b.digest IN ({DIGESTS}) ORDER BY b.at_ms, b.digest LIMIT 1",
        (release,),
    ).fetchone()
    if row is None:
        return ""
    is_release = row["digest"] == row["commit_id"]
    what = "is banned" if is_release else f"holds the image {row['digest']}, which is banned"
    lift = row["version"] if is_release else row["digest"]
    return (
        f"release {row['version']} {what} by {row['actor']} ({row['reason']});"
        f" `cloudly release unban {lift}` lifts that"
    )


def must_not_be_banned(db: Connection, release: int) -> None:
    """Raises BadOrder."""
    why = banned(db, release)
    if why:
        raise BadOrder(why)


def ban(db: Connection, what: str, by: By, reason: str) -> Reach:
    """A release by name, or an image by its digest; where it is now. Raises BadOrder."""
    return reach(db, put(db, what, by, reason))


def put(db: Connection, what: str, by: By, reason: str) -> str:
    """On to the list: the digest that it is known by there. Raises BadOrder."""
    why = people.reason(reason, f"ban {what}")
    digest = digest_of(db, what)
    row = db.execute(
        "INSERT INTO ban(digest, actor, reason, at_ms) VALUES(?,?,?,?) ON CONFLICT DO NOTHING RETURNING digest",
        (digest, by.person, why, by.at_ms),
    ).fetchone()
    if row is None:
        raise BadOrder(f"{what} is banned already: `cloudly release bans` says by whom and why")
    audit.note(db, by, "release.banned", f"release/{what}", digest=digest, reason=why)
    return digest


def unban(db: Connection, what: str, by: By, reason: str) -> None:
    """Raises BadOrder when it is not on the list."""
    why = people.note(reason, "reason")
    digest = digest_of(db, what)
    if not db.execute("DELETE FROM ban WHERE digest=?", (digest,)).rowcount:
        raise NoSuch("ban", f"{what} is not banned: `cloudly release bans` shows what is")
    audit.note(db, by, "release.unbanned", f"release/{what}", digest=digest, reason=why)


def digest_of(db: Connection, what: str) -> str:
    """What the list knows it by. Raises BadOrder."""
    if DIGEST.fullmatch(what):
        return what
    if what.startswith("sha256:"):
        raise BadOrder(f"{what!r} is no digest: sha256: and 64 digits, 0-9 and a-f")
    commit: str = db.execute(
        "SELECT commit_id FROM release WHERE id=?", (find_release(db, what),)
    ).fetchone()[0]
    return commit


_BANS = (
    "SELECT b.digest, b.actor, b.reason, b.at_ms, r.version FROM ban b"
    " LEFT JOIN release r ON r.commit_id=b.digest"
)


def listed(db: Connection) -> list[Row]:
    """The newest first, with the release where it is one."""
    return page(db, after=(LAST, ""), limit=LAST)


def page(db: Connection, *, after: tuple[int, str], limit: int) -> list[Row]:
    """The same, after the one of that time and digest."""
    at_ms, digest = after
    return db.execute(
        f"{_BANS} WHERE b.at_ms<?1 OR (b.at_ms=?1 AND b.digest>?2) ORDER BY b.at_ms DESC, b.digest LIMIT ?3",
        (at_ms, digest, limit),
    ).fetchall()


def found(db: Connection, digest: str) -> Row:
    """Raises NoSuch."""
    row: Row | None = db.execute(f"{_BANS} WHERE b.digest=?", (digest,)).fetchone()
    if row is None:
        raise NoSuch("ban", f"{digest} is not banned: `cloudly release bans` shows what is")
    return row


def reach(db: Connection, digest: str) -> Reach:
    """Where it is."""
    return together(db, digest, [reached_between(db, digest, above=0, upto=LAST)])


def reached_between(
    db: Connection, digest: str, *, above: int, upto: int
) -> tuple[int, int, list[str]]:
    """Of the nodes with these ids: how many run it, how many were ordered it, and the first of both."""
    running = f"n.last_good IN ({HOLDERS})"
    coming = (
        f"EXISTS (SELECT 1 FROM desired d JOIN deployment p ON p.deployment=d.deployment"  # noqa: S608 - ours
        f" WHERE d.node=n.id AND p.closed=0 AND p.release IN ({HOLDERS}))"
    )
    here = "FROM node n WHERE n.id>?2 AND n.id<=?3 AND n.retired_at_ms IS NULL AND"
    told = (digest, above, upto)
    counted = [
        int(db.execute(f"SELECT count(*) {here} {which}", told).fetchone()[0])
        for which in (running, coming)
    ]
    names = db.execute(
        f"SELECT n.node_id {here} ({running} OR {coming}) ORDER BY n.id LIMIT {MOST_NAMED}", told
    ).fetchall()
    return counted[0], counted[1], [row[0] for row in names]


def together(db: Connection, digest: str, counted: Iterable[tuple[int, int, list[str]]]) -> Reach:
    """What was counted slice by slice, with the fleets and the channels that have it."""
    running, coming, names = 0, 0, list[str]()
    for here in counted:
        running, coming, names = running + here[0], coming + here[1], names + here[2]
    fleets = db.execute(
        f"SELECT name FROM fleet WHERE release IN ({HOLDERS}) ORDER BY id",  # noqa: S608 - ours
        (digest,),
    ).fetchall()
    channels = db.execute(
        "SELECT DISTINCT c.name FROM channel c JOIN channel_release h ON h.channel=c.id"  # noqa: S608 - ours
        f" WHERE h.published_at_ms IS NOT NULL AND h.withdrawn_at_ms IS NULL AND h.release IN ({HOLDERS})"
        " ORDER BY c.name",
        (digest,),
    ).fetchall()
    return Reach(
        running,
        coming,
        tuple(names[:MOST_NAMED]),
        tuple(row[0] for row in fleets),
        tuple(row[0] for row in channels),
    )
