"""Onebox's client against a running agent: finding it, and a lock that renews itself and says when it is lost."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from interfaces.local import Handshake, Held
from interfaces.world import RealWorld
from onebox import (
    AsyncBaseOSRuntime,
    BaseOSRuntime,
    DelegatedError,
    LockLost,
    NotBaseOS,
    Refused,
    Unreachable,
    detect,
    detect_async,
)
from onebox.line import Call, Line, read_address
from onebox.locks import Holding, Terms
from tests.local_api.given import Device, pause

BALENA = {
    "BALENA": "1",
    "RESIN": "1",
    "BALENA_DEVICE_UUID": "0" * 32,
    "BALENA_SUPERVISOR_ADDRESS": "http://127.0.0.1:48484",
    "BALENA_SUPERVISOR_API_KEY": "0" * 32,
    "BALENA_APP_ID": "1",
}

HANDSHAKE = Handshake(protocol=1, agent_version="9", node_id=None, boot_id="b", capabilities=())


def found(environment: dict[str, str]) -> BaseOSRuntime:
    runtime = detect(environment)
    assert isinstance(runtime, BaseOSRuntime), runtime
    return runtime


def why_not(environment: dict[str, str]) -> str:
    answer = detect(environment)
    assert isinstance(answer, NotBaseOS)
    assert anyio.run(detect_async, environment) == answer
    return "; ".join(answer.reasons)


@contextmanager
def somebody(answer: bytes) -> Iterator[dict[str, str]]:
    """Another program behind the socket that gives this answer to everybody."""
    place = Path(f"/tmp/somebody-{os.getpid()}")  # noqa: S108 - short enough for a socket
    place.mkdir(mode=0o700)
    (place / "token").write_text("bct_" + "a" * 43)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "agent.sock"))
        listener.listen()

        def serve() -> None:
            while True:
                line, _ = listener.accept()
                with line:
                    if line.recv(65_536).startswith(b"STOP"):
                        return
                    line.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        yield {
            "SERVEZONE_RUNTIME": "baseos",
            "BASEOS_AGENT_URL": f"unix://{place / 'agent.sock'}",
        }
        with socket.socket(socket.AF_UNIX) as stop:
            stop.connect(str(place / "agent.sock"))
            stop.sendall(b"STOP")
        serving.join()
    for name in ("agent.sock", "token"):
        (place / name).unlink()
    place.rmdir()


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()


# -- is this BaseOS? -----------------------------------------------------------------------------


def test_balenas_variables_alone_never_count() -> None:
    assert why_not(BALENA) == (
        "SERVEZONE_RUNTIME is not set, not 'baseos'; "
        "BASEOS_AGENT_URL is not set: no handshake can be tried"
    )


@pytest.mark.slow
def test_all_three_signals_are_baseos_with_or_without_balenas(shared_device: Device) -> None:
    for environment in (shared_device.neighbour, {**BALENA, **shared_device.neighbour}):
        with found(environment) as runtime:
            assert runtime.handshake.runtime == "baseos"
            assert runtime.handshake.capabilities == ("status", "locks")


@pytest.mark.slow
def test_two_signals_of_three_are_not_baseos_and_the_reason_names_the_third(
    shared_device: Device,
) -> None:
    whole = shared_device.neighbour
    without = {
        left: why_not({name: value for name, value in whole.items() if name != left})
        for left in whole
    }
    other_runtime = why_not({**whole, "SERVEZONE_RUNTIME": "docker"})
    nobody_there = why_not({**whole, "BASEOS_AGENT_URL": "unix:///tmp/nobody/agent.sock"})

    assert without["SERVEZONE_RUNTIME"] == "SERVEZONE_RUNTIME is not set, not 'baseos'"
    assert without["BASEOS_AGENT_URL"].startswith("BASEOS_AGENT_URL is not set")
    assert other_runtime == "SERVEZONE_RUNTIME is 'docker', not 'baseos'"
    assert nobody_there.startswith("the handshake failed: the capability token cannot be read")


@pytest.mark.parametrize(
    "url",
    ["agent.sock", "unix://relative/agent.sock", "unix:", "https://127.0.0.1:1", "http://10.0.0.1:1",
     "http://127.0.0.1:1/path", "http://127.0.0.1:1", "http://localhost.evil.example:1", "http://[::1"],
)  # fmt: skip
def test_an_address_that_is_none_of_ours_is_not_asked(url: str) -> None:
    said = why_not({"SERVEZONE_RUNTIME": "baseos", "BASEOS_AGENT_URL": url})

    assert said.startswith("BASEOS_AGENT_URL is no address: ")


@pytest.mark.slow
def test_a_wrong_token_is_not_baseos(shared_device: Device, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bct_" + "o" * 43)

    said = why_not({**shared_device.neighbour, "BASEOS_AGENT_TOKEN_FILE": str(tmp_path / "token")})

    assert "(401 token-unknown)" in said
    assert "ooo" not in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("<html>hello</html>"), "is not BaseRunner"),
        (http('{"runtime": "other", "protocol": 1}'), "is not BaseRunner"),
        (http("nothing here", "404 Not Found"), "404 to /v1/handshake"),
        (http("", "302 Found"), "302 to /v1/handshake"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer from BaseRunner"),
        (b"", "no answer from BaseRunner"),
        (
            http(HANDSHAKE.model_copy(update={"protocol": 2}).model_dump_json()),
            "BaseRunner speaks protocol 2, and this client 1: update Onebox",
        ),
    ],
)
def test_what_answers_otherwise_is_not_baseos(answer: bytes, said: str) -> None:
    with somebody(answer) as environment:
        assert said in why_not(environment)


def test_a_newer_agent_that_only_has_more_to_say_is_understood() -> None:
    more = (
        '{"runtime":"baseos","protocol":1,"agent_version":"9","node_id":"n","boot_id":"b",'
        '"capabilities":["x"],"new":1}'
    )
    with somebody(http(more)) as environment, found(environment) as runtime:
        assert runtime.handshake.capabilities == ("x",)


@pytest.mark.slow
def test_an_agent_that_is_just_being_restarted_is_waited_for(device: Device) -> None:
    device.start()
    assert device.process is not None
    device.stop()
    device.launch()
    device.until(device.socket.exists)

    found(device.neighbour).close()


@pytest.mark.slow
def test_over_loopback_it_is_the_same(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    device.more = {"BASEOS_LOCAL_API_PORT": str(port)}
    device.start()
    environment = {
        "SERVEZONE_RUNTIME": "baseos",
        "BASEOS_AGENT_URL": f"http://127.0.0.1:{port}",
        "BASEOS_AGENT_TOKEN_FILE": str(device.place / "token"),
    }

    with found(environment) as runtime, runtime.update_lock("backup", "nightly") as held:
        assert [lock.lock for lock in runtime.locks()] == [held.lock.lock]


# -- what a neighbour may do ---------------------------------------------------------------------


@pytest.mark.slow
def test_replacing_itself_is_an_error_that_says_what_to_do_instead(shared_device: Device) -> None:
    with (
        found(shared_device.neighbour) as runtime,
        pytest.raises(DelegatedError, match=r"cloudly release set.*update_lock"),
    ):
        runtime.replace_self()


@pytest.mark.slow
def test_a_lock_is_held_in_its_context_and_nowhere_else(shared_device: Device) -> None:
    with found(shared_device.neighbour) as runtime:
        with runtime.update_lock("backup", "nightly backup", ttl_s=30) as held:
            inside, why = runtime.locks(), runtime.status().why_not_reboot
            held.check()
        with pytest.raises(ValueError, match="the backup failed"), runtime.update_lock("b", "r"):
            raise ValueError("the backup failed")

        assert [(lock.owner, lock.reason) for lock in inside] == [("backup", "nightly backup")]
        assert why == ("backup holds an update lock: nightly backup",)
        assert runtime.locks() == ()


@pytest.mark.slow
def test_the_same_with_an_event_loop(shared_device: Device) -> None:
    async def story() -> tuple[int, int, str]:
        runtime = await detect_async(shared_device.neighbour)
        assert isinstance(runtime, AsyncBaseOSRuntime)
        async with runtime:
            async with runtime.update_lock("backup", "nightly backup"):
                inside = len(await runtime.locks())
            with pytest.raises(ValueError, match="the backup failed"):
                async with runtime.update_lock("backup", "nightly backup"):
                    raise ValueError("the backup failed")
            with anyio.move_on_after(0.3) as scope:
                async with runtime.update_lock("backup", "nightly backup"):
                    await RealWorld().sleep(60)
            assert scope.cancelled_caught
            status = await runtime.status()
            with pytest.raises(DelegatedError):
                runtime.replace_self()
            return inside, len(await runtime.locks()), status.enrollment

    inside, after, enrollment = anyio.run(story)

    assert (inside, after) == (1, 0)
    assert enrollment.startswith("enrollment/1")


@pytest.mark.slow
def test_a_live_holder_keeps_its_lock_far_beyond_its_time(shared_device: Device) -> None:
    async def hold() -> list[str]:
        runtime = await detect_async(shared_device.neighbour)
        assert isinstance(runtime, AsyncBaseOSRuntime)
        async with runtime, runtime.update_lock("async", "long", ttl_s=5) as held:
            await RealWorld().sleep(8)
            held.check()
            return [lock.owner for lock in await runtime.locks()]

    with found(shared_device.neighbour) as runtime:
        with runtime.update_lock("sync", "long", ttl_s=5) as held:
            owners = anyio.run(hold)
            held.check()
        assert owners == ["sync", "async"]
        assert runtime.locks() == ()


@pytest.mark.slow
def test_a_dead_holders_lock_ends_by_itself(shared_device: Device) -> None:
    code = (
        "import os, onebox\n"
        "runtime = onebox.detect(os.environ)\n"
        "runtime.update_lock('dead', 'killed in the middle', ttl_s=5).__enter__()\n"
        "print('held', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    dead = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], **shared_device.neighbour},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    with found(shared_device.neighbour) as runtime:
        held = runtime.locks()
        pause(5.5)

        assert (dead.returncode, dead.stdout) == (-9, "held\n")
        assert [lock.owner for lock in held] == ["dead"]
        assert runtime.locks() == ()


@pytest.mark.slow
def test_a_holder_does_not_notice_that_the_agent_was_killed(device: Device) -> None:
    device.start()
    lost: list[str] = []
    with (
        found(device.neighbour) as runtime,
        runtime.update_lock("backup", "nightly", ttl_s=9, on_lost=lost.append) as held,
    ):
        device.kill()
        pause(4)  # a renewal fails
        device.start()
        pause(4)

        held.check()
        assert [lock.lock for lock in runtime.locks()] == [held.lock.lock]
        assert runtime.locks()[0].left_s > 4
    assert lost == []


@pytest.mark.slow
def test_a_holder_is_told_when_its_lock_was_ended_by_another_hand(shared_device: Device) -> None:
    lost: list[str] = []
    with found(shared_device.neighbour) as runtime:
        lock = runtime.update_lock("backup", "nightly", ttl_s=6, on_lost=lost.append)
        with pytest.raises(LockLost, match="the update lock of backup was lost"), lock as held:  # noqa: PT012 - its end raises
            ended(shared_device, lock._holding)
            shared_device.until(lambda: bool(lost))
            with pytest.raises(LockLost):
                held.check()
        said = held.lost

    assert lost == [said]
    assert "it has ended" in said


@pytest.mark.slow
def test_an_error_of_the_holder_is_not_hidden_by_a_lost_lock(shared_device: Device) -> None:
    with found(shared_device.neighbour) as runtime:
        lock = runtime.update_lock("backup", "nightly", ttl_s=6)
        with pytest.raises(ValueError, match="the disk is full"), lock as held:  # noqa: PT012 - its end must not raise
            ended(shared_device, lock._holding)
            shared_device.until(lambda: bool(held.lost))
            raise ValueError("the disk is full")


def ended(device: Device, holding: Holding) -> None:
    """As an operator's hand does it: behind the holder's back."""
    line = Line(read_address(device.neighbour["BASEOS_AGENT_URL"], None))
    line.ask(holding.release())
    line.close()


@pytest.mark.slow
def test_an_agent_that_stays_away_longer_than_the_lock_lasts_makes_it_lost(device: Device) -> None:
    device.start()
    with found(device.neighbour) as runtime:
        lock = runtime.update_lock("backup", "nightly", ttl_s=5)
        with pytest.raises(LockLost, match="could not be renewed"), lock as held:  # noqa: PT012 - its end raises
            device.stop()
            pause(7.5)
            assert held.lost


@pytest.mark.slow
def test_a_lock_with_nonsense_terms_is_refused_before_anybody_is_asked(
    shared_device: Device,
) -> None:
    with found(shared_device.neighbour) as runtime:
        for owner, reason, ttl_s in (("", "r", 60.0), ("o", "", 60.0), ("o", "r", 1.0)):
            with pytest.raises(ValueError, match="Acquire"):
                runtime.update_lock(owner, reason, ttl_s=ttl_s)


@pytest.mark.slow
def test_without_an_agent_a_lock_cannot_be_had(device: Device) -> None:
    device.start()
    with found(device.neighbour) as runtime:
        device.stop()
        with pytest.raises(Unreachable, match="no answer from BaseRunner"):
            runtime.update_lock("backup", "nightly").__enter__()


class Losing(httpx.BaseTransport):
    """Over the real socket; the first answers are lost on their way."""

    def __init__(self, socket: Path, lost: int) -> None:
        self._real = httpx.HTTPTransport(uds=str(socket), verify=False)
        self.lost = lost

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._real.handle_request(request)
        if self.lost:
            self.lost -= 1
            response.read()
            raise httpx.ReadError("the connection broke")
        return response

    def close(self) -> None:
        self._real.close()


@pytest.mark.slow
def test_an_answer_that_was_lost_on_its_way_leaves_no_second_lock(shared_device: Device) -> None:
    line = Line(read_address(shared_device.neighbour["BASEOS_AGENT_URL"], None))
    losing = Losing(shared_device.socket, lost=2)
    line._client = httpx.Client(transport=losing)
    holding = Holding(Terms("backup", "nightly", 30.0, 0.0, None))

    held = line.ask(holding.acquire())
    with found(shared_device.neighbour) as runtime:
        listed = runtime.locks()
    holding.acquired(held, 0.0)
    losing.lost = 1
    line.ask(holding.release())
    line.close()

    assert losing.lost == 0
    assert [lock.lock for lock in listed] == [held.lock.lock]


# -- what is waited for, and what is not ---------------------------------------------------------


def refusing(first: Refused) -> tuple[Line, Callable[[], int]]:
    """A line whose agent refuses once, and then has a lock for us."""
    asked = 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            problem = {"title": "No", "status": first.status, "code": first.code}
            return httpx.Response(first.status, json=problem)
        held = {
            "lock": {
                "lock": "0" * 32, "owner": "backup", "reason": "nightly", "state": "held",
                "since_ms": 0, "until_ms": 1, "left_s": 60,
            },
            "key": "k",
        }  # fmt: skip
        return httpx.Response(201, json=held if asked == 2 else held["lock"])

    line = Line(read_address("unix:///dev/null", "/dev/null"))
    line._client = httpx.Client(transport=httpx.MockTransport(answer))
    return line, lambda: asked


@pytest.mark.parametrize(
    ("code", "wait_s", "gets_it"),
    [("locked-out", 30.0, True), ("locked-out", 0.0, False), ("busy", 30.0, False)],
)
def test_an_update_that_is_being_applied_is_waited_for_by_who_has_the_time(
    code: str,
    wait_s: float,
    gets_it: bool,  # noqa: FBT001 - a column of the table
) -> None:
    line, asked = refusing(Refused(409, code, ""))
    runtime = BaseOSRuntime(line, HANDSHAKE)

    if gets_it:
        with runtime.update_lock("backup", "nightly", wait_s=wait_s):
            assert asked() == 2
    else:
        with pytest.raises(Refused, match=code):
            runtime.update_lock("backup", "nightly", wait_s=wait_s).__enter__()
        assert asked() == 1
    runtime.close()


@pytest.mark.slow
def test_no_log_of_the_client_holds_a_secret(
    shared_device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    line = Line(read_address(shared_device.neighbour["BASEOS_AGENT_URL"], None))
    holding = Holding(Terms("backup", "nightly", 30.0, 0.0, None))

    held = line.ask(holding.acquire())
    holding.acquired(held, 0.0)
    line.ask(holding.release())
    line.close()

    assert "/v1/locks" in caplog.text
    for secret in (shared_device.token, held.key.get_secret_value()):
        assert secret not in caplog.text + repr(holding) + repr(line) + repr(held)
        assert secret not in repr(Call("POST", "/v1/locks", Held, holding.renew().asks))
