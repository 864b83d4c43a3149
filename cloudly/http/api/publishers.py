"""Publishers: who may push to the registry. The password is in the answer that makes one, and nowhere else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from cloudly.access import Permission
from cloudly.http.api.call import Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterName, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Prefix, PublisherName
from cloudly.store import publishers as store
from cloudly.tokens import new_publisher_password

publishers = Resource("publishers")

NamePath = Annotated[PublisherName, Path(alias="name")]


class PublisherShown(Shown):
    name: str
    prefix: str
    """Below which repositories it may pull and push; empty: everywhere."""
    created_at_ms: int


class PublisherMade(PublisherShown):
    password: str
    """Shown this once; only its hash is kept."""


class NewPublisher(Asked):
    name: PublisherName
    prefix: Prefix = ""


@publishers.on("GET", "/publishers", needs=Permission.PUBLISHERS_READ)
async def list_publishers(
    call: Called, after: AfterName = None, limit: Limit = 100
) -> Page[PublisherShown]:
    """By name."""
    known = await call.read(store.listed)  # an operator makes a handful of them
    rows = [one for one in known if after is None or one.name > after]
    shown, following = page_of(rows, limit, lambda one: one.name)
    return Page(items=[PublisherShown.model_validate(one) for one in shown], next=following)


@publishers.on("POST", "/publishers", needs=Permission.PUBLISHERS_WRITE, status=201)
async def create_publisher(call: Called, new: NewPublisher) -> PublisherMade:
    made = store.Publisher(new.name, new.prefix, call.now_ms)
    password = new_publisher_password(call.desk.world)
    await call.write(lambda db: store.create(db, made, password, by=call.by))
    return PublisherMade(**asdict(made), password=password)


@publishers.on("DELETE", "/publishers/{name}", needs=Permission.PUBLISHERS_WRITE, status=204)
async def revoke_publisher(call: Called, name: NamePath) -> Response:
    """It gets no more tokens of the registry; one that it has ends within minutes."""
    await call.write(lambda db: store.revoke(db, name, by=call.by))
    return Response(status_code=204)
