"""The local API's contract, asked of a running agent over its socket: the closed list, the locks, the refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from baserunner.local_api.app import Api
from baserunner.local_api.described import document
from baserunner.local_api.table import ENDPOINTS
from interfaces.local import Handshake, Held, Lock, Locks, RuntimeStatus
from interfaces.world import RealWorld, new_id
from tests.local_api.given import Device, pause

ROOT = Path(__file__).resolve().parents[2]
WORLD = RealWorld()


def asking(**other: Any) -> dict[str, Any]:
    whole = {"owner": "backup", "reason": "nightly", "ttl_s": 30, "request_id": new_id(WORLD)}
    return whole | other


def a_request(**other: Any) -> dict[str, Any]:
    """The same in every run: a test is named by it."""
    return asking(request_id="a" * 32) | other


def ask(device: Device, method: str, path: str, **options: Any) -> httpx.Response:
    """At a pace that no limit minds."""
    pause(0.06)
    with device.client() as client:
        return client.request(method, path, **options)


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == response.status_code
    return response.status_code, said["code"]


# -- the closed list -----------------------------------------------------------------------------


def test_routes_table_and_document_are_the_same_closed_list() -> None:
    kept = json.loads((ROOT / "docs/schema/local-api.json").read_text())
    nobody: Any = None
    app = Api(nobody, nobody, nobody).app()

    in_table = {(one.method, one.path, one.name) for one in ENDPOINTS}
    in_app = {
        (method, route.path, route.name)  # type: ignore[attr-defined]
        for route in app.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    in_document = {
        (method.upper(), path, operation["operationId"])
        for path, operations in kept["paths"].items()
        for method, operation in operations.items()
    }

    assert in_app == in_table == in_document
    assert kept == document()
    assert in_table == {
        ("GET", "/v1/handshake", "handshake"),
        ("GET", "/v1/status", "status"),
        ("GET", "/v1/locks", "locks"),
        ("POST", "/v1/locks", "acquire"),
        ("POST", "/v1/locks/{lock}/renew", "renew"),
        ("POST", "/v1/locks/{lock}/release", "release"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (404, "not-found")),
        ("GET", "/openapi.json", (404, "not-found")),
        ("GET", "/docs", (404, "not-found")),
        ("GET", "/v1/../v1/handshake", (404, "not-found")),
        ("GET", "/v1/handshake/", (404, "not-found")),
        ("GET", "/v2/handshake", (404, "not-found")),
        ("POST", "/v1/handshake", (405, "not-found")),
        ("DELETE", "/v1/locks", (405, "not-found")),
        ("OPTIONS", "/v1/locks", (405, "not-found")),
        ("GET", "/v1/locks/" + "0" * 32 + "/renew", (405, "not-found")),
        ("BREW", "/v1/locks", (405, "not-found")),
    ],
)
def test_what_is_not_in_the_list_is_not_there(
    shared_device: Device, method: str, path: str, expected: tuple[int, str]
) -> None:
    response = shared_device.says(
        f"{method} {path} HTTP/1.1\r\nhost: baseos\r\n"
        f"authorization: Bearer {shared_device.token}\r\n\r\n".encode()
    )
    pause(0.06)

    head, _, body = response.partition(b"\r\n\r\n")
    said = json.loads(body)
    assert (said["status"], said["code"]) == expected
    assert head.startswith(f"HTTP/1.1 {expected[0]} ".encode())


@pytest.mark.slow
def test_head_is_not_in_the_list(shared_device: Device) -> None:
    assert ask(shared_device, "HEAD", "/v1/status").status_code == 405


# -- what is answered ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_handshake_says_who_answers(shared_device: Device) -> None:
    said = Handshake.model_validate_json(ask(shared_device, "GET", "/v1/handshake").content)

    assert (said.runtime, said.protocol, said.node_id) == ("baseos", 1, None)
    assert said.boot_id == WORLD.boot_id()
    assert said.capabilities == ("status", "locks")


@pytest.mark.slow
def test_the_status_of_a_node_that_is_not_enrolled_says_so(shared_device: Device) -> None:
    said = RuntimeStatus.model_validate_json(ask(shared_device, "GET", "/v1/status").content)

    assert (said.node_id, said.enrolled, said.release, said.update) == (None, False, None, None)
    assert said.enrollment.startswith("enrollment/1 is ")
    assert [waiting.stream for waiting in said.waiting] == ["enrollment/1"]
    assert (said.may_reboot, said.why_not_reboot) == (True, ())


@pytest.mark.slow
def test_every_answer_ends_its_connection_and_is_kept_by_nobody(shared_device: Device) -> None:
    for response in (
        ask(shared_device, "GET", "/v1/status"),
        ask(shared_device, "GET", "/nothing"),
        ask(shared_device, "POST", "/v1/locks", content=b"x" * 20_000),
    ):
        assert response.headers["connection"] == "close"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.slow
def test_a_lock_is_acquired_listed_renewed_and_released(shared_device: Device) -> None:
    asked = asking()

    given = ask(shared_device, "POST", "/v1/locks", json=asked)
    again = ask(shared_device, "POST", "/v1/locks", json=asked)
    held = Held.model_validate_json(given.content)
    listed = Locks.model_validate_json(ask(shared_device, "GET", "/v1/locks").content)
    status = RuntimeStatus.model_validate_json(ask(shared_device, "GET", "/v1/status").content)
    path, key = f"/v1/locks/{held.lock.lock}", held.key.get_secret_value()
    renewed = ask(shared_device, "POST", path + "/renew", json={"key": key, "ttl_s": 600})
    released = ask(shared_device, "POST", path + "/release", json={"key": key})
    once_more = ask(shared_device, "POST", path + "/release", json={"key": key})
    too_late = ask(shared_device, "POST", path + "/renew", json={"key": key, "ttl_s": 600})

    assert (given.status_code, again.status_code) == (201, 201)
    assert again.json()["key"] == key != "**********"
    assert [lock.lock for lock in listed.locks] == [held.lock.lock]
    assert key not in ask(shared_device, "GET", "/v1/locks").text
    assert (status.may_reboot, len(status.why_not_reboot)) == (False, 1)
    assert "backup" in status.why_not_reboot[0]
    assert Lock.model_validate_json(renewed.content).left_s > 590
    assert released.json()["state"] == once_more.json()["state"] == "released"
    assert refusal(too_late) == (404, "not-found")
    assert ask(shared_device, "GET", "/v1/locks").json() == {"locks": []}


@pytest.mark.slow
def test_anothers_key_neither_renews_nor_releases(shared_device: Device) -> None:
    mine = Held.model_validate_json(ask(shared_device, "POST", "/v1/locks", json=asking()).content)
    path, wrong = f"/v1/locks/{mine.lock.lock}", new_id(WORLD)

    renew = ask(shared_device, "POST", path + "/renew", json={"key": wrong, "ttl_s": 60})
    release = ask(shared_device, "POST", path + "/release", json={"key": wrong})
    unknown = ask(shared_device, "POST", f"/v1/locks/{new_id(WORLD)}/release", json={"key": wrong})
    key = mine.key.get_secret_value()
    ask(shared_device, "POST", path + "/release", json={"key": key})

    assert refusal(renew) == (403, "forbidden")
    assert refusal(release) == (403, "forbidden")
    assert refusal(unknown) == (404, "not-found")
    assert wrong not in renew.text + release.text + unknown.text


@pytest.mark.slow
def test_a_lock_survives_a_killed_agent_and_so_does_the_token(device: Device) -> None:
    device.start()
    token, asked = device.token, asking()
    before = Held.model_validate_json(ask(device, "POST", "/v1/locks", json=asked).content)

    device.kill()
    device.start()
    listed = Locks.model_validate_json(ask(device, "GET", "/v1/locks").content)
    again = Held.model_validate_json(ask(device, "POST", "/v1/locks", json=asked).content)

    assert device.token == token
    assert [lock.lock for lock in listed.locks] == [before.lock.lock]
    assert again.key == before.key


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"owner": "\\ud800"}', b"[" * 10_000,
        json.dumps(a_request(ttl_s=1)).encode(), json.dumps(a_request(ttl_s=1e9)).encode(),
        json.dumps(a_request(ttl_s="NaN")).encode(), json.dumps(a_request(owner="a b")).encode(),
        json.dumps(a_request(owner="")).encode(), json.dumps(a_request(reason="")).encode(),
        json.dumps(a_request(request_id="../../etc")).encode(),
        json.dumps(a_request(reason="r" * 3000)).encode(),
    ],
)  # fmt: skip
def test_a_malformed_body_is_refused_and_not_repeated(shared_device: Device, body: bytes) -> None:
    headers = {"content-type": "application/json"}

    response = ask(shared_device, "POST", "/v1/locks", content=body, headers=headers)

    assert refusal(response) == (400, "malformed")
    assert "etc" not in response.text
    assert "rrr" not in response.text
    assert ask(shared_device, "GET", "/v1/locks").json() == {"locks": []}


@pytest.mark.slow
def test_a_form_of_a_browser_is_refused(shared_device: Device) -> None:
    response = ask(shared_device, "POST", "/v1/locks", data=asking())

    assert refusal(response) == (415, "malformed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": ""}, (401, "token-unknown")),
        ({"authorization": "Bearer "}, (401, "token-unknown")),
        ({"authorization": "Bearer bct_" + "a" * 43}, (401, "token-unknown")),
        ({"authorization": "Basic TOKEN"}, (401, "token-unknown")),
        ({"authorization": "bearer TOKEN "}, (401, "token-unknown")),
        ({"authorization": "Bearer TOKEN2"}, (401, "token-unknown")),
        ({"authorization": "Bearer \xe9\xff"}, (401, "token-unknown")),
        ({"origin": "http://baseos"}, (403, "not-allowed")),
        ({"origin": "null"}, (403, "not-allowed")),
        ({"referer": "http://baseos/"}, (403, "not-allowed")),
        ({"host": "evil.example"}, (403, "not-allowed")),
        ({"host": "baseos.evil.example"}, (403, "not-allowed")),
        ({"host": "127.0.0.1:48485"}, (403, "not-allowed")),
        ({"host": ""}, (403, "not-allowed")),
    ],
)
@pytest.mark.parametrize("path", ["/v1/handshake", "/nothing"])
def test_who_does_not_come_as_a_neighbour_learns_nothing(
    shared_device: Device, headers: dict[str, str], expected: tuple[int, str], path: str
) -> None:
    token = shared_device.token
    given = {"host": "baseos", "authorization": f"Bearer {token}"} | {
        name: value.replace("TOKEN", token) for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())

    said = shared_device.says(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    pause(0.06)

    problem = json.loads(said.partition(b"\r\n\r\n")[2])
    assert (problem["status"], problem["code"]) == expected
    assert token not in said.decode()
    assert b"server" not in said.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    "twice", ["authorization: Bearer x", "content-length: 0\r\ncontent-length: 1", "host: evil"]
)
def test_a_header_that_is_there_twice_is_refused(shared_device: Device, twice: str) -> None:
    said = shared_device.says(
        f"GET /v1/handshake HTTP/1.1\r\nhost: baseos\r\nauthorization: Bearer {shared_device.token}\r\n"
        f"{twice}\r\n\r\n".encode()
    )
    pause(0.06)

    assert said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 9000,
     b"GET / HTTP/1.1\r\nhost: baseos\r\nx: " + b"a" * 600_000 + b"\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_same_shape(
    shared_device: Device, noise: bytes
) -> None:
    said = shared_device.says(noise)
    pause(0.06)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "malformed"


@pytest.mark.slow
def test_a_websocket_is_not_opened(shared_device: Device) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}

    response = ask(shared_device, "GET", "/v1/handshake", headers=upgrade)

    assert response.status_code == 200


@pytest.mark.slow
def test_the_agents_log_says_who_was_refused_and_holds_no_secret(device: Device) -> None:
    device.start()
    held = Held.model_validate_json(ask(device, "POST", "/v1/locks", json=asking()).content)
    with device.client("bct_" + "z" * 43) as stranger:
        refused = stranger.get("/v1/status")
    device.stop()

    assert refused.status_code == 401
    assert "the local API refused: token-unknown for uid" in device.log
    for secret in (device.token, held.key.get_secret_value(), "z" * 43):
        assert secret not in device.log
    assert "Traceback" not in device.log
