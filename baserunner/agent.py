"""The composition root: opens the journal, lives with it, and is degraded while it cannot.

Degraded means: nothing is done to the device; the node keeps heartbeating as long as it knows its identity, and
says why; the journal is tried again and again, and life goes on when it opens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import httpx

from baserunner import __version__
from baserunner.identity import read_identity
from baserunner.life import Life, Neighbours
from baserunner.locks import UpdateLock
from baserunner.neighbours.cloudly import HttpCloudly
from baserunner.neighbours.host import Host, RealHost
from baserunner.neighbours.supervisor import HttpSupervisor
from baserunner.pace import retry_s
from baserunner.problems import IdentityProblem, NeighbourProblem, Refused
from baserunner.report import Seen, look_at_supervisor, report
from baserunner.settings import Settings
from baserunner.watchdog import Watchdog
from interfaces.heartbeat import HeartbeatRequest
from interfaces.world import World, new_id, now_ms
from journal.facts import Stamp
from journal.journal import Journal
from journal.problems import AlreadyRunning, JournalProblem, NotWritable

log = logging.getLogger(__name__)

RETRY_OPEN_S = 10.0


@dataclass
class Agent:
    """`run` never returns by itself; cancelling it stops the agent gracefully."""

    settings: Settings
    near: Neighbours
    watchdog: Watchdog | None = None
    _misses: int = 0
    _next_beat_at: float = field(default=0.0)

    async def run(self) -> None:
        """Raises AlreadyRunning when another agent has this data directory."""
        async with anyio.create_task_group() as tasks:
            if self.watchdog is not None:
                tasks.start_soon(self.watchdog.feed, self.near.world)
            while True:
                reason = await self._live_until_trouble()
                log.error("degraded: nothing is done to the device: %s", reason)
                await self._be_degraded(reason)

    async def _live_until_trouble(self) -> str:
        try:
            journal = open_journal(self.settings, self.near)
        except AlreadyRunning:
            raise
        except JournalProblem as problem:
            return str(problem)
        log.info("journal open, epoch %s; agent %s", journal.epoch, __version__)
        troubles: list[str] = []
        with journal:
            try:
                await Life(self.settings, journal, self.near).run()
            except* (JournalProblem, IdentityProblem) as group:
                troubles = [str(problem) for problem in flat(group)]
        return "; ".join(dict.fromkeys(troubles))

    async def _be_degraded(self, reason: str) -> None:
        if self.near.world.monotonic() >= self._next_beat_at:
            await self._beat_degraded(reason)
        await self.near.world.sleep(RETRY_OPEN_S)

    async def _beat_degraded(self, reason: str) -> None:
        """One heartbeat without a journal: who we are and why nothing is done."""
        try:
            identity = read_identity(self.settings.home)
        except IdentityProblem as problem:
            log.error("%s", problem)  # noqa: TRY400 - a traceback adds nothing
            return
        if identity is None or identity.node_token is None:
            return
        sight = await look_at_supervisor(self.near.supervisor)
        request = HeartbeatRequest(
            node_id=identity.node_id,
            epoch=None,
            agent_version=__version__,
            sent_at_ms=now_ms(self.near.world),
            reported=report(
                world=self.near.world,
                host=self.near.host,
                sight=sight,
                seen=Seen(),
                journal=None,
                degraded=(reason[:2000],),
            ),
        )
        try:
            answer = await self.near.cloudly.heartbeat(request, identity.node_token)
        except NeighbourProblem as problem:
            self._misses += 1
            log.warning("degraded, and %s", problem)
            wait_s = (
                3600.0 if isinstance(problem, Refused) else retry_s(self._misses, self.near.world)
            )
        else:
            self._misses = 0
            wait_s = answer.heartbeat_every_s
        self._next_beat_at = self.near.world.monotonic() + wait_s


def open_journal(settings: Settings, near: Neighbours) -> Journal:
    """The journal in the agent's home. Raises JournalProblem.

    A missing data directory is not made: it would be one in the container's own file system, gone at the next update.
    """
    if not settings.data_dir.is_dir():
        raise NotWritable(
            f"open the journal in {settings.data_dir}",
            "that directory is missing",
            "mount a volume there (BASEOS_DATA_DIR)",
        )
    try:
        settings.home.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NotWritable(
            f"make {settings.home}",
            error.strerror or type(error).__name__,
            "check the volume's owner, mode and free space",
        ) from None
    world = near.world
    return Journal.open(
        settings.home,
        stamp=lambda: Stamp(
            at_ms=now_ms(world), boot_id=world.boot_id(), mono_ms=round(world.monotonic() * 1000)
        ),
        new_epoch=lambda: new_id(world),
        points=near.points,
    )


def neighbours(  # noqa: PLR0913 - the seams, each once
    settings: Settings,
    world: World,
    *,
    cloudly_transport: httpx.AsyncBaseTransport | None = None,
    supervisor_transport: httpx.AsyncBaseTransport | None = None,
    host: Host | None = None,
    points: Callable[[str], None] = lambda _: None,
    hide: Callable[[str], None] = lambda _: None,
) -> Neighbours:
    """Everyone the agent talks to; the transports are where tests put a simulated world."""
    supervisor = None
    if settings.supervisor_address is not None and settings.supervisor_key is not None:
        hide(settings.supervisor_key.get_secret_value())
        supervisor = HttpSupervisor(
            _client(settings.supervisor_address, supervisor_transport),
            settings.supervisor_address,
            settings.supervisor_key,
        )
    return Neighbours(
        world=world,
        cloudly=HttpCloudly(
            _client(settings.cloudly_url, cloudly_transport), settings.cloudly_url, world
        ),
        supervisor=supervisor,
        host=host or RealHost(settings.data_dir),
        lock=UpdateLock(settings.lock_dir),
        points=points,
        hide=hide,
    )


def _client(url: str, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client of one neighbour. Certificates are loaded only for https: they cost memory and 100 ms of CPU."""
    return httpx.AsyncClient(
        transport=transport,
        verify=url.startswith("https://"),
        timeout=httpx.Timeout(15.0),
        headers={"User-Agent": f"baserunner/{__version__}"},
        trust_env=False,
    )


def flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions of a group, however deep they lie."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
