"""A private registry whose token server is Cloudly: the way of an image to a device, and what is refused on it.

The registry here checks each token with the certificate that Cloudly hands out. That a real one takes these tokens is a
story of tests/cloudly/test_real_registry.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from cryptography.x509 import load_pem_x509_certificate
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from interfaces.world import now_ms
from simulators.supervisor.registry import Registry, TokenRegistry
from simulators.world import run_virtual
from tests.world.kit import CLOUDLY_URL, Place, a_place

HOST = "registry.example"
"""Where the images of the kit are."""


class PrivateRegistry:
    """Gives a manifest to whoever has a token of Cloudly for it."""

    def __init__(self, data_dir: Path) -> None:
        self._certificates = data_dir / "registry" / "token.crt"
        self.answers: list[int] = []
        self.app = Starlette(routes=[Route("/v2/{name:path}/manifests/{what}", self.manifest)])

    async def manifest(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        name = request.path_params["name"]
        granted = scheme == "Bearer" and name in self._pullable(token)
        self.answers.append(200 if granted else 401)
        if granted:
            return Response("{}")
        challenge = f'Bearer realm="{CLOUDLY_URL}/auth/v1/token",service="{HOST}",scope="repository:{name}:pull"'
        return Response(status_code=401, headers={"www-authenticate": challenge})

    def _pullable(self, token: str) -> set[str]:
        certificate = load_pem_x509_certificate(self._certificates.read_bytes())
        key = ECKey.import_key(certificate.public_key())  # type: ignore[arg-type]
        roomy = JWSRegistry(algorithms=["ES256"])
        roomy.max_header_length = 4096  # the certificate is in it
        claims: dict[str, Any] = jwt.decode(token, key, registry=roomy).claims
        assert claims["aud"] == HOST
        return {one["name"] for one in claims["access"] if one["actions"] == ["pull"]}


class Both(httpx.AsyncBaseTransport):
    """The registry and its token server, by host."""

    def __init__(self, registry: ASGIApp, cloudly: ASGIApp) -> None:
        self._registry = httpx.ASGITransport(registry)
        self._cloudly = httpx.ASGITransport(cloudly)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        where = self._registry if request.url.host == HOST else self._cloudly
        return await where.handle_async_request(request)


def behind(registry: PrivateRegistry) -> Any:
    def engine(cloudly: ASGIApp) -> Registry:
        return TokenRegistry(
            f"{CLOUDLY_URL}/auth/v1/token",
            registry_url=f"https://{HOST}",
            transport=Both(registry.app, cloudly),
        )

    return engine


def test_an_image_of_a_private_registry_gets_to_the_device_that_wants_it(tmp_path: Path) -> None:
    registry = PrivateRegistry(tmp_path / "cloudly")

    async def story() -> None:
        async with a_place(tmp_path, registry=behind(registry), registry_service=HOST) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "succeeded")

    run_virtual(story)

    assert registry.answers == [401, 200]  # asked, sent for a token, come back with it


def test_a_device_that_was_revoked_pulls_nothing_any_more(tmp_path: Path) -> None:
    registry = PrivateRegistry(tmp_path / "cloudly")

    async def story() -> None:
        async with a_place(tmp_path, registry=behind(registry), registry_service=HOST) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.to_backend.plugged = False  # its Supervisor has the target, and pulls by itself
            place.set_release("1.0.0")
            revoke(place)
            place.to_backend.plugged = True
            await place.world.sleep(1200)

    run_virtual(story)

    assert 200 not in registry.answers


def test_without_a_token_server_nothing_is_pulled_and_the_update_says_so(tmp_path: Path) -> None:
    registry = PrivateRegistry(tmp_path / "cloudly")

    async def story() -> str:
        async with a_place(tmp_path, registry=behind(registry)) as place:
            place.start_agent()
            await place.until_state("enrollment/1", "enrolled")
            place.set_release("1.0.0")
            await place.until_state("app-update/1", "downloading")
            await place.world.sleep(300)
            return place.state("app-update/1") or ""

    assert run_virtual(story) == "downloading"
    assert 200 not in registry.answers
    assert registry.answers


def revoke(place: Place) -> None:
    now = now_ms(place.cloudly_world)
    place.store.write_now(lambda db: db.execute("UPDATE node SET revoked_at_ms=?", (now,)).rowcount)
