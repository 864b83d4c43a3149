"""Webhooks over real sockets: receivers that misbehave, addresses that nobody may reach through us, and the command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from cloudly.problems import BadOrder
from cloudly.webhooks import signing
from cloudly.webhooks.addresses import (
    PublicOnly,
    check_target,
    checked_url,
    is_public,
    resolved,
    transport,
)
from cloudly.webhooks.secrets_file import Kept
from cloudly.webhooks.sending import ANSWER_BYTES, Outcome, send
from cloudly.webhooks.signing import Event
from interfaces.world import RealWorld
from tests.cloudly.receivers import Loopback, answers, verified

pytestmark = pytest.mark.anyio

EVENT = Event(3, 1_700_000_000_000, "node.revoked", '{"node":"n1"}')
Behave = Callable[[socket.socket, dict[str, str], bytes], None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def kept() -> Kept:
    return Kept(signing.new_secret(RealWorld()), allow_private=True)


async def sent(url: str, kept: Kept, event: Event = EVENT, *, at_s: int = 1_700_000_100) -> Outcome:
    way = transport(allow_private=kept.allow_private, root_ca=None, most=2)
    try:
        return await send(way, url, kept, event, at_s)
    finally:
        await way.aclose()


# -- what a receiver gets, and may do


async def test_an_independent_receiver_verifies_it(kept: Kept) -> None:
    receiver = Loopback(answers(200))
    outcome = await sent(receiver.url, kept)
    receiver.close()

    headers, body = receiver.got[0]
    event = verified(kept.secret, headers, body, now_s=1_700_000_100)
    assert outcome == Outcome(200)
    assert event == {
        "type": "node.revoked",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {"node": "n1"},
    }
    for forged in (body + b" ", body.replace(b"n1", b"n2")):
        with pytest.raises(AssertionError):
            verified(kept.secret, headers, forged, now_s=1_700_000_100)
    with pytest.raises(AssertionError, match="too old"):
        verified(kept.secret, headers, body, now_s=1_700_009_999)


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The form's own example values: another secret, id or time gives another."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    told = signing.signature(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def endless(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
    while True:
        peer.sendall(b"x" * 65536)


def drips(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    peer.sendall(b"HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\n")
    peer.settimeout(60)
    peer.recv(1)  # until we have had enough


def huge_headers(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.sendall(b"x-a: " + b"y" * 60_000 + b"\r\n")


def bomb(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    import gzip

    packed = gzip.compress(b"\0" * 5_000_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    peer.sendall(head.encode() + packed)


def hangs_up(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    peer.shutdown(socket.SHUT_RDWR)


def no_http(peer: socket.socket, _headers: dict[str, str], _body: bytes) -> None:
    peer.sendall(b"\x1b[2J SSH-2.0 whatever\r\n\r\n")


@pytest.mark.parametrize(
    ("behave", "status"),
    [(endless, 200), (drips, 204), (bomb, 200), (huge_headers, None), (hangs_up, None), (no_http, None)],
    ids=lambda one: getattr(one, "__name__", str(one)),
)  # fmt: skip
async def test_whatever_a_receiver_answers_costs_little(
    kept: Kept, behave: Behave, status: int | None
) -> None:
    world, receiver = RealWorld(), Loopback(behave)
    before, began = _rss(), world.monotonic()
    outcome = await sent(receiver.url, kept)
    receiver.close()

    assert outcome.status == status
    assert outcome.is_taken == (status is not None)
    assert world.monotonic() - began < 10
    assert _rss() - before < 30_000_000 + ANSWER_BYTES
    assert outcome.problem.isprintable()


async def test_a_redirect_is_not_followed_and_no_cookie_is_kept(kept: Kept) -> None:
    elsewhere = Loopback(answers(200))
    receiver = Loopback(answers(302, f"location: {elsewhere.url}", "set-cookie: a=b"))
    way = transport(allow_private=True, root_ca=None, most=2)
    outcomes = [await send(way, receiver.url, kept, EVENT, 1) for _ in range(2)]
    await way.aclose()
    receiver.close()
    elsewhere.close()

    assert [one.status for one in outcomes] == [302, 302]
    assert elsewhere.got == []
    assert all("cookie" not in headers for headers, _ in receiver.got)
    assert receiver.connections == 1  # and the connection was used again


async def test_no_secret_is_in_a_problem(kept: Kept) -> None:
    outcome = await sent("http://127.0.0.1:1/hook/canary-path?token=canary-query", kept)

    assert outcome.status is None
    assert outcome.problem
    assert "canary" not in outcome.problem
    assert kept.secret not in repr(kept) + outcome.problem


# -- where it may point


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",  # noqa: S104
     "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1",
     "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "2001:0:1::1", "::127.0.0.1", "not-an-address", ""],
)  # fmt: skip
def test_an_address_that_only_we_can_reach_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])  # fmt: skip
def test_an_address_of_the_internet_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["ftp://there.example/", "file:///etc/passwd", "there.example/hook", "https://", "https://:443/",
     "https://name:S3CRET@there.example/", "https://there.example/#S3CRET", "https://there.example/S3 CRET",
     "https://there.example/S3CRET\n", "https://th\u00e9re.example/S3CRET", "https://there.example:99999/S3CRET",
     "https://there.example/" + "S3CRET" * 400],
)  # fmt: skip
def test_what_is_no_usable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BadOrder) as refused:
        checked_url(url)

    assert "S3CRET" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost/a", "http://127.0.0.1:80/a", "http://[::1]/a", "http://2130706433/a", "http://0x7f.1/a"],
)  # fmt: skip
def test_a_private_target_is_refused_when_it_is_made(url: str) -> None:
    with pytest.raises(BadOrder, match=r"allow-private|means no address"):
        check_target(url)


async def test_and_again_when_it_is_asked(kept: Kept) -> None:
    receiver = Loopback(answers(200))
    outcome = await sent(receiver.url, Kept(kept.secret, allow_private=False))
    allowed = await sent(receiver.url, kept)
    receiver.close()

    assert "not a public address" in outcome.problem
    assert allowed.is_taken
    assert receiver.connections == 1  # the first one did not even knock


class Recorded(httpcore.AsyncNetworkBackend):
    """A network that connects to nothing and remembers to what."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        raise httpcore.ConnectError("a network of nobody")


async def test_a_name_that_changes_its_meaning_cannot_lead_us_inside() -> None:
    """DNS rebinding: what was looked at is what is connected to, and a name is never resolved twice."""
    network = Recorded()
    answers_of = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]])

    async def meanings(*_: object) -> Sequence[str]:
        return next(answers_of)

    guarded = PublicOnly(network, meanings)
    for _ in range(3):
        with pytest.raises(httpcore.ConnectError):
            await guarded.connect_tcp("there.example", 443)

    assert network.asked == ["93.184.216.34"]


async def test_a_name_that_means_nothing_is_a_problem_and_no_exception() -> None:
    with pytest.raises(httpcore.ConnectError, match="no address"):
        await resolved("no.such.name.invalid", 443, 20)


# -- the command, and the server


class Cli:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"PATH": os.environ["PATH"], "CLOUDLY_DATA_DIR": str(directory)}

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env=self.env, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout.strip() + done.stderr.strip() * (code != 0)


@pytest.fixture
def cli(directory: Path) -> Cli:
    return Cli(directory)


@pytest.fixture
def receiver() -> Iterator[Loopback]:
    receiver = Loopback(answers(200))
    yield receiver
    receiver.close()


def test_an_operator_makes_tries_looks_and_removes(cli: Cli, receiver: Loopback) -> None:
    secret = cli("webhook", "create", "crm", receiver.url, "--allow-private", "--kind", "node.*")
    tried = cli("webhook", "test", "crm")
    shown = json.loads(cli("webhook", "show", "crm", "--json"))
    listed = cli("webhook", "list")

    headers, body = receiver.got[0]
    event = verified(secret, headers, body, now_s=RealWorld().now().timestamp())
    assert event["type"] == "webhook.test"
    assert "took it: 200" in tried
    assert (shown["kinds"], shown["state"]) == (["node.*"], "enabled")
    assert "crm" in listed
    assert "/hook" not in listed  # a path may be a secret
    file = cli.directory / "webhooks.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret in file.read_text()
    others = b"".join(
        one.read_bytes() for one in cli.directory.iterdir() if one.is_file() and one != file
    )
    assert secret.encode() not in others
    assert secret not in cli("webhook", "show", "crm") + listed

    cli("webhook", "disable", "crm")
    assert "enable" in cli("webhook", "replay", "crm", "--since", "2h", code=1)
    cli("webhook", "enable", "crm")
    assert cli("webhook", "replay", "crm", "--since", "2h").startswith("0 events")
    cli("webhook", "delete", "crm")
    assert secret not in file.read_text()
    assert "no webhook 'crm'" in cli("webhook", "show", "crm", code=1)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("crm", "http://127.0.0.1:9/canary-path"), 1, "--allow-private"),
        (("crm", "gopher://there.example/canary-path"), 1, "https://host/path"),
        (("../crm", "https://there.example/canary-path"), 2, "no name"),
        (("crm", "https://there.example/canary-path", "--kind", "Node"), 2, "no kind"),
    ],
)
def test_what_cannot_be_made_says_why_and_leaves_nothing(
    cli: Cli, words: tuple[str, ...], code: int, says: str
) -> None:
    said = cli("webhook", "create", *words, code=code)

    assert says in " ".join(re.sub("[^ -~]", " ", said).split())
    assert "canary-path" not in said
    assert not (cli.directory / "webhooks.json").exists()
    assert cli("webhook", "list").startswith("No webhooks")


def test_the_same_name_twice_keeps_the_first_ones_secret(cli: Cli, receiver: Loopback) -> None:
    secret = cli("webhook", "create", "crm", receiver.url, "--allow-private")

    assert "already" in cli("webhook", "create", "crm", receiver.url, "--allow-private", code=1)
    assert secret in (cli.directory / "webhooks.json").read_text()


def test_a_receiver_that_refuses_the_test_is_told_with_its_status(cli: Cli) -> None:
    receiver = Loopback(answers(401))
    cli("webhook", "create", "crm", receiver.url, "--allow-private")

    assert "answered 401" in cli("webhook", "test", "crm", code=1)
    receiver.close()


KILLED = """
import os
from cloudly.webhooks.deliver import Delivering
async def taken(self, *_):
    os._exit(137)
Delivering._taken = taken
"""


@pytest.mark.slow
def test_a_server_killed_between_sending_and_marking_sends_it_again_with_the_same_id(
    cli: Cli, receiver: Loopback
) -> None:
    kind = ("--kind", "node.enrolled")  # that a join token was made is told too
    secret = cli("webhook", "create", "crm", receiver.url, "--allow-private", *kind)
    token = cli("token", "create")
    served = _serve(cli, KILLED)
    _enroll(served, token)  # told in the transaction of the enrollment
    assert served.end() == 137
    assert len(receiver.got) == 1

    served = _serve(cli, "")
    for _ in range(200):
        shown = json.loads(cli("webhook", "show", "crm", "--json"))
        if shown["delivered"]:  # the dead one's lease ends after six seconds
            break
    served.process.send_signal(signal.SIGTERM)
    assert served.end() == 0

    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    for headers, body in receiver.got:
        event = verified(secret, headers, body, now_s=RealWorld().now().timestamp())
        assert event["type"] == "node.enrolled"
    assert (shown["delivered"], shown["waiting"]) == (1, 0)


class Served:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def end(self) -> int:
        code = self.process.wait(timeout=30)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def _serve(cli: Cli, planted: str) -> Served:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{planted}\nfrom cloudly.cli import main\nmain()", "serve", "--port", "0"],
        env=cli.env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"running on (http://[\d.:]+)", line)
        if found:
            return Served(process, found[1])
    raise AssertionError("the server did not start")


def _enroll(served: Served, token: str) -> None:
    body = {"node_id": "n1", "enrollment_secret": "s" * 43, "epoch": "e1", "agent_version": "1"}
    answer = httpx.post(
        served.url + "/baseos/v1/nodes/register",
        json=body,
        headers={"authorization": f"Bearer {token}"},
        timeout=20,
    )
    assert answer.status_code == 201, answer.text


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
