"""Join tokens: list, make, revoke. The token is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from cloudly.access import Permission
from cloudly.durations import seconds_of
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Duration, FleetName, Words
from cloudly.problems import NoSuch
from cloudly.service import join_tokens as service
from cloudly.store import join_tokens as store
from cloudly.store import lists
from cloudly.tokens import new_join_token

join_tokens = Resource("join tokens")

TokenNumber = Annotated[int, Path(alias="token", ge=1, le=2**53)]


class JoinTokenShown(Shown):
    id: int
    name: str
    fleet: str
    state: str
    """usable, used up, expired or revoked."""
    uses: int
    uses_left: int
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class JoinTokenMade(JoinTokenShown):
    token: str
    """Shown this once; only its hash is kept."""


class NewJoinToken(Asked):
    name: Words = ""
    """What it is for; people read it."""
    uses: int = Field(default=1, ge=1, le=1_000_000)
    expires: Duration = "24h"
    fleet: FleetName = "default"


@join_tokens.on("GET", "/join-tokens", needs=Permission.JOIN_TOKENS_READ)
async def list_join_tokens(
    call: Called, after: AfterNumber = None, limit: Limit = 100
) -> Page[JoinTokenShown]:
    """The newest first."""
    rows = await call.read(lambda db: lists.join_tokens(db, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["id"])
    return Page(items=[_shown(dict(row), call) for row in shown], next=following)


@join_tokens.on("POST", "/join-tokens", needs=Permission.JOIN_TOKENS_WRITE, status=201)
async def create_join_token(call: Called, new: NewJoinToken) -> JoinTokenMade:
    token = new_join_token(call.desk.world)
    ask = service.Ask(new.name, new.uses, seconds_of(new.expires), new.fleet)
    made = await call.write(lambda db: service.create(db, ask, token=token, now_ms=call.now_ms))
    shown = await _found(call, made.number)
    return JoinTokenMade(**shown.model_dump(), token=token)


@join_tokens.on("GET", "/join-tokens/{token}", needs=Permission.JOIN_TOKENS_READ)
async def get_join_token(call: Called, token: TokenNumber) -> JoinTokenShown:
    return await _found(call, token)


@join_tokens.on("POST", "/join-tokens/{token}/revoke", needs=Permission.JOIN_TOKENS_WRITE)
async def revoke_join_token(call: Called, token: TokenNumber) -> JoinTokenShown:
    """From now on it admits nobody. Nodes that enrolled with it stay."""
    await call.write(lambda db: store.revoke(db, token, call.now_ms))
    return await _found(call, token)


async def _found(call: Call, number: int) -> JoinTokenShown:
    row = await call.read(lambda db: lists.join_token(db, number))
    if row is None:
        raise NoSuch("join token", f"there is no join token {number}")
    return _shown(dict(row), call)


def _shown(row: Mapping[str, Any], call: Call) -> JoinTokenShown:
    return JoinTokenShown.model_validate({**row, "state": service.state_of(row, call.now_ms)})
