"""The admin API as an application of its own, mounted under `/api/v1`; every route of it is in `RESOURCES`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount

from cloudly.http.api import refusals
from cloudly.http.api.about import about
from cloudly.http.api.api_tokens import api_tokens
from cloudly.http.api.audit import audit
from cloudly.http.api.bans import bans
from cloudly.http.api.call import Desk
from cloudly.http.api.channel_releases import channel_releases
from cloudly.http.api.channels import channels
from cloudly.http.api.described import PREFIX, described
from cloudly.http.api.door import Resource
from cloudly.http.api.fleets import fleets
from cloudly.http.api.join_tokens import join_tokens
from cloudly.http.api.journals import journals
from cloudly.http.api.labels import labels
from cloudly.http.api.nodes import nodes
from cloudly.http.api.pins import pins
from cloudly.http.api.publishers import publishers
from cloudly.http.api.releases import releases
from cloudly.http.api.rollout_orders import rollout_orders
from cloudly.http.api.rollouts import rollouts
from cloudly.http.api.standing import standing
from cloudly.http.api.webhooks import webhooks

RESOURCES: tuple[Resource, ...] = (
    about,
    api_tokens,
    audit,
    bans,
    channel_releases,
    channels,
    fleets,
    join_tokens,
    journals,
    labels,
    nodes,
    pins,
    publishers,
    releases,
    rollout_orders,
    rollouts,
    standing,
    webhooks,
)


def build() -> FastAPI:
    """Without a store behind it: enough to describe it."""
    api = FastAPI(title="Cloudly", docs_url=None, redoc_url=None, openapi_url=None)
    api.openapi = lambda: described(api)  # type: ignore[method-assign]
    api.router.routes[:] = [route for resource in RESOURCES for route in resource.routes]
    api.router.redirect_slashes = False  # an address is what it is
    refusals.install(api)
    return api


def mounted(desk: Desk) -> BaseRoute:
    api = build()
    api.state.desk = desk
    return Mount(PREFIX, app=api)
