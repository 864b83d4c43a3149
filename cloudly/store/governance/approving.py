"""Words about a proposed release: yes, no, and taken back. The yes that was missing publishes it."""

from __future__ import annotations

from cloudly.governance import approvals, people
from cloudly.governance.approvals import Decision
from cloudly.problems import BadOrder
from cloudly.store import audit
from cloudly.store.audit import By
from cloudly.store.governance import bans, channels
from cloudly.store.governance.channels import Entry
from cloudly.store.sql import Connection, Row


def approve(db: Connection, channel: Row, release: int, by: By, *, note: str = "") -> Entry:
    """Raises BadOrder."""
    here = channels.entry(db, channel, release)
    approvals.must_be_open(here.proposal, "approve")
    bans.must_not_be_banned(db, release)
    _say(db, here, by, Decision.APPROVED, people.note(note))
    return channels.publish_if_due(db, channel, release, by)


def refuse(db: Connection, channel: Row, release: int, by: By, *, note: str) -> Entry:
    """It blocks until the same person says otherwise. Raises BadOrder."""
    here = channels.entry(db, channel, release)
    approvals.must_be_open(here.proposal, "refuse")
    if not note.strip():
        raise BadOrder(
            f"refuse {here.proposal.version} in {channel['name']}: say why, with --note; who proposed it will ask"
        )
    _say(db, here, by, Decision.REFUSED, people.note(note))
    return channels.entry(db, channel, release)


def take_back(db: Connection, channel: Row, release: int, by: By) -> Entry:
    """The word of that person, whichever it was. A refusal gone may publish it. Raises BadOrder."""
    here = channels.entry(db, channel, release)
    approvals.must_be_open(here.proposal, "take back a word on")
    before = _spelled(here, by)
    if before is None:
        raise BadOrder(
            f"{by.person} has said nothing about {here.proposal.version} in {channel['name']}:"
            f" `cloudly channel show {channel['name']}` shows who has"
        )
    db.execute(
        "DELETE FROM approval WHERE channel=? AND release=? AND actor=?",
        (here.channel, here.release, before),
    )
    audit.note(db, by, "channel.word_taken_back", here.about, release=here.proposal.version)
    return channels.publish_if_due(db, channel, release, by)


def _say(db: Connection, here: Entry, by: By, decision: Decision, note: str) -> None:
    """One word per person: it takes the place of the earlier one, which the audit keeps."""
    db.execute(
        "INSERT INTO approval(channel, release, actor, at_ms, decision, note) VALUES(?,?,?,?,?,?)"
        " ON CONFLICT(channel, release, actor) DO UPDATE SET at_ms=excluded.at_ms, decision=excluded.decision,"
        " note=excluded.note",
        (
            here.channel,
            here.release,
            _spelled(here, by) or by.person,
            by.at_ms,
            decision.value,
            note,
        ),
    )
    audit.note(
        db, by, f"channel.{decision.value}", here.about, release=here.proposal.version, note=note
    )


def _spelled(here: Entry, by: By) -> str | None:
    """As that person's name was written before; None: nothing was said yet."""
    mine = people.key(by.person)
    return next((one.who for one in here.said if people.key(one.who) == mine), None)
