"""Join tokens: list, make, revoke, who used one. The token is in the answer that makes it, and nowhere else.

Rules:
- Who makes one may have that answer as the text or the picture that a phone reads. There is no later picture of a
  token, because only its hash is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header, Path
from pydantic import Field, SecretStr
from starlette.responses import Response

from cloudly import labels
from cloudly.access import Permission
from cloudly.durations import seconds_of
from cloudly.http.api.call import Call, Called
from cloudly.http.api.described import PREFIX
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import Duration, FleetName, Labels, Words
from cloudly.join_picture import picture
from cloudly.problems import BadOrder, NoSuch
from cloudly.service import join_tokens as service
from cloudly.store import join_tokens as store
from cloudly.store import lists
from cloudly.tokens import new_join_token
from interfaces.join_code import JoinCode

join_tokens = Resource("join tokens")

TokenNumber = Annotated[int, Path(alias="token", ge=1, le=2**53)]
TEXT, PICTURE = "text/plain", "image/svg+xml"
Accept = Annotated[
    str,
    Header(
        max_length=500,
        description="`image/svg+xml`: the answer is a QR code of Cloudly's public address and the token; `text/plain`:"
        " the text in that code. Else it is JSON.",
    ),
]
AS_CODE: dict[int | str, dict[str, Any]] = {
    201: {
        "content": {kind: {"schema": {"type": "string"}} for kind in (PICTURE, TEXT)},
        "headers": {
            "Location": {"description": "The join token's own.", "schema": {"type": "string"}}
        },
    }
}


class JoinTokenShown(Shown):
    id: int
    name: str
    fleet: str
    labels: dict[str, str]
    """With which its nodes come."""
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
    labels: Labels = Field(default={})
    """With which its nodes come."""


class UseShown(Shown):
    node_id: str
    hostname: str
    at_ms: int
    """Of the half that came first."""
    agent_at_ms: int | None
    """When its agent enrolled."""
    supervisor_at_ms: int | None
    """When its Supervisor registered."""


@join_tokens.on("GET", "/join-tokens", needs=Permission.JOIN_TOKENS_READ)
async def list_join_tokens(
    call: Called, after: AfterNumber = None, limit: Limit = 100
) -> Page[JoinTokenShown]:
    """The newest first."""
    rows = await call.read(lambda db: lists.join_tokens(db, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["id"])
    return Page(items=[_shown(dict(row), call) for row in shown], next=following)


@join_tokens.on(
    "POST",
    "/join-tokens",
    needs=Permission.JOIN_TOKENS_WRITE,
    status=201,
    described=AS_CODE,
    response_model=JoinTokenMade,
)
async def create_join_token(
    call: Called, new: NewJoinToken, accept: Accept = ""
) -> JoinTokenMade | Response:
    """It is shown this once. For a code, `CLOUDLY_PUBLIC_URL` must be set: it says where Cloudly is."""
    token, kind = new_join_token(call.desk.world), _kind(accept)
    address = _address(call) if kind else ""
    given = labels.changed({}, (f"{key}={value}" for key, value in new.labels.items()))
    ask = service.Ask(new.name, new.uses, seconds_of(new.expires), new.fleet, given)
    made = await call.write(lambda db: service.create(db, ask, token=token, by=call.by))
    if not kind:
        shown = await _found(call, made.number)
        return JoinTokenMade(**shown.model_dump(), token=token)
    code = JoinCode(address, SecretStr(token))
    body = picture(code, "svg") if kind == PICTURE else code.text().encode() + b"\n"
    where = {"location": f"{PREFIX}/join-tokens/{made.number}"}
    return Response(body, 201, where, kind)


@join_tokens.on("GET", "/join-tokens/{token}", needs=Permission.JOIN_TOKENS_READ)
async def get_join_token(call: Called, token: TokenNumber) -> JoinTokenShown:
    return await _found(call, token)


@join_tokens.on("GET", "/join-tokens/{token}/uses", needs=Permission.JOIN_TOKENS_READ)
async def list_uses(
    call: Called, token: TokenNumber, after: AfterNumber = None, limit: Limit = 100
) -> Page[UseShown]:
    """Who came with it, when; the nodes that Cloudly has known for longest first."""
    await _found(call, token)
    rows = await call.read(lambda db: store.uses_by_node(db, token, after=after, limit=limit + 1))
    shown, following = page_of(rows, limit, lambda row: row["node"])
    return Page(items=[UseShown.model_validate(dict(row)) for row in shown], next=following)


@join_tokens.on("POST", "/join-tokens/{token}/revoke", needs=Permission.JOIN_TOKENS_WRITE)
async def revoke_join_token(call: Called, token: TokenNumber) -> JoinTokenShown:
    """From now on it admits nobody. Nodes that enrolled with it stay."""
    await call.write(lambda db: store.revoke(db, token, call.now_ms, by=call.by))
    return await _found(call, token)


async def _found(call: Call, number: int) -> JoinTokenShown:
    row = await call.read(lambda db: lists.join_token(db, number))
    if row is None:
        raise NoSuch("join token", f"there is no join token {number}")
    return _shown(dict(row), call)


def _shown(row: Mapping[str, Any], call: Call) -> JoinTokenShown:
    state = service.state_of(row, call.now_ms)
    return JoinTokenShown.model_validate(
        {**row, "state": state, "labels": labels.load(row["labels"])}
    )


def _kind(accept: str) -> str:
    """Which code is wanted: the first that we can make of what is accepted; empty: JSON."""
    for one in accept.lower().split(","):
        kind = one.partition(";")[0].strip()
        if kind in {TEXT, PICTURE}:
            return kind
        if kind in {"application/json", "*/*"}:
            break
    return ""


def _address(call: Call) -> str:
    """Where devices reach Cloudly. Raises BadOrder before anything is made."""
    address = call.desk.settings.public_url
    if address is None:
        raise BadOrder("a code says where Cloudly is, and CLOUDLY_PUBLIC_URL is not set there")
    return address
