"""A pull from a private registry: the recorded question for a token, and the challenge before it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.supervisor.registry import PullRefusedError, Reference, TokenRegistry
from simulators.supervisor.state import Identity
from simulators.world import run_virtual
from tests.simulators.recorded_backend import recorded_rows
from tests.simulators.recorded_lab import RecordedLab
from tests.simulators.test_recorded_backend import attempt, updated

KEY = "c0ffee00" * 4
IDENTITY = Identity("6ed0237ee31345bf8e22e93fd7b65839", KEY, 1234)
IMAGE = "registry.example:5001/v2/agent@sha256:" + "1" * 64


@dataclass
class PrivateRegistry:
    """A registry and its token server, in one app."""

    manifests: int = 200
    tokens: int = 200
    body: Any = field(default_factory=lambda: {"token": "a.signed.token"})
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def transport(self) -> httpx.AsyncBaseTransport:
        routes = [
            Route("/v2/{name:path}/manifests/{reference}", self._manifest),
            Route("/token", self._token),
        ]
        return httpx.ASGITransport(Starlette(routes=routes))

    async def _manifest(self, request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        self.asked.append(("manifest", request.url.path, authorization))
        if authorization != "Bearer a.signed.token":
            scope = f"repository:{request.path_params['name']}:pull"
            realm = (
                f'Bearer realm="https://tokens.example/token",service="its-name",scope="{scope}"'
            )
            return Response(status_code=401, headers={"www-authenticate": realm})
        return Response(status_code=self.manifests)

    async def _token(self, request: Request) -> Response:
        query = request.scope["query_string"].decode()
        self.asked.append(("token", query, request.headers["authorization"]))
        return JSONResponse(self.body, self.tokens)


def pull(registry: PrivateRegistry, image: str = IMAGE) -> None:
    async def story() -> None:
        client = TokenRegistry(
            "https://configured.example/token",
            registry_url="https://registry.example",
            transport=registry.transport(),
        )
        await client.pull(IDENTITY, image)
        await client.aclose()

    run_virtual(story)


def test_the_engine_asks_for_a_token_exactly_as_recorded(tmp_path: Path) -> None:
    rows = recorded_rows("updates", 1, 8)
    recorded = next(row for row in rows if row["seq"] == 7)["request"]

    lab = attempt(tmp_path, rows, updated, name="lab-initial", registered=True)

    asked = next(it for it in lab.backend.requests if "/auth/v1/token" in it[1])
    key = lab.supervisor.kept.identity.device_key
    assert asked[1] == recorded["path"]
    headers = dict(recorded["headers"])
    assert asked[2]["user-agent"] == headers["User-Agent"]
    basic = base64.b64decode(asked[2]["authorization"].removeprefix("Basic ")).decode()
    assert basic == f"d_{lab.supervisor.kept.identity.uuid}:{key}"


def test_a_registry_that_can_be_reached_sends_for_a_token_and_is_asked_again() -> None:
    registry = PrivateRegistry()

    pull(registry)

    kinds = [kind for kind, _, _ in registry.asked]
    assert kinds == ["manifest", "token", "manifest"]
    assert registry.asked[0][1] == "/v2/v2/agent/manifests/sha256:" + "1" * 64
    assert registry.asked[1][1] == (
        f"account=d_{IDENTITY.uuid}&scope=repository%3Av2%2Fagent%3Apull&service=its-name"
    )


@pytest.mark.parametrize(
    ("registry", "status"),
    [
        (PrivateRegistry(tokens=401), 500),
        (PrivateRegistry(tokens=403), 500),
        (PrivateRegistry(body={}), 500),
        (PrivateRegistry(body=["token"]), 500),
        (PrivateRegistry(body={"token": "another"}), 500),
        (PrivateRegistry(manifests=404), 404),
        (PrivateRegistry(manifests=503), 500),
    ],
)
def test_whatever_is_refused_is_a_pull_that_fails_and_tells_no_secret(
    registry: PrivateRegistry, status: int
) -> None:
    with pytest.raises(PullRefusedError) as refused:
        pull(registry)

    assert refused.value.status == status
    shown = f"{refused.value} {refused.value.as_engine_error} {refused.value!r}"
    assert KEY not in shown
    assert base64.b64encode(f"d_{IDENTITY.uuid}:{KEY}".encode()).decode() not in shown
    assert "a.signed.token" not in shown


def test_an_older_token_server_says_access_token() -> None:
    pull(PrivateRegistry(body={"access_token": "a.signed.token"}))


def test_a_refused_token_is_downloading_for_ever_for_the_backend_and_a_line_in_the_log(
    tmp_path: Path,
) -> None:
    async def story(lab: RecordedLab) -> None:
        await lab.pass_(30)
        lab.backend.refuse_tokens = 401
        lab.backend.skip_to(recorded_rows("first-boot", 20, 22))
        lab.backend.go_on()
        await lab.update()
        await lab.pass_(900)

    lab = attempt(tmp_path, recorded_rows("first-boot", 1, 8), story, name="lab-initial")

    assert lab.backend.left == []
    reported = str([body for *_, body in lab.backend.requests if body])
    assert "downloading" in reported
    assert "Running" not in reported
    assert "failed" not in reported
    failed = [line for line in lab.backend.lines if "Failed to download image '" in line["message"]]
    assert len(failed) > 5
    assert failed[0]["isStdErr"] is True
    assert lab.supervisor.kept.identity.device_key not in str(lab.backend.lines)


@pytest.mark.parametrize(
    ("image", "host", "name", "reference"),
    [
        ("127.0.0.1:5001/lab/svc@sha256:ab", "127.0.0.1:5001", "lab/svc", "sha256:ab"),
        ("registry.example/lab/svc:v1", "registry.example", "lab/svc", "v1"),
        ("localhost/svc", "localhost", "svc", "latest"),
        ("alpine", "registry-1.docker.io", "library/alpine", "latest"),
        ("alpine:3", "registry-1.docker.io", "library/alpine", "3"),
        ("team/svc:3", "registry-1.docker.io", "team/svc", "3"),
    ],
)
def test_an_image_name_says_registry_repository_and_version(
    image: str, host: str, name: str, reference: str
) -> None:
    assert Reference.of(image) == Reference(host, name, reference)
