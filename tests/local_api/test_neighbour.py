"""A neighbour app beside a running agent: an enrolled device, an update that waits for it, a host that it outlives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from onebox import BaseOSRuntime, Refused, detect
from simulators.demo.script import _set_release
from simulators.demo.stage import Stage
from tests.local_api.given import pause

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/neighbour.py"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="stage-") as root:
        made = Stage(Path(root) / "s", speed=10, local_api=True)
        try:
            anyio.run(begin, made)
            yield made
        finally:
            made.end()


async def begin(stage: Stage) -> None:
    """Cloudly, a Supervisor and an agent with its local API; returns when it is enrolled."""
    await stage.start_cloudly()
    token = json.loads(stage.ask(["cloudly", "token", "create", "--json"]))["token"]
    await stage.start_supervisor(token)
    stage.start_agent(token)


def environment(stage: Stage) -> dict[str, str]:
    socket = stage.directory / "local-api" / "agent.sock"
    return {"SERVEZONE_RUNTIME": "baseos", "BASEOS_AGENT_URL": f"unix://{socket}"}


def neighbour(stage: Stage) -> BaseOSRuntime:
    """Found when it is enrolled."""
    deadline = stage.world.monotonic() + 60
    while stage.world.monotonic() < deadline:
        stage.check_alive()
        runtime = detect(environment(stage))
        if isinstance(runtime, BaseOSRuntime):
            if runtime.status().enrolled:
                return runtime
            runtime.close()
        pause(0.3)
    raise AssertionError("no agent was found")


def example(stage: Stage, *words: str, **other: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment(stage), **other},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_example_shows_the_runtime_and_copies_under_a_lock(stage: Stage) -> None:
    neighbour(stage).close()
    source, target = stage.directory / "data", stage.directory / "logs" / "copy"

    done = example(stage, str(source), str(target))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"BaseOS: node {stage.uuid}, release unknown" in done.stdout
    assert "locked until it is done" in done.stdout
    assert (target / "baseos" / "journal.db").exists()


def test_the_example_says_what_is_missing_where_there_is_no_baseos(stage: Stage) -> None:
    done = example(stage, "from", "to", SERVEZONE_RUNTIME="")

    assert done.returncode == 2
    assert "SERVEZONE_RUNTIME is not set" in done.stdout


def test_an_update_waits_for_the_lock_and_the_neighbour_sees_all_of_it(stage: Stage) -> None:
    with neighbour(stage) as runtime:
        _set_release(stage, "1.0.0")
        until(stage, lambda: _release(runtime) == "1.0.0" and _state(runtime) is None)
        with runtime.update_lock("backup", "nightly backup", ttl_s=30):
            _set_release(stage, "1.1.0")
            until(stage, lambda: _state(runtime) == "staged")
            pause(4)  # at this speed a whole update takes no longer
            waiting = runtime.status()
        until(stage, lambda: _release(runtime) == "1.1.0" and _state(runtime) is None)
        after = runtime.status()

    assert waiting.update is not None
    assert waiting.release is not None
    assert (waiting.update.state, waiting.update.version) == ("staged", "1.1.0")
    assert waiting.release.version == "1.0.0"
    told = "; ".join(one.waits_for + one.reason for one in waiting.waiting)
    assert "backup" in told
    assert not waiting.may_reboot
    assert (after.update, after.waiting, after.may_reboot) == (None, (), True)


def test_no_lock_begins_while_an_update_is_being_applied(stage: Stage) -> None:
    with neighbour(stage) as runtime:
        _set_release(stage, "1.0.0")
        refused = locked_out(stage, runtime)
        with runtime.update_lock("backup", "nightly backup", wait_s=60):
            assert _release(runtime) == "1.0.0"

    assert (refused.status, refused.code) == (409, "locked-out")
    assert "applying" in refused.detail


def locked_out(stage: Stage, runtime: BaseOSRuntime) -> Refused:
    """What a lock is refused with in the moment in which the update is applied."""
    found: list[Refused] = []

    def asked() -> bool:
        try:
            with runtime.update_lock("backup", "nightly backup"):
                return False
        except Refused as refused:
            found.append(refused)
            return True

    until(stage, asked)
    return found[0]


def until(stage: Stage, true: object) -> None:
    deadline = stage.world.monotonic() + 60
    assert callable(true)
    while not true():
        assert stage.world.monotonic() < deadline
        stage.check_alive()
        pause(0.06)


def _state(runtime: BaseOSRuntime) -> str | None:
    update = runtime.status().update
    return None if update is None else update.state


def _release(runtime: BaseOSRuntime) -> str | None:
    release = runtime.status().release
    return None if release is None else release.version
