"""The composition root: opens the journal, lives with it, and is degraded while it cannot.

A journal that is damaged, lost its tail or is contradicted by Cloudly is kept aside, and life goes on in a new epoch.

Degraded means: nothing is done to the device; the node keeps heartbeating as long as it knows its identity (also one
that it read before the disk went away), and says why; the journal is tried again and again, and life goes on when it
opens. The log says it once, and again when the reason changes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
import httpx
from pydantic import SecretStr

from baserunner import __version__
from baserunner.clock import Clock
from baserunner.epochs import Epochs
from baserunner.identity import Identity, read_identity
from baserunner.life import Life
from baserunner.locks import UpdateLock
from baserunner.logs import Changes, RedactingFormatter
from baserunner.neighbours.cloudly import HttpCloudly
from baserunner.neighbours.host import Host, RealHost
from baserunner.neighbours.supervisor import HttpSupervisor
from baserunner.pace import next_heartbeat_s, retry_s
from baserunner.problems import EpochOver, IdentityProblem, NeighbourProblem, Refused, Unreachable
from baserunner.recent import RecentLines
from baserunner.report import Seen, look_at_supervisor, report
from baserunner.retention import make_room
from baserunner.settings import Settings
from baserunner.shared import Neighbours
from baserunner.trust import verification
from baserunner.watchdog import Watchdog
from interfaces.heartbeat import HeartbeatRequest
from interfaces.world import World, new_id, now_ms
from journal.journal import Journal
from journal.problems import (
    GOES_ON,
    AlreadyRunning,
    Damaged,
    JournalProblem,
    NoSpace,
    NotWritable,
)
from journal.reader import open_reader
from journal.verify import what_is_wrong

log = logging.getLogger(__name__)

RETRY_OPEN_S = 10.0
REFUSED_S = 3600.0
"""A node that is refused cannot enroll anew without a journal: asking once an hour shows whether that has changed."""


@dataclass
class Agent:
    """`run` never returns by itself; cancelling it stops the agent gracefully."""

    settings: Settings
    near: Neighbours
    watchdog: Watchdog | None = None
    life: Life | None = field(default=None, init=False)
    """None while the journal cannot be opened."""
    _misses: int = 0
    _next_beat_at: float = 0.0
    _rest_s: float = RETRY_OPEN_S
    """How long the journal is left alone after its last trouble."""
    _identity: Identity | None = None
    """The last one that was read."""
    _lives: int = 0
    """How often the journal has been open, and stayed open."""
    _state: Changes = field(default_factory=Changes)
    _silence: Changes = field(default_factory=Changes)

    def __post_init__(self) -> None:
        self._epochs = Epochs(self.settings, self.near)

    async def run(self) -> None:
        """Raises AlreadyRunning when another agent has this data directory."""
        try:
            with self.near.recent.listening():
                await self._run()
        finally:
            self.near.lock.close()

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self.watchdog is not None:
                tasks.start_soon(self.watchdog.feed, self.near.world)
            while True:
                reason = await self._live_until_trouble()
                if not reason:
                    continue
                self._state.tell(
                    logging.ERROR, log, f"degraded: nothing is done to the device: {reason}"
                )
                await self._be_degraded(reason)

    async def _live_until_trouble(self) -> str:
        """Why nothing may be done now; empty when a new epoch began."""
        try:
            journal = open_journal(self.settings, self.near)
        except AlreadyRunning:
            raise
        except JournalProblem as problem:
            return self._next_epoch([problem])
        except Exception as error:
            damage = self._damage_behind(error)
            if damage is None:
                raise
            return self._next_epoch([damage])
        life, began = Life(self.settings, journal, self.near), self.near.world.monotonic()
        self.life = life
        troubles: list[BaseException] = []
        with journal:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._say_open, journal.epoch)
                    await life.run()
            except* (JournalProblem, IdentityProblem, EpochOver) as group:
                troubles = flat(group)
            except* Exception as group:
                damage = self._damage_behind(group)
                if damage is None:
                    raise
                troubles.append(damage)
            finally:
                self.life = None
                self._identity = life.identity or self._identity
            if any(isinstance(trouble, NoSpace) for trouble in troubles):
                make_room(journal)
        self._epochs.lived(self.near.world.monotonic() - began)
        return self._next_epoch(troubles)

    def _damage_behind(self, error: Exception) -> Damaged | None:
        """An error in the face of a damaged journal is the journal's; None: it is whole, and the error is ours."""
        try:
            with open_reader(self.settings.home) as reader:
                wrong = what_is_wrong(reader)
        except Damaged as damage:
            wrong = damage.seen
        except JournalProblem:
            wrong = ""
        if not wrong:
            return None
        log.error("the journal is damaged: %s", wrong, exc_info=error)
        return Damaged("go on with the journal", wrong, GOES_ON)

    def _next_epoch(self, troubles: list[BaseException]) -> str:
        """Begin one where that helps. Returns why nothing may be done, empty when it did."""
        said = "; ".join(dict.fromkeys(str(trouble) for trouble in troubles))
        self._rest_s = RETRY_OPEN_S
        over = next((one for one in troubles if isinstance(one, EpochOver)), None)
        damage = [one for one in troubles if isinstance(one, Damaged)]
        if over is None and damage:  # what was seen; what to do about it is done here
            seen = "; ".join(dict.fromkeys(f"{one.tried}: {one.seen}" for one in damage))
            over = EpochOver("salvaged", seen)
        if over is not None:
            said = self._epochs.begin(over)
            self._rest_s = max(RETRY_OPEN_S, self._epochs.rest_s)
        return said

    async def _say_open(self, epoch: str) -> None:
        """At once at the first start; later when it has stayed open, so that one that fails at once is not praised."""
        if self._lives:
            await self.near.world.sleep(RETRY_OPEN_S)
        self._lives += 1
        self._next_beat_at = 0.0  # the next trouble is news
        self._state.tell(logging.INFO, log, f"journal open, epoch {epoch}; agent {__version__}")

    async def _be_degraded(self, reason: str) -> None:
        world = self.near.world
        until = world.monotonic() + self._rest_s
        while True:
            if world.monotonic() >= self._next_beat_at:
                await self._beat_degraded(reason)
            await world.sleep(RETRY_OPEN_S)
            if world.monotonic() >= until:
                return

    def _known_identity(self) -> Identity | None:
        """The one on disk, else the last one that was read there: the disk may be what has gone."""
        with contextlib.suppress(IdentityProblem):
            self._identity = read_identity(self.settings.home) or self._identity
        return self._identity

    async def _beat_degraded(self, reason: str) -> None:
        """One heartbeat without a journal: who we are and why nothing is done."""
        identity = self._known_identity()
        if identity is None or identity.node_token is None:
            return
        for secret in identity.secrets:
            self.near.hide(secret)
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
        tokens = [identity.node_token, *(spare.token for spare in identity.spares)]
        wait_s = await self._send(request, tokens)
        self._next_beat_at = self.near.world.monotonic() + wait_s

    async def _send(self, request: HeartbeatRequest, tokens: Sequence[SecretStr]) -> float:
        """Seconds until the next one. `tokens`: tried in this order, as long as they are refused."""
        world = self.near.world
        try:
            answer = await self.near.cloudly.heartbeat(request, tokens[0])
        except NeighbourProblem as problem:
            if isinstance(problem, Refused) and len(tokens) > 1:
                return await self._send(request, tokens[1:])
            self._misses += 1
            self._silence.tell(logging.WARNING, log, f"degraded, and {problem}")
            if isinstance(problem, Refused):
                return REFUSED_S
            asked_s = problem.retry_after_s if isinstance(problem, Unreachable) else None
            return retry_s(self._misses, world, asked_s=asked_s)
        self._misses = 0
        self._silence.tell(logging.INFO, log, "")
        return max(next_heartbeat_s(answer.heartbeat_every_s, world), self.settings.heartbeat_min_s)


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
    return Journal.open(
        settings.home,
        stamp=near.clock.stamp,
        new_epoch=lambda: new_id(near.world),
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
    formatter: RedactingFormatter | None = None,
) -> Neighbours:
    """Everyone the agent talks to; the transports are where tests put a simulated world.

    `formatter`: the log's, which is told every secret.
    """
    supervisor, formatter = None, formatter or RedactingFormatter()
    if settings.supervisor_address is not None and settings.supervisor_key is not None:
        formatter.hide(settings.supervisor_key.get_secret_value())
        supervisor = HttpSupervisor(
            _client(settings.supervisor_address, supervisor_transport),
            settings.supervisor_address,
            settings.supervisor_key,
        )
    return Neighbours(
        world=world,
        clock=Clock(world),
        cloudly=HttpCloudly(
            _client(settings.cloudly_url, cloudly_transport, ca=settings.cloudly_ca),
            settings.cloudly_url,
            world,
        ),
        supervisor=supervisor,
        host=host or RealHost(settings.data_dir),
        lock=UpdateLock(settings.lock_dir),
        recent=RecentLines(world, formatter),
        points=points,
        hide=formatter.hide,
        redact=formatter.redact,
    )


def _client(
    url: str, transport: httpx.AsyncBaseTransport | None, *, ca: str | None = None
) -> httpx.AsyncClient:
    """A client of one neighbour."""
    return httpx.AsyncClient(
        transport=transport,
        verify=verification(url, ca),
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
