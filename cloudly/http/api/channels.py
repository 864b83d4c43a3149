"""Channels: list, make, remove, how many must agree in one, and which fleets follow it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field, model_validator
from starlette.responses import Response

from cloudly.access import Permission
from cloudly.governance.approvals import MOST_APPROVALS
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.fleets import FleetPath
from cloudly.http.api.paging import AfterName, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import ChannelName
from cloudly.service import channels as service
from cloudly.store import fleets
from cloudly.store.governance import channel_policy, following
from cloudly.store.governance import channels as store

channels = Resource("channels")

ChannelPath = Annotated[ChannelName, Path(alias="channel")]


class Policy(Asked):
    approvals: int | None = Field(default=None, ge=0, le=MOST_APPROVALS)
    """How many persons must say yes before a release is published; null: as few as can be."""
    second_person: bool = False
    """The yes of who proposed it does not count."""

    @model_validator(mode="after")
    def _somebody_else_is_somebody(self) -> Policy:
        if self.second_person and self.approvals == 0:
            raise ValueError("a second person is one approval at least")
        return self


class NewChannel(Policy):
    name: ChannelName


class ChannelShown(Shown):
    name: str
    created_at_ms: int
    approvals: int
    """How many persons must say yes before a release is published."""
    second_person: bool
    published: int
    """Releases, without those that were withdrawn."""
    waiting: int
    offers_version: str | None
    """What a node gets that enrolls into a fleet that follows it."""
    offers_release: str | None
    fleets: list[str]
    """That follow it."""


class FollowAsked(Asked):
    channel: ChannelName


class Followed(Shown):
    fleet: str
    channel: str


@channels.on("GET", "/channels", needs=Permission.CHANNELS_READ)
async def list_channels(
    call: Called, after: AfterName = None, limit: Limit = 100
) -> Page[ChannelShown]:
    """By name."""
    known = await call.read(service.listed)  # an operator makes a handful of them
    rows = [one for one in known if after is None or one["name"] > after]
    shown, following_ = page_of(rows, limit, lambda one: one["name"])
    return Page(items=[ChannelShown.model_validate(one) for one in shown], next=following_)


@channels.on("POST", "/channels", needs=Permission.CHANNELS_WRITE, status=201)
async def create_channel(call: Called, new: NewChannel) -> ChannelShown:
    """With nothing said, what is proposed there is published at once."""
    needed, second = new.approvals, new.second_person
    await call.write(
        lambda db: store.create(
            db, new.name, call.by, approvals_needed=needed, second_person=second
        )
    )
    return await _shown(call, new.name)


@channels.on("GET", "/channels/{channel}", needs=Permission.CHANNELS_READ)
async def get_channel(call: Called, channel: ChannelPath) -> ChannelShown:
    return await _shown(call, channel)


@channels.on("DELETE", "/channels/{channel}", needs=Permission.CHANNELS_WRITE, status=204)
async def remove_channel(call: Called, channel: ChannelPath) -> Response:
    """One that no fleet follows and that has no floor. Nodes keep what they run."""
    await call.write(lambda db: channel_policy.remove(db, store.find(db, channel), call.by))
    return Response(status_code=204)


@channels.on("PUT", "/channels/{channel}/policy", needs=Permission.CHANNELS_GOVERN)
async def set_policy(call: Called, channel: ChannelPath, policy: Policy) -> ChannelShown:
    """How many must agree to what is not published yet. It publishes nothing by itself."""
    needed, second = policy.approvals, policy.second_person
    await call.write(
        lambda db: channel_policy.set_policy(
            db, store.find(db, channel), call.by, approvals_needed=needed, second_person=second
        )
    )
    return await _shown(call, channel)


@channels.on("PUT", "/fleets/{fleet}/channel", needs=Permission.CHANNELS_GOVERN)
async def follow(call: Called, fleet: FleetPath, asked: FollowAsked) -> Followed:
    """Its new nodes get what the channel offers, and its nodes may only have what is published there."""
    await call.write(lambda db: service.follow(db, fleet, asked.channel, call.by))
    return Followed(fleet=fleet, channel=asked.channel)


@channels.on("DELETE", "/fleets/{fleet}/channel", needs=Permission.CHANNELS_GOVERN, status=204)
async def unfollow(call: Called, fleet: FleetPath) -> Response:
    """What the channel offers now stays what its new nodes get."""
    await call.write(lambda db: following.unfollow(db, fleets.find(db, fleet), call.by))
    return Response(status_code=204)


async def _shown(call: Call, name: str) -> ChannelShown:
    told = await call.read(lambda db: service.described(db, store.find(db, name)))
    return ChannelShown.model_validate(told)
