"""A device and Cloudly over TLS, for real: processes and sockets on loopback, and what `doctor` says when it fails."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from cloudly.tls import authority, deployed
from interfaces.world import RealWorld
from simulators.world import SimWorld
from tests.cloudly.tls_given import LOCAL, TlsServed, run, server_with

pytestmark = pytest.mark.slow

IMPATIENT = """
import baserunner.cli.process as process
process.ENROLL_WITHIN_S = 2
from baserunner.cli import main
main()
"""
TOKEN = "bjt_canary-canary-canary-canary-canary-canary-12"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TlsServed]:
    served = TlsServed(tmp_path / "cloudly")
    yield served
    served.end()


def device(tmp_path: Path, url: str, ca: str | None, token: str = TOKEN) -> dict[str, str]:
    data = tmp_path / "device"
    data.mkdir(exist_ok=True)
    env = {
        "BASEOS_CLOUDLY_URL": url,
        "BASEOS_DATA_DIR": str(data),
        "BASEOS_LOCK_DIR": str(tmp_path),
        "BASEOS_JOIN_TOKEN": token,
        "SERVEZONE_RUNTIME": "baseos",
    }
    return env if ca is None else {**env, "BASEOS_CLOUDLY_CA": ca}


def finding(env: dict[str, str]) -> dict[str, Any]:
    """What `baserunner doctor` says of Cloudly."""
    done = run("baserunner", "doctor", "--json", env=env, check=False)
    assert TOKEN not in done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return next(one for one in found if one["what"] == "cloudly")


def test_a_device_with_the_ca_enrolls_over_tls_and_one_without_it_says_what_it_needs(
    tmp_path: Path, served: TlsServed
) -> None:
    env = device(tmp_path, served.url, served.ca, served.cli("token", "create"))
    without = {name: value for name, value in env.items() if name != "BASEOS_CLOUDLY_CA"}

    blind = finding(without)
    enrolled = run("baserunner", "enroll", env=env, stdin=env["BASEOS_JOIN_TOKEN"])
    seen = finding(env)

    assert blind["verdict"] == "bad"
    assert "by a CA that is not trusted here" in blind["seen"]
    assert "cloudly ca show --base64" in blind["todo"]
    assert "enrolled as node" in enrolled.stdout
    assert (seen["verdict"], seen["seen"]) == ("ok", "answers")
    assert len(json.loads(served.cli("node", "list", "--json"))) == 1


def test_a_running_server_takes_a_certificate_that_was_renewed_beside_it(tmp_path: Path) -> None:
    """It looks once a minute; this one was told to look always, and nothing else."""
    quick = "import cloudly.tls.serving as serving; serving.LOOK_EVERY_S = 0"
    served = TlsServed(tmp_path / "cloudly", planted=quick)
    trusted = ssl.create_default_context(cafile=tmp_path / "cloudly/tls/ca.crt")
    before = certificate_at(served.url, trusted)
    with httpx.Client(verify=trusted, base_url=served.url, timeout=20) as open_line:
        assert open_line.get("/healthz").text == "OK"

        served.cli("ca", "renew")
        after = next(
            (seen for _ in range(100) if (seen := certificate_at(served.url, trusted)) != before),
            before,
        )

        assert after != before
        assert open_line.get("/healthz").text == "OK"
    assert served.end() == 0
    assert sum("a new certificate is served" in line for line in served.log) == 1


def certificate_at(url: str, trusted: ssl.SSLContext) -> bytes:
    """What a new connection sees."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        trusted.wrap_socket(plain, server_hostname=host) as line,
    ):
        return line.getpeercert(binary_form=True) or b""


def test_nothing_of_a_key_is_in_what_the_server_logs_and_the_cli_prints(
    tmp_path: Path, served: TlsServed
) -> None:
    keys = [
        line
        for name in ("ca.key", "server.pem")
        for line in (tmp_path / "cloudly/tls" / name).read_text().splitlines()[1:3]
        if not line.startswith("-")
    ]

    printed = [
        served.cli("ca", "show"),
        served.cli("ca", "show", "--pem"),
        served.cli("ca", "renew"),
    ]
    decoded = base64.b64decode(served.ca).decode()
    served.end()

    assert keys
    for text in (*printed, decoded, "".join(served.log)):
        assert "PRIVATE KEY" not in text
        assert not [key for key in keys if key in text]


def a_ca(at: datetime | None = None, *, host: str = "127.0.0.1") -> authority.Authority:
    return authority.make_authority([host], world(at))


def world(at: datetime | None = None) -> SimWorld:
    return SimWorld(7, wall=at or RealWorld().now())


def context_for(ca: authority.Authority, directory: Path, *, at: datetime | None = None,
                host: str = "127.0.0.1") -> ssl.SSLContext:  # fmt: skip
    """A server of that CA, its certificate made then."""
    file = directory / "server.pem"
    file.write_bytes(authority._signed(ca, host, world(at)).pem())
    return deployed.context_of(file)


Case = Callable[[Path], tuple[ssl.SSLContext | None, authority.Authority]]


def ended(directory: Path) -> tuple[ssl.SSLContext, authority.Authority]:
    ca = a_ca()
    return context_for(ca, directory, at=datetime.now(UTC) - timedelta(days=100)), ca  # noqa: TID251


def for_another_host(directory: Path) -> tuple[ssl.SSLContext, authority.Authority]:
    ca = authority.make_authority(["127.0.0.1", "cloudly.example"], world())
    return context_for(ca, directory, host="cloudly.example"), ca


def beyond_its_ca(directory: Path) -> tuple[ssl.SSLContext, authority.Authority]:
    ca = a_ca(host="cloudly.example")
    return context_for(ca, directory), ca


def by_a_stranger(directory: Path) -> tuple[ssl.SSLContext, authority.Authority]:
    return context_for(a_ca(), directory), a_ca(host="cloudly.example")


def by_a_ca_that_was_replaced(directory: Path) -> tuple[ssl.SSLContext, authority.Authority]:
    return context_for(a_ca(), directory), a_ca()


def without_tls(_: Path) -> tuple[None, authority.Authority]:
    return None, a_ca()


@pytest.mark.parametrize(
    ("case", "seen", "todo"),
    [
        (by_a_stranger, "by a CA that is not trusted", "BASEOS_CLOUDLY_CA"),
        (by_a_ca_that_was_replaced, "not trusted|another key", "BASEOS_CLOUDLY_CA"),
        (ended, "has ended by this device's clock", "check the host's clock"),
        (for_another_host, "for another host", "CLOUDLY_PUBLIC_URL"),
        (beyond_its_ca, "may not speak for this host", "cloudly ca show"),
        (without_tls, "does not speak TLS", "the port of Cloudly"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_what_is_wrong_with_a_certificate_is_said_with_what_to_do_and_without_a_secret(
    tmp_path: Path, case: Case, seen: str, todo: str
) -> None:
    context, trusted = case(tmp_path)
    pem = trusted.certificate.public_bytes(serialization.Encoding.PEM).decode()

    with server_with(context) as port:
        env = device(tmp_path, f"{LOCAL}:{port}", pem)
        found = finding(env)

    assert found["verdict"] == "bad"
    assert any(part in found["seen"] for part in seen.split("|")), found
    assert todo in found["todo"]


def test_the_agent_journals_the_same_words_and_not_its_join_token(tmp_path: Path) -> None:
    context, trusted = for_another_host(tmp_path)
    pem = trusted.certificate.public_bytes(serialization.Encoding.PEM).decode()

    with server_with(context) as port:
        env = device(tmp_path, f"{LOCAL}:{port}", pem)
        done = run("baserunner", "enroll", env=env, stdin=TOKEN, check=False, program=IMPATIENT)
        story = run("baserunner", "journal", "show", "enrollment/1", env=env).stdout

    assert done.returncode == 1
    for text in (done.stdout + done.stderr, story):
        assert "its certificate is for another host" in text
        assert TOKEN not in text
