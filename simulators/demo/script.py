"""The script: what is done to the device, and what must come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from simulators.demo.stage import Stage, StageFailure
from simulators.demo.teller import Teller, Told


@dataclass
class Verdict:
    """What was promised, and whether it was seen."""

    seen: list[tuple[bool, str]] = field(default_factory=list)

    def check(self, promise: str, kept: bool) -> None:  # noqa: FBT001 - a promise is kept or not
        self.seen.append((kept, promise))

    @property
    def kept(self) -> bool:
        return bool(self.seen) and all(kept for kept, _ in self.seen)


async def play(stage: Stage) -> Verdict:
    """The whole story, once. Raises StageFailure when it gets stuck."""
    failures: list[BaseException] = []
    try:
        return await _play(stage)
    except* StageFailure as group:
        failures += group.exceptions
    while isinstance(failures[0], BaseExceptionGroup):
        failures = list(failures[0].exceptions)
    raise failures[0]


async def _play(stage: Stage) -> Verdict:
    teller, verdict = Teller(stage), Verdict()
    await stage.start_cloudly()
    teller.say(f"Cloudly is up: {stage.page}")
    made = json.loads(stage.ask(["cloudly", "token", "create", "--name", "demo", "--json"]))
    join_token = made["token"]
    teller.say("a one-time join token was made")
    await stage.start_supervisor(join_token)
    teller.say(f"a simulated balena Supervisor is up on port {stage.supervisor_port}")
    pid = stage.start_agent(join_token)
    stage.write_shell()
    teller.say(f"baserunner run: pid {pid}")
    async with anyio.create_task_group() as tasks:
        await tasks.start(teller.follow)
        await _enroll(teller, verdict)
        await _first_release(teller, verdict)
        await _killed_while_applying(teller, verdict, join_token)
        await _bad_release(teller, verdict)
        await _same_story_in_cloudly(teller, verdict)
        tasks.cancel_scope.cancel()
    verdict.check("baserunner journal verify finds an unbroken chain", _chain_is_unbroken(stage))
    return verdict


async def _enroll(teller: Teller, verdict: Verdict) -> None:
    await teller.wait_for("enrolled", _is("enrolled"), 30)
    await teller.wait_for("a heartbeat answered", _is("heartbeat-answered"), 30)
    verdict.check("the device enrolled with a one-time join token and heartbeats", kept=True)


async def _first_release(teller: Teller, verdict: Verdict) -> None:
    teller.say("the operator sets release 1.0.0")
    _set_release(teller.stage, "1.0.0")
    end = await teller.wait_for("the end of the first update", _ends("app-update/1"), 60)
    verdict.check("release 1.0.0 succeeded", end["dst"] == "succeeded")


async def _killed_while_applying(teller: Teller, verdict: Verdict, join_token: str) -> None:
    stage = teller.stage
    teller.say("the operator sets release 1.1.0")
    _set_release(stage, "1.1.0")
    await teller.wait_for("staged", _is("staged", "app-update/2"), 60)
    await teller.wait_for("applying", _is("apply-requested", "app-update/2"), 30)
    await _until(stage, "the Supervisor is told to apply", lambda: _cancels(stage) > 0)
    told_before = _cancels(stage)
    pid = stage.kill_agent()
    teller.say(f"kill -9 {pid}: baserunner is dead in the middle of applying", style="bold red")
    pid = stage.start_agent(join_token)
    teller.say(f"baserunner run again: pid {pid}; waking up is reading")
    end = await teller.wait_for("the end of the second update", _ends("app-update/2"), 60)
    verdict.check(
        "release 1.1.0 succeeded, in the same attempt, after kill -9 in applying",
        end["dst"] == "succeeded",
    )
    again = _cancels(stage) - told_before
    verdict.check(f"the Supervisor was told at most once more ({again})", again <= 1)


async def _bad_release(teller: Teller, verdict: Verdict) -> None:
    teller.say("the operator sets release 1.2.0, which will crash after it started")
    _set_release(teller.stage, "1.2.0", behaviour="crash-after-start")
    await teller.wait_for("rollback-needed", _is("health-failed", "app-update/3"), 60)
    end = await teller.wait_for("the end of the third update", _ends("app-update/3"), 60)
    verdict.check(
        "release 1.2.0 failed its health check and 1.1.0 came back",
        end["dst"] == "rolled-back" and end["data"]["release"] == commit_of("1.1.0"),
    )


async def _same_story_in_cloudly(teller: Teller, verdict: Verdict) -> None:
    """Wait until Cloudly has every fact up to now, core lane."""
    stage = teller.stage
    last = max(fact["seq"] for fact in teller.facts if fact["lane"] == "core")
    try:
        await _until(stage, "Cloudly has the story", lambda: _shipped(stage) >= last)
        kept = True
    except StageFailure:
        kept = False
    verdict.check(f"Cloudly has the same story, complete: {last} facts", kept)


def commit_of(version: str) -> str:
    """A release's commit, made from its version."""
    return hashlib.sha256(f"demo release {version}".encode()).hexdigest()[:32]


def _set_release(stage: Stage, version: str, *, behaviour: str | None = None) -> None:
    digest = hashlib.sha256(f"demo image {version}".encode()).hexdigest()
    image = f"main=registry.example/demo-{commit_of(version)}@sha256:{digest}"
    words = ["cloudly", "release", "set", stage.uuid, version, "--release", commit_of(version)]
    words += ["--image", image, "--health-soak", "2", "--health-deadline", "8"]
    if behaviour is not None:
        words += ["--label", f"main=io.baseos.simulator.behaviour={behaviour}"]
    stage.ask(words)


def _is(kind: str, stream: str | None = None) -> Callable[[Told], bool]:
    return lambda fact: fact["kind"] == kind and stream in {None, fact["stream"]}


def _ends(stream: str) -> Callable[[Told], bool]:
    final = {"succeeded", "failed", "superseded", "rolled-back"}
    return lambda fact: fact["stream"] == stream and fact["dst"] in final


def _cancels(stage: Stage) -> int:
    """How often the Supervisor was told to apply."""
    bodies = [told.get("body") for told in stage.told if told["what"] == "update"]
    return sum(1 for body in bodies if isinstance(body, dict) and body.get("cancel"))


async def _until(stage: Stage, what: str, true: Callable[[], bool]) -> None:
    deadline = stage.world.monotonic() + 20
    while not true():
        if stage.world.monotonic() > deadline:
            raise StageFailure(f"it did not come true in 20 s that {what}")
        await stage.world.sleep(0.05)


def _shipped(stage: Stage) -> int:
    node = json.loads(stage.ask(["cloudly", "node", "show", stage.uuid, "--json"]))
    return max((lane["ack_seq"] for lane in node["lanes"] if lane["lane"] == "core"), default=0)


def _chain_is_unbroken(stage: Stage) -> bool:
    try:
        answer = stage.ask(["baserunner", "journal", "verify", "--json"], stage.agent_environment)
    except StageFailure:
        return False
    return bool(json.loads(answer)["ok"])
