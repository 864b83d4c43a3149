"""What is too much is refused or shed, by a running agent: bodies, slow requests, connections, requests, peers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from interfaces.world import RealWorld
from tests.local_api.given import Device, pause

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="being another user takes root")
TEN_MB = 10 * 1024 * 1024


def posts(device: Device, headers: str, body: bytes) -> bytes:
    return device.says(
        f"POST /v1/locks HTTP/1.1\r\nhost: baseos\r\nauthorization: Bearer {device.token}\r\n"
        f"content-type: application/json\r\n{headers}\r\n".encode()
        + body
    )


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


def memory_kb(device: Device) -> int:
    assert device.process is not None
    lines = Path(f"/proc/{device.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def as_another(device: Device, uid: int, gid: int) -> str:
    """What another user's program is answered, or the error that it meets."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            said = handshake(device)
        except OSError as error:
            said = type(error).__name__
        os.write(tell, said.encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, newline="") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def handshake(device: Device) -> str:
    return device.says(
        f"GET /v1/handshake HTTP/1.1\r\nhost: baseos\r\nauthorization: Bearer {device.token}\r\n\r\n".encode()
    ).decode()


def test_ten_megabytes_are_refused_before_they_are_read(device: Device) -> None:
    device.start()
    before = memory_kb(device)

    declared = posts(device, f"content-length: {TEN_MB}\r\n", b"x" * TEN_MB)
    chunks = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    undeclared = posts(device, "transfer-encoding: chunked\r\n", chunks * 160)
    absurd = posts(device, "content-length: 99999999999999999999\r\n", b"")

    assert (status(declared), status(undeclared), status(absurd)) == (413, 413, 413)
    assert memory_kb(device) - before < 4 * 1024


def test_sixteen_kib_are_taken_and_one_byte_more_is_not(shared_device: Device) -> None:
    fits = posts(shared_device, f"content-length: {16 * 1024}\r\n", b" " * 16 * 1024)
    does_not = posts(shared_device, f"content-length: {16 * 1024 + 1}\r\n", b" " * (16 * 1024 + 1))

    assert (status(fits), status(does_not)) == (400, 413)  # 400: it is read, and is no JSON


def test_a_request_that_does_not_come_to_its_end_is_hung_up_on(shared_device: Device) -> None:
    head = f"POST /v1/locks HTTP/1.1\r\nhost: baseos\r\nauthorization: Bearer {shared_device.token}\r\n"
    beginnings = (
        b"",
        b"GET /v1/hand",
        f"{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode(),
    )
    world = RealWorld()
    began = world.monotonic()
    lines = [socket.socket(socket.AF_UNIX) for _ in beginnings]
    for line, beginning in zip(lines, beginnings, strict=True):
        line.settimeout(20)
        line.connect(str(shared_device.socket))
        line.sendall(beginning)

    said = [line.recv(65_536) for line in lines]
    took_s = world.monotonic() - began
    for line in lines:
        line.close()

    assert said == [b"", b"", b""]
    assert 4.5 < took_s < 9


def test_who_keeps_connections_open_is_told_to_wait_until_they_are_hung_up_on(
    device: Device,
) -> None:
    device.start()
    lines = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for line in lines:
        line.connect(str(device.socket))
    pause(0.1)
    with device.client() as client:
        crowded = client.get("/v1/status")

        device.until(lambda: client.get("/v1/status").status_code == 200, within_s=9)

    assert (crowded.status_code, crowded.json()["code"]) == (503, "busy")
    assert crowded.headers["retry-after"] == "1"
    for line in lines:
        line.close()


def test_a_peer_that_asks_too_fast_is_told_when_to_come_back(device: Device) -> None:
    device.start()
    with device.client() as client:
        answers = [client.get("/v1/locks") for _ in range(120)]
        pause(1.1)
        later = client.get("/v1/locks")

    seen = Counter(answer.status_code for answer in answers)
    shed = next(answer for answer in answers if answer.status_code == 429)
    assert set(seen) == {200, 429}
    assert seen[200] >= 40
    assert shed.headers["retry-after"] == "1"
    assert shed.headers["content-type"] == "application/problem+json"
    assert shed.json()["retry_after_s"] == 1.0
    assert later.status_code == 200
    assert device.log.count("the local API refused") == 1


@as_root
def test_another_uid_does_not_even_reach_the_socket(device: Device) -> None:
    device.start()

    outcome = as_another(device, 1234, 1234)

    assert outcome == "PermissionError"


@as_root
def test_the_group_alone_is_not_enough_and_with_the_uid_it_is(device: Device) -> None:
    device.more = {"BASEOS_LOCAL_API_GROUP": "4242", "BASEOS_LOCAL_API_UIDS": "0,1234"}
    device.start()

    stranger = as_another(device, 1235, 4242)
    neighbour = as_another(device, 1234, 4242)

    assert stranger.startswith("HTTP/1.1 403 ")
    assert json.loads(stranger.partition("\r\n\r\n")[2])["code"] == "not-allowed"
    assert neighbour.startswith("HTTP/1.1 200 ")
    assert "the local API refused: uid 1235" in device.log


@as_root
def test_a_peer_that_keeps_all_its_connections_open_keeps_no_other_one_out(device: Device) -> None:
    device.more = {"BASEOS_LOCAL_API_GROUP": "4242", "BASEOS_LOCAL_API_UIDS": "0,1234"}
    device.start()
    lines = [socket.socket(socket.AF_UNIX) for _ in range(9)]
    for line in lines:
        line.connect(str(device.socket))
    pause(0.1)

    ours, theirs = handshake(device), as_another(device, 1234, 4242)

    assert ours.startswith("HTTP/1.1 503 ")
    assert theirs.startswith("HTTP/1.1 200 ")
    for line in lines:
        line.close()


@as_root
def test_a_stranger_who_keeps_asking_is_no_longer_answered_and_takes_nothing_from_neighbours(
    device: Device,
) -> None:
    device.more = {"BASEOS_LOCAL_API_UIDS": "4321"}  # so that we ourselves are the stranger
    device.start()

    said = [device.says(b"GET /v1/handshake HTTP/1.1\r\nhost: baseos\r\n\r\n") for _ in range(30)]

    assert {status(one) for one in said if one} == {403}
    assert said.count(b"") >= 20


def test_an_old_token_is_refused(device: Device) -> None:
    device.start()
    old = device.token
    device.stop()
    (device.place / "boot-id").write_text("another boot of this host")
    device.start()

    with device.client(old) as before, device.client() as after:
        assert before.get("/v1/handshake").status_code == 401
        assert after.get("/v1/handshake").status_code == 200


def test_loopback_is_served_only_by_choice_and_only_under_its_own_name(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    device.more = {"BASEOS_LOCAL_API_PORT": str(port)}
    device.start()
    url, token = (
        f"http://127.0.0.1:{port}/v1/handshake",
        {"authorization": f"Bearer {device.token}"},
    )

    with httpx.Client(trust_env=False) as client:
        right = client.get(url, headers=token)
        without = client.get(url)
        rebound = client.get(url, headers={**token, "host": "evil.example"})
        browser = client.get(url, headers={**token, "origin": "http://127.0.0.1"})

    answers = (right, without, rebound, browser)
    assert [answer.status_code for answer in answers] == [200, 401, 403, 403]


def test_a_socket_that_cannot_be_bound_is_told_and_tried_again(device: Device) -> None:
    device.place.symlink_to("elsewhere")
    device.launch()
    device.until(lambda: "the local API cannot be served" in device.log)
    doctor = subprocess.run(
        [sys.executable, "-m", "baserunner", "doctor"],
        env=device.settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    device.place.unlink()
    device.until(device.answers)

    assert "local api" in doctor.stdout
    assert "no token can be read" in doctor.stdout
    assert device.log.count("the local API cannot be served") == 1


def test_a_socket_that_has_gone_is_made_anew(device: Device) -> None:
    device.start()
    token = device.token

    device.socket.unlink()
    device.until(device.answers, within_s=12)

    assert device.token == token
    with device.client() as client:
        assert client.get("/v1/handshake").status_code == 200


def test_doctor_sees_the_local_api_as_a_neighbour_does(device: Device) -> None:
    device.start()

    doctor = subprocess.run(
        [sys.executable, "-m", "baserunner", "doctor", "--json"],
        env=device.settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    found = [one for one in json.loads(doctor.stdout) if one["what"] == "local api"]
    assert [one["verdict"] for one in found] == ["ok"]
    assert device.token not in doctor.stdout


def test_sigterm_ends_an_agent_in_the_middle_of_requests(device: Device) -> None:
    device.start()
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(device.socket))
    line.sendall(b"GET /v1/hand")
    world = RealWorld()
    began = world.monotonic()

    process = device.process
    assert process is not None
    device.stop()

    assert process.returncode == 0
    assert world.monotonic() - began < 5
    assert not device.socket.exists()
    assert "Traceback" not in device.log
    line.close()
