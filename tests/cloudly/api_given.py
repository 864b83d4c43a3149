"""What the stories about the admin API begin with: an operator with an API token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from cloudly.access import Role
from cloudly.http.api.app import build
from cloudly.http.api.door import Guarded
from cloudly.store import api_tokens
from cloudly.store.schema import metadata
from cloudly.tokens import new_api_token
from interfaces.world import now_ms
from tests.cloudly.compose_files import file_of
from tests.cloudly.given import UUID, Plane, bearer

API = "/api/v1"
NOBODY = {
    "node": UUID, "fleet": "nowhere", "token": "4711", "name": "nobody", "release": "9.9.9", "diagnosis": "0" * 32,
    "channel": "nowhere", "rollout": "4711", "digest": "sha256:" + "0" * 64,
    "webhook": "nobody", "label": "nobody",
}  # fmt: skip
"""A value for each parameter of a path; what it names is not there unless a story makes it."""


@dataclass
class Operator:
    """A program with an API token."""

    plane: Plane
    token: str

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = bearer(self.token) | options.pop("headers", {})
        return await self.plane.client.request(method, API + path, headers=headers, **options)

    async def get(self, path: str, **query: Any) -> Any:
        """The answer to a GET that must succeed."""
        answer = await self("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def does(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """The answer to an order that must succeed; whatever it changed is in the audit, as this one's."""
        before = seen(self.plane)
        answer = await self(method, path, json=body, **options)
        assert answer.is_success, answer.text
        after = seen(self.plane)
        acts = self.plane.rows("audit")[before.acts :]
        assert acts or before.deeds == after.deeds, f"{method} {path} is in no audit"
        assert {act["actor"][:4] for act in acts} <= {"api/"}
        return answer.json() if "json" in answer.headers.get("content-type", "") else None

    async def errs(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and words of a refusal."""
        answer = await self(method, path, json=body)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        return answer.status_code, answer.json().get("detail", "")

    async def release(self, version: str = "1.0.0", **service: Any) -> Any:
        answer = await self(
            "POST", "/releases", params={"version": version}, content=file_of(service)
        )
        assert answer.status_code == 201, answer.text
        return answer.json()


@dataclass(frozen=True)
class Seen:
    """What the database holds: deeds, and how many acts are in the audit."""

    deeds: dict[str, list[dict[str, Any]]]
    acts: int


NO_DEEDS = frozenset({"audit", "outbox", "delivery", "lease"})
"""What is written of deeds, and who is told; and who leads."""


def seen(plane: Plane) -> Seen:
    """All tables, but what nobody ordered: that an API token was used today."""
    deeds = {
        name: [{key: row[key] for key in row if key != "used_at_ms"} for row in plane.rows(name)]
        for name in metadata.tables
        if name not in NO_DEEDS
    }
    return Seen(
        {name: sorted(rows, key=repr) for name, rows in deeds.items()}, len(plane.rows("audit"))
    )


def operator(
    plane: Plane,
    role: Role = Role.ADMIN,
    name: str | None = None,
    *,
    lasts_ms: int | None = None,
) -> Operator:
    now, token = now_ms(plane.world), new_api_token(plane.world)
    expires = None if lasts_ms is None else now + lasts_ms
    new = api_tokens.NewApiToken(token, name or f"a-{role}", role, now, expires)
    plane.store.write_now(lambda db: api_tokens.create(db, new))
    return Operator(plane, token)


def routes() -> list[Guarded]:
    """All that the API has, from the application itself."""
    found = build().routes
    assert all(isinstance(route, Guarded) for route in found)
    return [route for route in found if isinstance(route, Guarded)]


def requests(route: Guarded) -> Iterator[tuple[str, str]]:
    """Method and address of a route, its parameters filled in."""
    for method in sorted(route.methods or ()):
        yield method, route.path_format.format(**NOBODY)
