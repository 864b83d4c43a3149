"""The agent as a real process: two on one data directory, and SIGTERM in each phase."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from interfaces.world import RealWorld
from journal.facts import Stamp
from journal.journal import Journal
from journal.problems import AlreadyRunning, JournalProblem
from journal.reader import open_reader
from simulators.demo.script import _set_release
from simulators.demo.stage import Stage
from simulators.world import run_virtual
from tests.world.kit import a_place

WORLD = RealWorld()
STOPPED_WITHIN_S = 10.0
TOKEN = "bjt_" + "t" * 43


def test_a_second_agent_on_one_data_directory_refuses_and_names_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_place(tmp_path) as place:
            place.home.mkdir(parents=True)
            stamp = Stamp(at_ms=0, boot_id="b", mono_ms=0)
            before = len(place.supervisor.told)
            with Journal.open(place.home, stamp=lambda: stamp, new_epoch=lambda: "e"):
                with pytest.raises(BaseExceptionGroup) as refused:
                    await place.live()
                (problem,) = refused.value.exceptions
                assert isinstance(problem, AlreadyRunning)
                assert problem.pid == os.getpid()
            assert len(place.supervisor.told) == before
            assert place.to_cloudly.requests == []

    run_virtual(story)


# -- real processes --------------------------------------------------------------------------------


@contextmanager
def an_agent(data: Path, cloudly: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    ours = ("BASEOS_", "BALENA_", "CLOUDLY_", "SERVEZONE_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    settings = {
        "BASEOS_CLOUDLY_URL": cloudly,
        "BASEOS_DATA_DIR": str(data),
        "BASEOS_LOCK_DIR": str(data.parent / "locks"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "baserunner", "run"],
        env={**bare, **settings, **environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            yield agent
        finally:
            agent.kill()


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = WORLD.monotonic() + within_s
    while not true():
        assert WORLD.monotonic() < deadline, "it did not come to that"
        anyio.run(WORLD.sleep, 0.02)


def state_of(data: Path, machine: str) -> str | None:
    """Of the newest attempt."""
    try:
        with open_reader(data / "baseos") as reader:
            infos = reader.streams(machine)
    except JournalProblem:
        return None
    return infos[-1].state if infos else None


def stops_well(agent: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    began = WORLD.monotonic()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(STOPPED_WITHIN_S + 5) == 0
    assert WORLD.monotonic() - began < STOPPED_WITHIN_S


@contextmanager
def a_mute_server() -> Iterator[str]:
    """It takes every connection, and never says a word."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


@pytest.mark.slow
def test_a_second_process_ends_with_code_3_and_the_pid_of_the_first(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with an_agent(data, "http://127.0.0.1:1") as first:
        until(lambda: state_of(data, "enrollment") == "awaiting-token")
        with an_agent(data, "http://127.0.0.1:1") as second:
            assert second.wait(20) == 3
            assert second.stderr is not None
            assert f"process {first.pid} is writing it" in second.stderr.read()
        assert first.poll() is None
        stops_well(first)


@pytest.mark.slow
def test_sigterm_ends_a_degraded_agent(tmp_path: Path) -> None:
    with an_agent(tmp_path / "missing", "http://127.0.0.1:1") as agent:
        assert agent.stderr is not None
        assert "degraded" in agent.stderr.readline()
        stops_well(agent)


@pytest.mark.slow
def test_sigterm_ends_an_agent_without_a_token(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with an_agent(data, "http://127.0.0.1:1") as agent:
        until(lambda: state_of(data, "enrollment") == "awaiting-token")
        stops_well(agent)


@pytest.mark.slow
def test_sigterm_ends_an_agent_that_backs_off(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with an_agent(data, "http://127.0.0.1:1", BASEOS_JOIN_TOKEN=TOKEN) as agent:
        until(lambda: state_of(data, "enrollment") == "backing-off")
        stops_well(agent)


@pytest.mark.slow
def test_sigterm_ends_an_agent_that_waits_for_an_answer(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with (
        a_mute_server() as mute,
        an_agent(data, mute, BASEOS_JOIN_TOKEN=TOKEN) as agent,
    ):
        until(lambda: state_of(data, "enrollment") == "asking")
        anyio.run(WORLD.sleep, 0.5)
        stops_well(agent)


@pytest.mark.slow
def test_sigterm_in_each_phase_of_an_update_is_survived_by_the_update(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage", speed=1)
    data = stage.directory / "data"

    def stop_and_start(join_token: str) -> None:
        stops_well(stage.running.pop("baserunner"))
        stage.start_agent(join_token)

    async def up() -> str:
        await stage.start_cloudly()
        token: str = json.loads(stage.ask(["cloudly", "token", "create", "--json"]))["token"]
        await stage.start_supervisor(token)
        stage.start_agent(token)
        return token

    try:
        token = anyio.run(up)
        until(lambda: state_of(data, "heartbeat") == "resting")
        stop_and_start(token)
        _set_release(stage, "1.0.0")
        until(lambda: state_of(data, "app-update") == "succeeded", 90)
        _set_release(stage, "1.1.0")
        for phase in ("downloading", "applying", "verifying"):
            until(lambda phase=phase: state_of(data, "app-update") == phase, 60)  # type: ignore[misc]
            stop_and_start(token)
        until(lambda: state_of(data, "app-update") == "succeeded", 90)
        stops_well(stage.running.pop("baserunner"))
    finally:
        stage.end()
