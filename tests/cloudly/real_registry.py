"""A real Cloudly and a real registry on loopback, and a client that does the token dance as an engine does it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from cloudly.balena.registry_keys import Signer
from interfaces.world import RealWorld, new_id, now_ms
from tests.cloudly.given import bearer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
READY_S = 30


class Process:
    """A program of ours until `end`, with all that it says; ready when it has said so."""

    def __init__(self, command: list[str], env: dict[str, str], ready: str) -> None:
        self.said: list[str] = []
        self.found = ""
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(re.compile(ready),), daemon=True)
        self._reader.start()
        if not self._ready.wait(READY_S) or not self.found:
            self.end()
            raise AssertionError(f"{command} did not get ready: {''.join(self.said)[-3000:]}")

    def _read(self, ready: re.Pattern[str]) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            found = None if self.found else ready.search(line)
            if found:
                self.found = found[1]
                self._ready.set()
        self._ready.set()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._reader.join(timeout=20)
        if self._process.stderr is not None:
            self._process.stderr.close()


@dataclass(frozen=True)
class Image:
    """One layer, its config and its manifest, by digest."""

    layer: bytes
    config: bytes = (
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    )

    @property
    def manifest(self) -> bytes:
        def part(kind: str, blob: bytes) -> dict[str, Any]:
            return {"mediaType": kind, "size": len(blob), "digest": digest(blob)}

        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": part("application/vnd.docker.container.image.v1+json", self.config),
                "layers": [part("application/vnd.docker.image.rootfs.diff.tar.gzip", self.layer)],
            }
        ).encode()


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


@dataclass
class Login:
    """An engine with one credential: 401 -> token -> the same request again."""

    client: httpx.Client
    auth: tuple[str, str]
    dances: list[httpx.Response] = field(default_factory=list)
    """The token server's answers."""

    def ask(self, method: str, path: str, token: str | None = None, **parts: Any) -> httpx.Response:
        """With that token if there is one, and else by the dance."""
        if token is not None:
            return self.client.request(method, path, headers=bearer(token), **parts)
        answer = self.client.request(method, path, **parts)
        if answer.status_code != 401:
            return answer
        headers = {**parts.pop("headers", {})}
        token = self.token(answer.headers["www-authenticate"])
        if token is None:
            return answer
        return self.client.request(method, path, headers=headers | bearer(token), **parts)

    def token(self, challenge: str) -> str | None:
        scheme, _, rest = challenge.partition(" ")
        assert scheme == "Bearer"
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        query = {"account": self.auth[0], "service": asked["service"]}
        scopes = [("scope", one) for one in asked.get("scope", "").split()]
        answer = httpx.get(asked["realm"], params=[*query.items(), *scopes], auth=self.auth)
        self.dances.append(answer)
        return answer.json()["token"] if answer.status_code == 200 else None

    def push(self, repository: str, image: Image) -> httpx.Response:
        """The answer to the last step, or to the first that was refused."""
        for blob in (image.layer, image.config):
            begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
            if begun.status_code != 202:
                return begun
            where = begun.headers["location"]
            joint = "&" if "?" in where else "?"
            put = self.ask("PUT", f"{where}{joint}digest={digest(blob)}", content=blob)
            assert put.status_code == 201, put.text
        return self.ask(
            "PUT",
            f"/v2/{repository}/manifests/{digest(image.manifest)}",
            content=image.manifest,
            headers={"content-type": MANIFEST},
        )

    def pull(self, repository: str, image: Image, token: str | None = None) -> int:
        """200 when the manifest and every blob came and are what their digests say; else the refusal's status."""
        wanted = digest(image.manifest)
        accept = {} if token is not None else {"headers": {"accept": MANIFEST}}
        answer = self.ask("GET", f"/v2/{repository}/manifests/{wanted}", token, **accept)
        if answer.status_code != 200:
            return answer.status_code
        assert digest(answer.content) == wanted
        manifest = answer.json()
        for part in (manifest["config"], *manifest["layers"]):
            blob = self.ask("GET", f"/v2/{repository}/blobs/{part['digest']}", token)
            assert blob.status_code == 200, blob.text
            assert digest(blob.content) == part["digest"]
        return 200


class Lab:
    """Cloudly, a registry that believes it, and an operator."""

    def __init__(self, directory: Path) -> None:
        registry = shutil.which("docker-registry")
        assert registry, (
            "docker-registry is missing: apt-get install docker-registry (.ci/run does)"
        )
        self._program = registry
        self.directory = directory
        self.data = directory / "cloudly"
        self._open = ExitStack()
        # Held, not asked for: a port that is free now may be another test's when the registry starts.
        held = self._open.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        self.service = f"127.0.0.1:{held.getsockname()[1]}"
        self._env = {
            "PATH": os.environ["PATH"],
            "CLOUDLY_DATA_DIR": str(self.data),
            "CLOUDLY_REGISTRY_SERVICE": self.service,
            "CLOUDLY_LOG_LEVEL": "DEBUG",
        }
        self.cloudly = Process(
            [sys.executable, "-m", "cloudly", "serve", "--port", "0"],
            self._env, r"running on (http://[\d.:]+)",
        )  # fmt: skip
        self._open.callback(self.cloudly.end)
        self.client = self._open.enter_context(
            httpx.Client(base_url=self.cloudly.found, timeout=20)
        )
        try:
            self.start_registry()
        except BaseException:
            self._open.close()
            raise

    def start_registry(self) -> None:
        """With the configuration and the certificates of this moment."""
        bundle = self.directory / "bundle.crt"
        auth = self.cli("registry", "config", "--realm", self.cloudly.found, "--out", str(bundle))
        file = self.directory / "config.yml"
        file.write_text(
            f"version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '{self.service}', secret: s}}\n"
            f"storage: {{filesystem: {{rootdirectory: '{self.directory / 'images'}'}}}}\n{auth}\n"
        )
        self.registry = Process(
            [self._program, "serve", str(file)],
            {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            r"(listening on )",
        )

    def cli(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env=self._env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def login(self, name: str = "", password: str = "") -> Login:
        client = httpx.Client(base_url=f"http://{self.service}", timeout=20)
        return Login(self._open.enter_context(client), (name, password))

    def publisher(self, name: str, *options: str) -> Login:
        password = self.cli("registry", "publisher", "create", name, *options)
        return self.login(name, password)

    def device(self) -> Login:
        """A Supervisor that registered by the real route; its engine's login."""
        world = RealWorld()
        uuid, key = new_id(world), new_id(world)
        answer = self.client.post(
            "/device/register",
            json={"uuid": uuid, "api_key": key, "device_type": "generic-amd64"},
            headers=bearer(self.cli("token", "create")),
        )
        assert answer.status_code == 201, answer.text
        return self.login(f"d_{uuid}", key)

    def order(self, device: Login, repository: str, image: Image) -> None:
        reference = f"main={self.service}/{repository}@{digest(image.manifest)}"
        commit = hashlib.sha256(reference.encode()).hexdigest()[:32]
        self.cli(
            "release", "set", device.auth[0][2:], "1", "--release", commit, "--image", reference
        )

    def forged(self, repository: str, *, by: Path | None = None, **claims: Any) -> str:
        """A token that Cloudly never gave, signed by the keys of that data directory."""
        world = RealWorld()
        now = now_ms(world) // 1000
        return Signer(by or self.data, world).sign(
            {
                "iss": "cloudly", "sub": "d_x", "aud": self.service, "jti": new_id(world),
                "iat": now, "nbf": now - 10, "exp": now + 300,
                "access": [{"type": "repository", "name": repository, "actions": ["pull"]}],
            } | claims
        )  # fmt: skip

    def end(self) -> None:
        self.registry.end()
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
