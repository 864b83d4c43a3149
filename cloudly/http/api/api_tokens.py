"""API tokens themselves: list, make, revoke; and who the one that asks is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path

from cloudly.access import GRANTED, Permission, Role
from cloudly.durations import seconds_of
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Duration, TokenName
from cloudly.store import api_tokens as store
from cloudly.tokens import new_api_token

api_tokens = Resource("API tokens")

NamePath = Annotated[TokenName, Path(alias="name")]


class ApiTokenShown(Shown):
    id: int
    name: str
    role: Role
    state: str
    """usable, expired or revoked."""
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    used_at_ms: int | None
    """The beginning of the day (UTC) on which it was last used."""


class ApiTokenMade(ApiTokenShown):
    token: str
    """Shown this once; only its hash is kept."""


class NewApiToken(Asked):
    name: TokenName
    """Its orders are `api/` and this name's."""
    role: Role
    expires: Duration = "90d"


class Self(Shown):
    name: str
    actor: str
    role: Role
    permissions: list[Permission]


@api_tokens.on("GET", "/self", needs=Permission.API_READ)
async def get_self(call: Called) -> Self:
    """Who asks, and what that one may do."""
    caller = call.caller
    permissions = sorted(GRANTED[caller.role])
    return Self(name=caller.name, actor=caller.actor, role=caller.role, permissions=permissions)


@api_tokens.on("GET", "/api-tokens", needs=Permission.API_TOKENS_READ)
async def list_api_tokens(
    call: Called, after: AfterNumber = None, limit: Limit = 100
) -> Page[ApiTokenShown]:
    """The newest first."""
    rows = await call.read(lambda db: store.listed(db, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["id"])
    return Page(items=[_shown(dict(row), call) for row in shown], next=following)


@api_tokens.on("POST", "/api-tokens", needs=Permission.API_TOKENS_WRITE, status=201)
async def create_api_token(call: Called, new: NewApiToken) -> ApiTokenMade:
    token, lasts_s = new_api_token(call.desk.world), seconds_of(new.expires)
    expires_at_ms = call.now_ms + lasts_s * 1000 if lasts_s else None
    made = store.NewApiToken(token, new.name, new.role, call.now_ms, expires_at_ms)
    number = await call.write(lambda db: store.create(db, made, by=call.by))
    return ApiTokenMade(**(await _found(call, number)).model_dump(), token=token)


@api_tokens.on("POST", "/api-tokens/{name}/revoke", needs=Permission.API_TOKENS_WRITE)
async def revoke_api_token(call: Called, name: NamePath) -> ApiTokenShown:
    """The one of that name that is not revoked admits nobody from now on; it may be the one that asks."""
    number = await call.write(lambda db: store.revoke(db, name, call.now_ms, by=call.by))
    return await _found(call, number)


async def _found(call: Call, number: int) -> ApiTokenShown:
    return _shown(dict(await call.read(lambda db: store.find(db, number))), call)


def _shown(row: Mapping[str, Any], call: Call) -> ApiTokenShown:
    return ApiTokenShown.model_validate({**row, "state": store.state_of(row, call.now_ms)})
