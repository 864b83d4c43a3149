"""The token server of a standard registry: `GET /auth/v1/token`, as the engine on a device asks it, and a publisher.

Rules:
- Basic auth only: `d_<uuid>` with the device key of its Supervisor, or a publisher with its password.
- What may be had is decided by `registry_scopes`, from the target at this moment; a token lives for minutes.
- `issued_at` is left out, as the contract allows: a client adds `expires_in` to it and compares with its OWN clock. A
  device whose clock is behind would go on using a token that has ended, and its pull would fail in the middle.
- POST is answered with 404, its body unread: that is how a client learns to ask with GET.

Source: distribution's "Token Authentication Specification"; supervisor/backend/first-boot.json, seq 23.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloudly.balena.registry_keys import TOKEN_S, Signer
from cloudly.balena.registry_scopes import May, device_may, granted, publisher_may
from cloudly.http.answers import NO_STORE, problem_answer
from cloudly.problems import Refused
from cloudly.settings import Settings
from cloudly.store import publishers
from cloudly.store.store import Store
from cloudly.store.targets import target_of
from interfaces.world import World, new_id, now_ms

log = logging.getLogger("cloudly")

PATH = "/auth/v1/token"
MAX_QUERY = 8 * 1024
"""An engine asks for one repository, a builder for a handful of at most 255 characters each."""
MAX_BASIC = 512
BACKDATED_S = 10  # as in the recorded token
DEVICE = "d_"


@dataclass(frozen=True, slots=True)
class Asker:
    name: str
    may: May


class RegistryTokens:
    def __init__(self, store: Store, world: World, settings: Settings) -> None:
        self._store = store
        self._world = world
        self._service = settings.registry_service
        self._issuer = settings.registry_issuer
        self._signer = Signer(settings.data_dir, world)

    def routes(self) -> list[Route]:
        return [Route(PATH, self.token, methods=["GET", "POST"])]

    async def token(self, request: Request) -> Response:
        if self._service is None:
            raise Refused("not-found", "No registry: CLOUDLY_REGISTRY_SERVICE is not set.")
        if request.method == "POST":
            raise Refused("not-found", "Tokens are asked for with GET.")
        try:
            asker = await self._asker(request.headers.get("authorization"), self._service)
        except Refused as refused:
            return _who_are_you(refused)
        scopes = scopes_of(request, self._service)
        return JSONResponse(self._answer(asker, scopes, self._service), headers=NO_STORE)

    def _answer(self, asker: Asker, scopes: list[str], service: str) -> dict[str, object]:
        access = granted(scopes, asker.may)
        if scopes and not access:
            log.info(
                "nothing of what was asked of the registry is granted",
                extra={"values": {"who": asker.name}},
            )
        now_s = now_ms(self._world) // 1000
        token = self._signer.sign(
            {
                "iss": self._issuer,
                "sub": asker.name,
                "aud": service,
                "exp": now_s + TOKEN_S,
                "nbf": now_s - BACKDATED_S,
                "iat": now_s,
                "jti": new_id(self._world),
                "access": access,
            }
        )
        return {"token": token, "access_token": token, "expires_in": TOKEN_S}

    async def _asker(self, authorization: str | None, host: str) -> Asker:
        """Who asks, and what that one may have. Raises Refused."""
        name, password = basic(authorization)
        if not name.startswith(DEVICE):
            publisher = await self._store.read(
                lambda db: publishers.authenticate(db, name, password)
            )
            if publisher is None:
                raise Refused("login-unknown")
            return Asker(name, publisher_may(publisher.prefix))
        node, uuid = await self._device(password)
        if name != DEVICE + uuid:
            raise Refused("login-unknown")
        release = (await self._store.read(lambda db: target_of(db, node))).release
        images = [service.image for service in release.services] if release else []
        return Asker(name, device_may(images, host))

    async def _device(self, key: str) -> tuple[int, str]:
        try:
            return await self._store.authenticate_device(key)
        except Refused as refused:
            if refused.problem.code == "node-unknown":
                raise Refused("login-unknown") from None
            raise


def basic(authorization: str | None) -> tuple[str, str]:
    """Name and password of an `Authorization: Basic` header. Raises Refused, which holds nothing of it."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > MAX_BASIC:
        raise Refused("login-unknown")
    try:
        name, colon, password = (
            base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        )
    except ValueError:  # not base64, or not UTF-8 in it
        raise Refused("login-unknown") from None
    if not (name and colon and password):
        raise Refused("login-unknown")
    return name, password


def scopes_of(request: Request, service: str) -> list[str]:
    """The `scope` parameters of a request for a token of this service. Raises Refused."""
    if len(request.scope["query_string"]) > MAX_QUERY:
        raise Refused("too-large", f"A query of at most {MAX_QUERY} bytes is taken.", status=414)
    if set(request.query_params.getlist("service")) != {service}:
        raise Refused("malformed", f"service: tokens are made for {service} only", status=400)
    return [one for one in request.query_params.getlist("scope") if one]


def _who_are_you(refused: Refused) -> Response:
    answer = problem_answer(refused.problem)
    answer.headers["www-authenticate"] = 'Basic realm="cloudly registry", charset="UTF-8"'
    return answer
