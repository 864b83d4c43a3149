"""The engine's side of a private registry: ask for the manifest, be sent for a token, come back with it.

Rules:
- The engine asks the realm `?account=d_<uuid>&scope=repository:<name>:pull&service=<host>` with Basic
  `d_<uuid>:<device key>`, once per image pulled; it takes `token`, or `access_token`.
- Where the registry itself can be reached, its challenge names realm, service and scope, and the manifest is asked for
  by digest (or tag) once more with the token. Where it cannot, the token is all there is to it.
- Whatever is refused makes the pull fail: the backend sees `downloading` for ever (README 9), and a log line with the
  engine's words. Only 404 is recorded; the wording of the others follows it.
- No key and no token is in an error.

Source: `backend/first-boot.json` row 23, `backend/updates.json` rows 7, 11, 214; the challenge: the distribution
project's token contract.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

import httpx

from simulators.supervisor.state import Identity

AGENT: Final = "docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 kernel/6.18.44-fc-v669 os/linux arch/amd64"
MANIFESTS: Final = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.oci.image.index.v1+json"
)
WITHIN_S: Final = 15.0
HUB: Final = "registry-1.docker.io"


class PullRefusedError(Exception):
    """An image cannot be pulled. The message is the engine's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def unknown(cls, image: str) -> PullRefusedError:
        return cls(404, f"manifest for {image} not found: manifest unknown: manifest unknown")

    @property
    def as_engine_error(self) -> str:
        """As the Supervisor repeats it."""
        kind = "unexpected" if self.status == 404 else "server error"
        return f"(HTTP code {self.status}) {kind} - {self} "


class Registry(Protocol):
    async def pull(self, identity: Identity, image: str) -> None:
        """Go through what comes before the layers. Raises PullRefusedError."""


@dataclass(frozen=True, slots=True)
class Reference:
    host: str
    name: str
    reference: str
    """A digest, or a tag."""

    @classmethod
    def of(cls, image: str) -> Reference:
        name, at, digest = image.partition("@")
        host, slash, path = name.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, path = HUB, name if slash else f"library/{name}"
        path, _, tag = path.partition(":")
        return cls(host, path, digest if at else tag or "latest")


@dataclass(frozen=True, slots=True)
class Challenge:
    realm: str
    service: str
    scope: str


class TokenRegistry:
    """A registry that wants a token."""

    def __init__(
        self,
        realm: str,
        *,
        registry_url: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`registry_url`: where the registry of every image can be reached; None: it cannot."""
        self._realm = realm
        self._url = registry_url
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(), timeout=WITHIN_S, trust_env=False
        )
        self._client.headers = httpx.Headers({"User-Agent": AGENT, "Accept-Encoding": "gzip"})

    async def aclose(self) -> None:
        await self._client.aclose()

    async def pull(self, identity: Identity, image: str) -> None:
        asked = Reference.of(image)
        challenge = Challenge(self._realm, asked.host, f"repository:{asked.name}:pull")
        if self._url is None:
            await self._token(identity, challenge)
            return
        status, named = await self._manifest(asked, None)
        if status == 401:
            token = await self._token(identity, named or challenge)
            status, _ = await self._manifest(asked, token)
        if status == 404:
            raise PullRefusedError.unknown(image)
        if status >= 300:
            raise PullRefusedError(500, f"unauthorized: the registry answered {status}")

    async def _manifest(self, asked: Reference, token: str | None) -> tuple[int, Challenge | None]:
        headers = {"Accept": MANIFESTS}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self._url}/v2/{asked.name}/manifests/{asked.reference}"
        answer = await self._get(url, headers)
        return answer.status_code, _challenge(answer.headers.get("www-authenticate", ""))

    async def _token(self, identity: Identity, challenge: Challenge) -> str:
        account = f"d_{identity.uuid}"
        basic = base64.b64encode(f"{account}:{identity.device_key}".encode()).decode()
        asked = "&".join(
            f"{name}={quote(value, safe='')}"
            for name, value in (
                ("account", account),
                ("scope", challenge.scope),
                ("service", challenge.service),
            )
        )
        answer = await self._get(f"{challenge.realm}?{asked}", {"Authorization": f"Basic {basic}"})
        if not answer.is_success:
            raise PullRefusedError(
                500, f"unauthorized: the token server answered {answer.status_code}"
            )
        try:
            body = answer.json()
            token = body.get("token") or body.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str):
            raise PullRefusedError(500, "unauthorized: the token server's answer has no token")
        return token

    async def _get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        try:
            return await self._client.get(url, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PullRefusedError(500, f"no answer: {type(error).__name__}") from None


def _challenge(header: str) -> Challenge | None:
    """What `WWW-Authenticate: Bearer realm="…",service="…",scope="…"` asks for; None when it is no such thing."""
    scheme, _, rest = header.partition(" ")
    named = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if scheme.lower() != "bearer" or "realm" not in named:
        return None
    return Challenge(named["realm"], named.get("service", ""), named.get("scope", ""))
