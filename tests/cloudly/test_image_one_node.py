"""From a flashed image to one node, for real: what `image configure` wrote is all that Supervisor and agent are given.

A simulated Supervisor reads the image's config.json as the host does and talks TLS to `cloudly serve` over a socket;
the agent is a process with the environment that its Supervisor would give it.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cloudly.balena.agent_environment import AGENT_LABEL
from interfaces.world import RealWorld
from simulators.supervisor import BackendSetup, BackendTargets
from simulators.supervisor.sources import SourceUnavailableError
from simulators.supervisor.state import HostFacts, Identity, Kept
from tests.cloudly.image_given import Disk, disk
from tests.cloudly.tls_given import ROOT, TlsServed, run

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

UUID = "6ed0237ee31345bf8e22e93fd7b65839"
KEY = "canary0device0key0canary0device0"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TlsServed]:
    served = TlsServed(tmp_path / "cloudly")
    yield served
    served.end()


@pytest.fixture
def image(tmp_path: Path, served: TlsServed) -> Disk:
    made = disk(tmp_path / "os.img")
    served.cli("image", "configure", str(made.path), "--new-token")
    return made


@asynccontextmanager
async def a_supervisor(config: dict[str, Any]) -> AsyncIterator[BackendTargets]:
    """One that knows nothing but the host's config.json."""
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(cadata=base64.b64decode(config["balenaRootCA"]).decode())
    setup = BackendSetup(
        config["apiEndpoint"],
        SecretStr(config["apiKey"]),
        config["applicationId"],
        config["logsEndpoint"],
    )
    transport = httpx.AsyncHTTPTransport(verify=trusted)
    targets = BackendTargets(setup, RealWorld(), transport=transport)
    try:
        yield targets
    finally:
        await targets.aclose()


def agent(tmp_path: Path, given: dict[str, str]) -> dict[str, str]:
    """What its container has beside: the volume, and what a Supervisor tells every service."""
    (tmp_path / "data").mkdir(exist_ok=True)
    return {
        "BASEOS_DATA_DIR": str(tmp_path / "data"),
        "BASEOS_LOCK_DIR": str(tmp_path),
        "BALENA_DEVICE_UUID": UUID,
        "SERVEZONE_RUNTIME": "baseos",
        **given,
    }


def order_the_agent(served: TlsServed) -> None:
    """A release whose one service is the agent, for every node that enrolls."""
    served.cli(
        "release", "set", "--all", "1.0.0", "--release", "8f3c1d2ab90e4c5f8f3c1d2ab90e4c5f",
        "--image", f"baserunner=registry.example/agent@sha256:{'a1' * 32}",
        "--label", f"baserunner={AGENT_LABEL}=1",
    )  # fmt: skip


def from_the_target(target: Any) -> dict[str, str]:
    """The environment of the agent's service, as a Supervisor finds it in its target state."""
    (app,) = target[UUID]["apps"].values()
    (release,) = app["releases"].values()
    given: dict[str, str] = release["services"]["baserunner"]["environment"]
    return given


def live_until_enrolled(env: dict[str, str]) -> str:
    """`baserunner run`, as its container starts it, until it is a node; returns what it logged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "baserunner", "run"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], **env}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(60):
            if run("baserunner", "status", "--json", env=env, check=False).returncode == 0:
                break
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[1]
    return said


@pytest.mark.parametrize(
    "mounted", [False, True], ids=["from the target state", "config.json mounted"]
)
async def test_a_flashed_image_becomes_one_node_with_one_use_of_its_token(
    tmp_path: Path, served: TlsServed, image: Disk, *, mounted: bool
) -> None:
    config = image.config()
    identity = Identity(uuid=UUID, device_key=KEY)
    order_the_agent(served)

    async with a_supervisor(config) as supervisor:
        await supervisor.join(Kept(identity, "g" * 32), HostFacts())
        target = await supervisor.fetch(identity)
        unchanged = await supervisor.fetch(identity)
    if mounted:
        (tmp_path / "config.json").write_bytes(image.read())
        env = agent(tmp_path, {"BASEOS_CONFIG_JSON": str(tmp_path / "config.json")})
    else:
        env = agent(tmp_path, from_the_target(target))
    said = live_until_enrolled(env)

    (node,) = json.loads(served.cli("node", "list", "--json"))
    (token,) = json.loads(served.cli("token", "list", "--json"))
    assert identity.device_id == 1
    assert unchanged is None, "an environment that differs at each poll restarts the agent"
    assert isinstance(target, dict)
    assert list(target) == [UUID]
    assert node["node_id"] == UUID
    assert (token["uses_left"], token["nodes"]) == (0, UUID)
    assert node["last_seen_at_ms"] is not None, said
    journal = (tmp_path / "data/baseos/journal.db").read_bytes().decode("latin-1")
    for secret in (config["apiKey"], env.get("BASEOS_JOIN_TOKEN", config["apiKey"])):
        assert secret not in journal + said + "".join(served.log)


async def test_a_second_card_with_the_same_one_time_image_is_refused(
    served: TlsServed, image: Disk
) -> None:
    config = image.config()
    second = Identity(uuid=UUID[::-1], device_key=KEY)

    async with a_supervisor(config) as supervisor:
        first = Kept(Identity(uuid=UUID, device_key=KEY[::-1]), "g" * 32)
        await supervisor.join(first, HostFacts())
        with pytest.raises(SourceUnavailableError, match="registering was answered with 401"):
            await supervisor.join(Kept(second, "g" * 32), HostFacts())
    checked = run("cloudly", "image", "check", str(image.path),
                  env=served.env, check=False)  # fmt: skip

    assert len(json.loads(served.cli("node", "list", "--json"))) == 1
    assert checked.returncode == 1
    assert "is used up" in checked.stdout


def test_online_the_check_asks_as_the_device_would_and_says_when_it_would_not_trust(
    tmp_path: Path, served: TlsServed, image: Disk
) -> None:
    ask = ("image", "check", str(image.path), "--online", "--json")
    answered = json.loads(run("cloudly", *ask, env=served.env).stdout)["findings"]
    config = image.config()
    other = run(
        "cloudly", "ca", "init", env={**served.env, "CLOUDLY_DATA_DIR": str(tmp_path / "b")}
    )
    foreign = (tmp_path / "b/tls/ca.crt").read_bytes()
    image.put("config.json", json.dumps(
        config | {"balenaRootCA": base64.b64encode(foreign).decode()}).encode())  # fmt: skip

    distrusted = run("cloudly", *ask, env=served.env, check=False)
    served.end()
    image.put("config.json", json.dumps(config).encode())
    gone = run("cloudly", *ask, env=served.env, check=False)

    assert [(one["what"], one["verdict"]) for one in answered[-2:]] == [
        ("/healthz", "ok"), ("/connectivity-check", "ok")]  # fmt: skip
    assert other.returncode == 0
    assert "its certificate is not accepted" in distrusted.stdout
    assert "another CA than Cloudly" in distrusted.stdout
    assert "cannot be reached: ConnectError" in gone.stdout
    assert (distrusted.returncode, gone.returncode) == (1, 1)
