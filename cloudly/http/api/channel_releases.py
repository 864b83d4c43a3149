"""Releases in a channel: proposed, agreed to or not, published, withdrawn; and which of them no upgrade may skip."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from cloudly.access import Permission
from cloudly.governance import approvals
from cloudly.http.api.call import Call, Called
from cloudly.http.api.channels import ChannelPath
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Note, Reason, ReleaseName
from cloudly.service import channels as service
from cloudly.service.channels import Work
from cloudly.store.governance import approving
from cloudly.store.governance import channels as store
from cloudly.store.governance.channels import Entry
from cloudly.store.sql import Connection, Row

channel_releases = Resource("channels")

ReleasePath = Annotated[
    ReleaseName,
    Path(alias="release", description="Its commit, the beginning of it, or its version."),
]
HERE = "/channels/{channel}/releases/{release}"


class WordShown(Shown):
    who: str
    decision: approvals.Decision
    at_ms: int
    note: str


class EntryShown(Shown):
    seq: int
    """Its place in the channel: which release is newer."""
    version: str
    release: str
    state: approvals.State
    missing: str
    """What it waits for before it is published, in words; empty: nothing, or it is published or withdrawn."""
    is_floor: bool
    """No upgrade within the channel may skip it."""
    banned: str
    """Why it is given to nobody; empty: it is not banned."""
    proposed_by: str
    proposed_at_ms: int
    note: str
    said: list[WordShown]
    published_at_ms: int | None
    withdrawn_at_ms: int | None
    withdrawn_by: str
    withdrawn_why: str


class Proposed(Asked):
    release: ReleaseName
    floor: bool = False
    note: Note = ""
    """For those who approve it."""


class Approved(Asked):
    note: Note = ""


class RefusedFor(Asked):
    note: Reason
    """Why not; who proposed it will ask."""


class Withdrawn(Asked):
    reason: Reason


class FloorAsked(Asked):
    floor: bool


NO_NOTE = Approved()


@channel_releases.on("GET", "/channels/{channel}/releases", needs=Permission.CHANNELS_READ)
async def list_channel_releases(
    call: Called, channel: ChannelPath, after: AfterNumber = None, limit: Limit = 100
) -> Page[EntryShown]:
    """The newest first, with what was said of each."""
    before = store.LAST if after is None else after
    found = await call.read(
        lambda db: store.entries(db, store.find(db, channel), before=before, limit=limit + 1)
    )
    shown, following = page_of(found, limit, lambda one: one.seq)
    return Page(items=[_shown(one) for one in shown], next=following)


@channel_releases.on(
    "POST", "/channels/{channel}/releases", needs=Permission.CHANNELS_WRITE, status=201
)
async def propose(call: Called, channel: ChannelPath, asked: Proposed) -> EntryShown:
    """After all others; it is published when enough persons have agreed, or at once where none is needed."""

    def work(db: Connection, row: Row, release: int) -> Entry:
        return store.propose(db, row, release, call.by, floor=asked.floor, note=asked.note)

    return await _decided(call, channel, asked.release, work)


@channel_releases.on("GET", HERE, needs=Permission.CHANNELS_READ)
async def get_channel_release(
    call: Called, channel: ChannelPath, release: ReleasePath
) -> EntryShown:
    return _shown(await call.read(lambda db: service.decide(db, channel, release, store.entry)))


@channel_releases.on("POST", f"{HERE}/approve", needs=Permission.RELEASES_APPROVE)
async def approve_release(
    call: Called, channel: ChannelPath, release: ReleasePath, said: Approved = NO_NOTE
) -> EntryShown:
    """Say yes; the yes that was missing publishes it. Who proposed it counts only where no second person is wanted."""
    return await _decided(
        call,
        channel,
        release,
        lambda db, row, one: service.approve(db, row, one, call.by, said.note),
    )


@channel_releases.on("POST", f"{HERE}/refuse", needs=Permission.RELEASES_APPROVE)
async def refuse_release(
    call: Called, channel: ChannelPath, release: ReleasePath, said: RefusedFor
) -> EntryShown:
    """Say no: nothing publishes it until you say otherwise."""
    return await _decided(
        call,
        channel,
        release,
        lambda db, row, one: service.refuse(db, row, one, call.by, said.note),
    )


@channel_releases.on("POST", f"{HERE}/take-back", needs=Permission.RELEASES_APPROVE)
async def take_back_word(call: Called, channel: ChannelPath, release: ReleasePath) -> EntryShown:
    """Take your word back, whichever it was. A refusal that is gone may publish it."""
    return await _decided(
        call, channel, release, lambda db, row, one: approving.take_back(db, row, one, call.by)
    )


@channel_releases.on("POST", f"{HERE}/publish", needs=Permission.CHANNELS_WRITE)
async def publish(call: Called, channel: ChannelPath, release: ReleasePath) -> EntryShown:
    """What all have agreed to and a ban, or an older policy, held up; otherwise it happens by itself."""
    return await _decided(
        call, channel, release, lambda db, row, one: store.publish(db, row, one, call.by)
    )


@channel_releases.on("POST", f"{HERE}/withdraw", needs=Permission.CHANNELS_WRITE)
async def withdraw(
    call: Called, channel: ChannelPath, release: ReleasePath, said: Withdrawn
) -> EntryShown:
    """From now on the channel does not offer it, for good. What runs it keeps it."""
    return await _decided(
        call,
        channel,
        release,
        lambda db, row, one: store.withdraw(db, row, one, call.by, said.reason),
    )


@channel_releases.on("PUT", f"{HERE}/floor", needs=Permission.CHANNELS_WRITE)
async def set_floor(
    call: Called, channel: ChannelPath, release: ReleasePath, asked: FloorAsked
) -> EntryShown:
    """Whether no upgrade within the channel may skip it."""
    return await _decided(
        call,
        channel,
        release,
        lambda db, row, one: service.set_floor(db, row, one, call.by, on=asked.floor),
    )


async def _decided(call: Call, channel: str, release: str, work: Work) -> EntryShown:
    return _shown(await call.write(lambda db: service.decide(db, channel, release, work)))


def _shown(one: Entry) -> EntryShown:
    has_ended = one.proposal.published or one.proposal.withdrawn
    return EntryShown.model_validate(
        {
            "version": one.proposal.version,
            "release": one.commit,
            "state": one.proposal.state,
            "missing": "" if has_ended else approvals.missing(one.proposal),
            "proposed_by": one.proposal.proposed_by,
            **{name: getattr(one, name) for name in _SAME},
        }
    )


_SAME = (
    "seq", "is_floor", "banned", "proposed_at_ms", "note", "said", "published_at_ms", "withdrawn_at_ms", "withdrawn_by",
    "withdrawn_why",
)  # fmt: skip
