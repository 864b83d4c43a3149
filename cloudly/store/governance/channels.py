"""Channels: named streams of approved releases, in the order in which they were proposed.

Rules:
- `seq` is the order, given when a release is proposed; a late yes to an older one does not make it the newest.
- A release is published by the yes that was missing, or at once where none is needed; `publish` is for what was held up
  by a ban that is lifted.
- Withdrawn is final in that channel; what runs it keeps it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from cloudly.governance import approvals, people
from cloudly.governance.approvals import Decision, Proposal, Word
from cloudly.problems import BadOrder, NoSuch
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.governance import bans
from cloudly.store.sql import Connection, Row

LAST = 2**62
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHANNELS = (
    "SELECT c.id, c.name, c.created_at_ms, c.approvals, c.second_person,"
    " (SELECT count(*) FROM channel_release h WHERE h.channel=c.id AND h.published_at_ms IS NOT NULL"
    "  AND h.withdrawn_at_ms IS NULL) AS published,"
    " (SELECT count(*) FROM channel_release h WHERE h.channel=c.id AND h.published_at_ms IS NULL"
    "  AND h.withdrawn_at_ms IS NULL) AS waiting"
    " FROM channel c"
)
OFFERED = (
    "SELECT h.release, r.version, r.commit_id FROM channel_release h JOIN release r ON r.id=h.release"
    " WHERE h.channel=? AND h.published_at_ms IS NOT NULL AND h.withdrawn_at_ms IS NULL ORDER BY h.seq DESC"
)


def create(
    db: Connection, name: str, by: By, *, approvals_needed: int | None, second_person: bool
) -> int:
    """Its number. Raises BadOrder."""
    if NAME.fullmatch(name) is None:
        raise BadOrder(f"{name!r} is no name of a channel: 1 to 64 letters, digits, `.`, `_`, `-`")
    needed = approvals.needed_of(approvals_needed, second_person=second_person)
    row = db.execute(
        "INSERT INTO channel(name, created_at_ms, approvals, second_person) VALUES(?,?,?,?)"
        " ON CONFLICT(name) DO NOTHING RETURNING id",
        (name, by.at_ms, needed, int(second_person)),
    ).fetchone()
    if row is None:
        raise BadOrder(f"there is a channel {name!r} already: `cloudly channel list` shows them")
    told = {"approvals": needed, "second_person": second_person}
    audit.note(db, by, "channel.created", f"channel/{name}", **told)
    return int(row[0])


def listed(db: Connection) -> list[Row]:
    return db.execute(f"{CHANNELS} ORDER BY c.name").fetchall()


def find(db: Connection, name: str) -> Row:
    """Raises BadOrder."""
    row: Row | None = db.execute(f"{CHANNELS} WHERE c.name=?", (name,)).fetchone()
    if row is None:
        raise NoSuch("channel", f"there is no channel {name!r}: `cloudly channel list` shows them")
    return row


def followers(db: Connection, channel: int) -> list[str]:
    """The fleets that follow it."""
    rows = db.execute("SELECT name FROM fleet WHERE channel=? ORDER BY name", (channel,))
    return [row[0] for row in rows.fetchall()]


def newest(db: Connection, channel: int) -> Row | None:
    """What a node that enrolls gets: published, not withdrawn, not banned, of the greatest `seq`."""
    for row in db.execute(OFFERED, (channel,)).fetchall():
        if not bans.banned(db, row["release"]):
            return row  # type: ignore[no-any-return] # a row, whichever engine made it
    return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A release in a channel, with what is said of it."""

    channel: int
    release: int
    commit: str
    seq: int
    proposal: Proposal
    proposed_at_ms: int
    published_at_ms: int | None
    withdrawn_at_ms: int | None
    withdrawn_by: str
    withdrawn_why: str
    is_floor: bool
    note: str
    banned: str
    """Why it is given to nobody; empty: it is not banned."""
    said: tuple[Said, ...]

    @property
    def about(self) -> str:
        return f"channel/{self.proposal.channel}"


@dataclass(frozen=True, slots=True)
class Said:
    """One person's word, with its note."""

    who: str
    decision: Decision
    at_ms: int
    note: str


def entries(db: Connection, channel: Row, *, before: int = LAST, limit: int = LAST) -> list[Entry]:
    """The newest first, older than that `seq`."""
    rows = db.execute(
        f"{_ENTRIES} WHERE h.channel=? AND h.seq<? ORDER BY h.seq DESC LIMIT ?",
        (channel["id"], before, limit),
    )
    return [_entry(db, channel, row) for row in rows.fetchall()]


def entry(db: Connection, channel: Row, release: int) -> Entry:
    """Raises BadOrder when the release is not in it."""
    row = db.execute(
        f"{_ENTRIES} WHERE h.channel=? AND h.release=?", (channel["id"], release)
    ).fetchone()
    if row is None:
        version = version_of(db, release)
        raise NoSuch(
            "release in this channel",
            f"release {version} is not in channel {channel['name']}:"
            f" `cloudly channel propose {channel['name']} {version}` puts it there",
        )
    return _entry(db, channel, row)


_ENTRIES = (
    "SELECT h.channel, h.seq, h.release, h.proposed_at_ms, h.proposed_by, h.published_at_ms, h.withdrawn_at_ms,"
    " h.withdrawn, h.is_floor, h.note, r.version, r.commit_id"
    " FROM channel_release h JOIN release r ON r.id=h.release"
)


def _entry(db: Connection, channel: Row, row: Row) -> Entry:
    said = tuple(
        Said(one[0], Decision(one[1]), one[2], one[3])
        for one in db.execute(
            "SELECT actor, decision, at_ms, note FROM approval WHERE channel=? AND release=? ORDER BY id",
            (row["channel"], row["release"]),
        ).fetchall()
    )
    proposal = Proposal(
        channel=channel["name"],
        version=row["version"],
        proposed_by=row["proposed_by"],
        needed=channel["approvals"],
        second_person=bool(channel["second_person"]),
        words=tuple(Word(one.who, one.decision) for one in said),
        published=row["published_at_ms"] is not None,
        withdrawn=row["withdrawn_at_ms"] is not None,
    )
    gone = json.loads(row["withdrawn"] or "{}")
    return Entry(
        channel=row["channel"],
        release=row["release"],
        commit=row["commit_id"],
        seq=row["seq"],
        proposal=proposal,
        proposed_at_ms=row["proposed_at_ms"],
        published_at_ms=row["published_at_ms"],
        withdrawn_at_ms=row["withdrawn_at_ms"],
        withdrawn_by=gone.get("by", ""),
        withdrawn_why=gone.get("why", ""),
        is_floor=bool(row["is_floor"]),
        note=row["note"],
        banned=bans.banned(db, row["release"]),
        said=said,
    )


def version_of(db: Connection, release: int) -> str:
    return str(db.execute("SELECT version FROM release WHERE id=?", (release,)).fetchone()[0])


def propose(  # noqa: PLR0913 - what, where, who
    db: Connection, channel: Row, release: int, by: By, *, floor: bool = False, note: str = ""
) -> Entry:
    """Into the channel, after all others; published at once where no yes is needed. Raises BadOrder."""
    bans.must_not_be_banned(db, release)
    said, version = people.note(note), version_of(db, release)
    row = db.execute(
        "INSERT INTO channel_release(channel, seq, release, proposed_at_ms, proposed_by, is_floor, note)"
        " SELECT CAST(?1 AS BIGINT), coalesce((SELECT max(seq) FROM channel_release WHERE channel=?1), 0)+1,"
        " CAST(?2 AS BIGINT), CAST(?3 AS BIGINT), ?4, CAST(?5 AS BIGINT), ?6"
        " WHERE NOT EXISTS (SELECT 1 FROM channel_release WHERE channel=?1 AND release=?2) RETURNING seq",
        (channel["id"], release, by.at_ms, by.person, int(floor), said),
    ).fetchone()
    if row is None:
        state = entry(db, channel, release).proposal.state
        final = ", which is final there: give what it should be a release of its own"
        raise BadOrder(
            f"release {version} is in channel {channel['name']} already: it is {state}"
            + (final if state is approvals.State.WITHDRAWN else "")
        )
    about = f"channel/{channel['name']}"
    audit.note(db, by, "channel.proposed", about, release=version, floor=floor, note=said)
    return publish_if_due(db, channel, release, by)


def publish_if_due(db: Connection, channel: Row, release: int, by: By) -> Entry:
    """Published, if nothing is missing any more; the entry as it is then."""
    here = entry(db, channel, release)
    ended = here.proposal.published or here.proposal.withdrawn
    if ended or here.banned or approvals.missing(here.proposal):
        return here
    db.execute(
        "UPDATE channel_release SET published_at_ms=? WHERE channel=? AND release=?",
        (by.at_ms, channel["id"], release),
    )
    approved = list(here.proposal.approved_by)
    version = here.proposal.version
    audit.note(db, by, "channel.published", here.about, release=version, approved_by=approved)
    return entry(db, channel, release)


def publish(db: Connection, channel: Row, release: int, by: By) -> Entry:
    """What all have agreed to. Raises BadOrder with what is missing."""
    here = entry(db, channel, release)
    approvals.must_be_open(here.proposal, "publish")
    bans.must_not_be_banned(db, release)
    missing = approvals.missing(here.proposal)
    if missing:
        raise BadOrder(f"publish {here.proposal.version} in {channel['name']}: {missing}")
    return publish_if_due(db, channel, release, by)


def withdraw(db: Connection, channel: Row, release: int, by: By, reason: str) -> Entry:
    """From now on the channel does not offer it. Raises BadOrder."""
    here = entry(db, channel, release)
    order = f"withdraw {here.proposal.version} from {channel['name']}"
    why = people.reason(reason, order)
    if here.proposal.withdrawn:
        raise BadOrder(f"{order}: {here.withdrawn_by} withdrew it already ({here.withdrawn_why})")
    db.execute(
        "UPDATE channel_release SET withdrawn_at_ms=?, withdrawn=? WHERE channel=? AND release=?",
        (by.at_ms, json.dumps({"by": by.person, "why": why}), channel["id"], release),
    )
    audit.note(db, by, "channel.withdrawn", here.about, release=here.proposal.version, reason=why)
    return entry(db, channel, release)


def set_floor(db: Connection, channel: Row, release: int, by: By, *, on: bool) -> Entry:
    """Whether no upgrade may skip it. Raises BadOrder when it is so already."""
    here = entry(db, channel, release)
    if here.is_floor == on:
        raise BadOrder(
            f"release {here.proposal.version} is {'a' if on else 'no'} floor of {channel['name']} already"
        )
    db.execute(
        "UPDATE channel_release SET is_floor=? WHERE channel=? AND release=?",
        (int(on), channel["id"], release),
    )
    act = "channel.floor_set" if on else "channel.floor_lifted"
    audit.note(db, by, act, here.about, release=here.proposal.version)
    return entry(db, channel, release)
