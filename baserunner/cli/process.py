"""The agent as a process: signals, log, limits; and the other processes' way to reach it."""

from __future__ import annotations

import logging
import os
import resource
import signal
from pathlib import Path

import anyio
from pydantic import SecretStr

from baserunner import logs, orders
from baserunner.agent import Agent, flat, neighbours, open_journal
from baserunner.cli.show import barred
from baserunner.life import Life
from baserunner.problems import BaserunnerProblem, IdentityProblem
from baserunner.settings import Settings
from baserunner.watchdog import Watchdog
from interfaces.world import RealWorld, World, new_id
from journal.problems import AlreadyRunning, JournalProblem
from journal.reader import open_reader

log = logging.getLogger("baserunner")

STOPPED_WITHIN_S = 8.0
"""The container is killed 10 s after SIGTERM."""
ANSWER_WITHIN_S = 20.0
ENROLL_WITHIN_S = 120.0


def run_agent(settings: Settings) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold every secret
    secrets = [s.get_secret_value() for s in (settings.join_token, settings.supervisor_key) if s]
    formatter = logs.set_up(settings.log_level, secrets)
    world = RealWorld()
    near = neighbours(settings, world, formatter=formatter)
    agent = Agent(settings, near, watchdog=Watchdog())
    code = 0
    try:
        anyio.run(_until_signalled, agent)
    except* AlreadyRunning as group:
        log.error("%s", flat(group)[0])  # noqa: TRY400 - one line, no traceback
        code = 3
    return code


async def _until_signalled(agent: Agent) -> None:
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            tasks.start_soon(agent.run)
            async for received in signals:
                log.info("stopping: %s", received.name)
                tasks.cancel_scope.cancel()
                break


def agent_pid(home: Path) -> int | None:
    """The pid of the agent that holds the journal; None when none runs."""
    from journal.lock import holder

    return holder(home)


def no_agent(home: Path) -> tuple[int, str] | None:
    """Exit code and what to say where there is no agent to give an order to; None where there is one."""
    if reason := barred(home):
        return 1, reason
    if agent_pid(home) is None:
        return 3, f"no agent runs on {home}: start `baserunner run`"
    return None


def give_order(
    home: Path, kind: orders.OrderKind, *, lock: str = "", reason: str = ""
) -> tuple[int, str]:
    """Put the order down, wait for the answer. Returns exit code and what to say."""
    order = orders.Order(kind=kind, by=f"uid {os.getuid()}", lock=lock, reason=reason)
    return no_agent(home) or anyio.run(_give_order, home, order)


async def _give_order(home: Path, order: orders.Order) -> tuple[int, str]:
    world = RealWorld()
    try:
        answer_at = orders.place(home, new_id(world), order)
    except BaserunnerProblem as problem:
        return 1, str(problem)
    deadline = world.monotonic() + ANSWER_WITHIN_S
    while world.monotonic() < deadline:
        if answer_at.exists():
            given = orders.OrderAnswer.model_validate_json(answer_at.read_bytes())
            answer_at.unlink()
            return (0 if given.done else 1), given.said
        await world.sleep(0.1)
    try:
        answer_at.with_suffix(".order").unlink()
    except OSError:
        return 1, f"the agent took the order but gave no answer within {ANSWER_WITHIN_S:g} s"
    return 1, (
        f"the agent did not take the order within {ANSWER_WITHIN_S:g} s, so it was withdrawn: "
        "see `baserunner status`"
    )


def enroll_now(settings: Settings, token: SecretStr) -> tuple[int, str]:
    """Hand the token to the running agent, or enroll right here. Returns exit code and what to say."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    formatter = logs.set_up("WARNING", [token.get_secret_value()])
    home = settings.home
    if reason := barred(home):
        return 1, reason
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        _write_token(home, token)
    except OSError as error:
        return 1, f"cannot write to {home}: {error.strerror}; is the data volume mounted?"
    world = RealWorld()
    near = neighbours(settings, world, formatter=formatter)
    try:
        if agent_pid(home) is not None:
            return anyio.run(_watch_enrollment, home, world)
        with open_journal(settings, near) as journal:
            return anyio.run(_enroll_here, Life(settings, journal, near))
    except (JournalProblem, IdentityProblem) as problem:
        return 1, str(problem)


async def _enroll_here(life: Life) -> tuple[int, str]:
    with anyio.move_on_after(ENROLL_WITHIN_S):
        identity = await life.enroll(stop_when_refused=True)
        if identity is None:
            return 1, life.enrollment_in_words()
        return 0, f"enrolled as node {identity.node_id}"
    return 1, f"not enrolled within {ENROLL_WITHIN_S:g} s: {life.enrollment_in_words()}"


async def _watch_enrollment(home: Path, world: World) -> tuple[int, str]:
    """Follow the journal until the running agent has made something of the new token."""
    deadline = world.monotonic() + ENROLL_WITHIN_S
    with open_reader(home) as reader:
        before = _newest(reader)
        while world.monotonic() < deadline:
            if not (home / orders.TOKEN_FILE).exists():
                return 0, "the agent has enrolled"
            newest = _newest(reader)
            if newest != before and newest[1] == "refused":
                return 1, "refused: see `baserunner why enrollment`"
            await world.sleep(0.25)
    return 1, "the agent has not enrolled yet: see `baserunner why enrollment`"


def _newest(reader: object) -> tuple[int, str]:
    infos = reader.streams("enrollment")  # type: ignore[attr-defined]
    last = infos[-1].last if infos else None
    return (last.n, last.dst) if last else (0, "new")


def _write_token(home: Path, token: SecretStr) -> None:
    path = home / orders.TOKEN_FILE
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token.get_secret_value())
        owner = home.stat()
        if os.geteuid() == 0:  # `docker exec` comes in as root; the agent is not
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    temporary.replace(path)
