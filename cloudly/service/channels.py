"""Channels as programs ask for them: one in figures, one decision about a release in one, and the channel of a fleet.

Rules:
- What is so already is answered again and not done again, where the same person says the same: a first answer may have
  been lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudly.governance.approvals import Decision
from cloudly.governance.people import key
from cloudly.store import fleets
from cloudly.store.audit import By
from cloudly.store.governance import approving, channels, following
from cloudly.store.governance.channels import Entry
from cloudly.store.releases import find_release
from cloudly.store.sql import Connection, Row

Work = Callable[[Connection, Row, int], Entry]


def described(db: Connection, channel: Row) -> dict[str, Any]:
    """With what it offers, and who follows it."""
    newest = channels.newest(db, channel["id"])
    return {
        **dict(channel),
        "second_person": bool(channel["second_person"]),
        "offers_version": newest and newest["version"],
        "offers_release": newest and newest["commit_id"],
        "fleets": channels.followers(db, channel["id"]),
    }


def listed(db: Connection) -> list[dict[str, Any]]:
    """By name; there are a handful of them."""
    return [described(db, row) for row in channels.listed(db)]


def decide(db: Connection, channel: str, release: str, work: Work) -> Entry:
    """One decision about a release in a channel, by their names. Raises BadOrder."""
    return work(db, channels.find(db, channel), find_release(db, release))


def approve(db: Connection, channel: Row, release: int, by: By, note: str) -> Entry:
    """Raises BadOrder."""
    here = channels.entry(db, channel, release)
    if _has_said(here, by, Decision.APPROVED, note):
        return here
    return approving.approve(db, channel, release, by, note=note)


def refuse(db: Connection, channel: Row, release: int, by: By, note: str) -> Entry:
    """Raises BadOrder."""
    here = channels.entry(db, channel, release)
    if _has_said(here, by, Decision.REFUSED, note):
        return here
    return approving.refuse(db, channel, release, by, note=note)


def set_floor(db: Connection, channel: Row, release: int, by: By, *, on: bool) -> Entry:
    """Raises BadOrder."""
    here = channels.entry(db, channel, release)
    return here if here.is_floor == on else channels.set_floor(db, channel, release, by, on=on)


def follow(db: Connection, fleet: str, channel: str, by: By) -> None:
    """Raises NoSuch."""
    row, to = fleets.find(db, fleet), channels.find(db, channel)
    if row["channel"] != to["name"]:
        following.follow(db, row, to, by)


def _has_said(here: Entry, by: By, decision: Decision, note: str) -> bool:
    """That very word, and it counts still."""
    return not here.proposal.withdrawn and any(
        (key(said.who), said.decision, said.note) == (key(by.person), decision, note)
        for said in here.said
    )
