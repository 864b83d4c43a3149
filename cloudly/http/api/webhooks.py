"""Webhooks: list, one, make, enable, disable, try, tell again, remove. The secret is in the answer that makes it.

Rules:
- Where a webhook points is looked at as by `cloudly webhook create`: when it is made, and before each connection.
- The path of a URL may be a secret: it is shown to who may write webhooks, and to nobody else.
- The secret is in the data directory of the server that answers (docs/operations.md).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import httpcore
from fastapi import Path
from pydantic import Field, StringConstraints
from starlette.responses import Response

from cloudly.access import Permission, may
from cloudly.http.api.call import Call, Called
from cloudly.http.api.door import Resource
from cloudly.http.api.paging import AfterName, AfterNumber, Asked, Limit, Page, Shown, page_of
from cloudly.http.api.texts import WebhookKind, WebhookName
from cloudly.problems import BadOrder, Refused
from cloudly.service import webhooks as service
from cloudly.store import webhooks as store
from cloudly.store.sql import Row
from cloudly.webhooks import secrets_file, signing
from cloudly.webhooks.addresses import LONGEST_URL, checked_url, not_public, place_of
from cloudly.webhooks.secrets_file import Kept, SecretsUnreadable

webhooks = Resource("webhooks")

NamePath = Annotated[WebhookName, Path(alias="webhook")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
RESOLVE_S = 5.0
MOST_KINDS = 100


class WebhookShown(Shown):
    name: str
    receiver: str
    """Scheme, host and port."""
    url: str | None
    """Null for who may not write webhooks: a path may be a secret."""
    kinds: list[str]
    """Which events it wants; empty: all."""
    state: Literal["enabled", "disabled"]
    disabled_at_ms: int | None
    disabled_why: str
    created_at_ms: int
    delivered: int
    waiting: int
    waiting_since_ms: int | None
    given_up: int


class LastProblem(Shown):
    event: int
    status: int | None
    problem: str
    next_at_ms: int | None
    """Null: it was delivered since, or given up."""


class WebhookDetail(WebhookShown):
    last_problem: LastProblem | None


class WebhookMade(WebhookShown):
    secret: str
    """Shown this once: what receivers verify signatures with."""


class NewWebhook(Asked):
    name: WebhookName
    url: Url
    """https://host/path, asked by POST."""
    kinds: list[WebhookKind] = Field(default=[], max_length=MOST_KINDS)
    """Only these: deployment.*, node.revoked. Empty: all."""
    allow_private: bool = False
    """It may be on the server's own machine, or in its network."""


class RotateAsked(Asked):
    overlap_s: int = Field(default=86_400, ge=0, le=secrets_file.LONGEST_OVERLAP_S)
    """For so long the old secret signs too. 0: it has leaked, and nothing of before signs any more."""


class WebhookRotated(WebhookMade):
    old_until_ms: int | None
    """Until then the old secret signs beside the new one. Null: it signs no more."""


class DeliveryShown(Shown):
    event: int
    kind: str
    at_ms: int
    state: str
    """delivered, given up, due, or waiting for its next attempt."""
    attempts: int
    queued_at_ms: int
    next_at_ms: int | None
    done_at_ms: int | None
    status: int | None
    """What the receiver answered last."""
    problem: str


class ReplayAsked(Asked):
    """One of both."""

    since_ms: int | None = Field(default=None, ge=0, le=2**53)
    """All of its kinds since then."""
    event: int | None = Field(default=None, ge=1, le=2**53)
    """This one, whatever kind it is."""


class Replayed(Shown):
    events: int


class Tried(Shown):
    taken: bool
    status: int | None
    problem: str


@webhooks.on("GET", "/webhooks", needs=Permission.WEBHOOKS_READ)
async def list_webhooks(
    call: Called, after: AfterName = None, limit: Limit = 100
) -> Page[WebhookShown]:
    """By name."""
    known = await call.read(store.listed)  # an operator makes a handful of them
    rows = [row for row in known if after is None or row["name"] > after]
    page, following = page_of(rows, limit, lambda row: row["name"])
    return Page(items=[WebhookShown(**_told(row, call)) for row in page], next=following)


@webhooks.on("POST", "/webhooks", needs=Permission.WEBHOOKS_WRITE, status=201)
async def create_webhook(call: Called, new: NewWebhook) -> WebhookMade:
    """Receivers verify by Standard Webhooks. Only public addresses, unless `allow_private` says otherwise."""
    try:
        checked_url(new.url)
    except BadOrder as problem:
        raise Refused("malformed", f"body.url: {problem}") from None
    if not new.allow_private:
        await _must_be_public(call, new.url)
    desk = call.desk
    kept = Kept(signing.new_secret(desk.world), new.allow_private)
    asked = service.New(new.name, new.url, tuple(new.kinds))
    make = partial(service.create, directory=desk.settings.data_dir, new=asked, kept=kept)
    await call.write(partial(make, by=call.by))
    return WebhookMade(**await _found(call, new.name), secret=kept.secret)


@webhooks.on("GET", "/webhooks/{webhook}", needs=Permission.WEBHOOKS_READ)
async def get_webhook(call: Called, webhook: NamePath) -> WebhookDetail:
    """With the problem of the newest delivery that has one."""
    found = await _found(call, webhook)
    problem = await call.read(lambda db: store.last_problem(db, found["id"]))
    return WebhookDetail(**found, last_problem=problem and LastProblem.model_validate(problem))


@webhooks.on("DELETE", "/webhooks/{webhook}", needs=Permission.WEBHOOKS_WRITE, status=204)
async def delete_webhook(call: Called, webhook: NamePath) -> Response:
    """With its secret, and what waits for it."""
    directory = call.desk.settings.data_dir
    try:
        kept = secrets_file.read(directory).get(webhook)
    except SecretsUnreadable:
        kept = None
    await call.write(lambda db: service.delete(db, webhook, call.by))
    if kept is not None:
        secrets_file.remove(directory, webhook, kept)
    return Response(status_code=204)


@webhooks.on("GET", "/webhooks/{webhook}/deliveries", needs=Permission.WEBHOOKS_READ)
async def list_deliveries(
    call: Called, webhook: NamePath, after: AfterNumber = None, limit: Limit = 100
) -> Page[DeliveryShown]:
    """The newest events first; they are kept for a week, and longer while they wait."""
    hook = (await _found(call, webhook))["id"]
    rows = await call.read(lambda db: store.deliveries(db, hook, after=after, limit=limit + 1))
    page, following = page_of(rows, limit, lambda row: row["event"])
    shown = [dict(row) | {"state": service.state_of(row, call.now_ms)} for row in page]
    return Page(items=[DeliveryShown.model_validate(one) for one in shown], next=following)


@webhooks.on("POST", "/webhooks/{webhook}/enable", needs=Permission.WEBHOOKS_WRITE)
async def enable_webhook(call: Called, webhook: NamePath) -> WebhookShown:
    """It is told again, first what waited; what happened meanwhile can be replayed."""
    await call.write(lambda db: service.enable(db, webhook, call.by))
    return WebhookShown(**await _found(call, webhook))


@webhooks.on("POST", "/webhooks/{webhook}/disable", needs=Permission.WEBHOOKS_WRITE)
async def disable_webhook(call: Called, webhook: NamePath) -> WebhookShown:
    """It is told nothing from now on."""
    await call.write(lambda db: service.disable(db, webhook, call.by))
    return WebhookShown(**await _found(call, webhook))


@webhooks.on("POST", "/webhooks/{webhook}/rotate", needs=Permission.WEBHOOKS_WRITE)
async def rotate_webhook(call: Called, webhook: NamePath, asked: RotateAsked) -> WebhookRotated:
    """A new secret. If the answer does not come, rotate again: nobody has seen the one that was made."""
    shown, directory = await _found(call, webhook), call.desk.settings.data_dir
    secret, overlap_s = signing.new_secret(call.desk.world), asked.overlap_s
    rotation = service.Rotation(directory, webhook, secret, overlap_s=overlap_s, by=call.by)
    try:
        await call.write(rotation.decide)
    except Exception:
        rotation.take_back()
        raise
    until_ms = call.now_ms + overlap_s * 1000 if overlap_s else None
    return WebhookRotated(**shown, secret=secret, old_until_ms=until_ms)


@webhooks.on("POST", "/webhooks/{webhook}/replay", needs=Permission.WEBHOOKS_WRITE)
async def replay_webhook(call: Called, webhook: NamePath, asked: ReplayAsked) -> Replayed:
    """It is told again what happened, with the same ids."""
    if (asked.since_ms is None) == (asked.event is None):
        raise Refused("malformed", "body: say since_ms or event.")
    again = partial(service.replay, since_ms=asked.since_ms, event=asked.event, by=call.by)
    return Replayed(events=await call.write(lambda db: again(db, webhook)))


@webhooks.on("POST", "/webhooks/{webhook}/test", needs=Permission.WEBHOOKS_WRITE)
async def test_webhook(call: Called, webhook: NamePath) -> Tried:
    """An event of kind `webhook.test` at once, from the server that answers; it waits for the receiver, up to 15 s."""
    desk = call.desk
    await _found(call, webhook)
    kept = service.secret_of(desk.settings.data_dir, webhook)
    url = await call.write(lambda db: service.about_to_test(db, webhook, call.by))
    way = desk.ways(kept.allow_private, desk.settings.root_ca)
    outcome = await service.send_test(way, url, webhook, kept, call.now_ms)
    return Tried(taken=outcome.is_taken, status=outcome.status, problem=outcome.problem)


async def _must_be_public(call: Call, url: str) -> None:
    """The rules of the command; the words name neither the host nor what it means. Raises Refused."""
    try:
        found = await call.desk.meanings(*place_of(url), RESOLVE_S)
    except (httpcore.ConnectError, httpcore.ConnectTimeout):
        raise Refused("conflict", "The URL's host means no address: is the name right?") from None
    if not_public(found) is not None:
        raise Refused(
            "conflict", "The URL's host has no public address; if it is meant, say allow_private."
        )


async def _found(call: Call, name: str) -> dict[str, Any]:
    """Raises NoSuch."""
    return _told(await call.read(lambda db: store.find(db, name)), call)


def _told(row: Row, call: Call) -> dict[str, Any]:
    told = service.shown(row)
    return told if may(call.caller.role, Permission.WEBHOOKS_WRITE) else told | {"url": None}
