"""A storm: days of loss, partitions, crashes, power cuts and wrong clocks around one device; then it clears, and all is
looked at.

Everything in it comes from one seed. What is wrong afterwards is told in words; what fired is counted, because a storm
in which nothing happened proves nothing.
"""

from __future__ import annotations

import json
import random  # noqa: TID251 - chance from a seed is what a storm is
import shutil
from collections import Counter
from dataclasses import dataclass, field

import anyio
import httpx

from baserunner.app_update.machine import CHART
from baserunner.app_update.steps import RETELL_POLLS
from interfaces.desired import UpdatePolicy
from journal.facts import Fact
from journal.reader import open_reader
from journal.verify import verify
from simulators.weather import Fault, Forecast, Weather, WeatherTransport
from simulators.weather.host import JUMPS
from simulators.world import FACTORY_CLOCK, MORNING
from tests.world.kit import Place

DAY_S = 86_400.0
HOUR_S = 3600.0
POLICY = UpdatePolicy(
    download_deadline_s=1800, apply_deadline_s=300, health_soak_s=20, health_deadline_s=900
)
BEHAVIOURS = ("well", "well", "well", "crash-after-start", "never-starts", "pull-fails")
ROUGH = (Fault.LATENCY, Fault.REQUEST_LOST, Fault.RESPONSE_LOST, Fault.RESET_AFTER, Fault.DRIPPING)
"""What a local line may suffer; the Supervisor's own line to Cloudly, whose client is not ours, suffers less."""
DULL = (Fault.REQUEST_LOST, Fault.RESPONSE_LOST, Fault.RESET_BEFORE, Fault.SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Tell:
    """The Supervisor was told: by which run of the agent, about which attempt, after how many facts of it."""

    at_s: float
    run: int
    stream: str
    facts: int
    what: str


@dataclass
class Storm:
    """One device in one storm. `loss`: the chance of a fault per request to Cloudly."""

    place: Place
    seed: int | str
    days: float
    loss: float = 0.2
    crashes_a_day: float = 3.0
    releases_a_day: float = 1.0
    tells: list[Tell] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    ends: dict[str, str] = field(default_factory=dict)
    """The final state of each deployment, as Cloudly first had it."""
    changed: list[str] = field(default_factory=list)
    """Outcomes that were not the same when they were looked at again."""

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}/storm")  # noqa: S311 - a simulation's
        windows = tuple(
            (begin, begin + self.chance.uniform(0.2, 5) * HOUR_S)
            for day in range(int(self.days))
            for begin in [day * DAY_S + self.chance.uniform(1, 20) * HOUR_S]
        )
        place, evenly = self.place, Forecast.evenly(self.loss, partitions=windows)
        self.weathers = {
            "cloudly": Weather(f"{self.seed}/cloudly", evenly),
            "backend": Weather(f"{self.seed}/backend", _only(DULL, self.loss, windows)),
            "supervisor": Weather(f"{self.seed}/supervisor", _only(ROUGH, 0.05, ())),
        }
        place.to_supervisor.inner = _Watched(place.to_supervisor.inner, self)
        for name, line in (
            ("cloudly", place.to_cloudly),
            ("backend", place.to_backend),
            ("supervisor", place.to_supervisor),
        ):
            line.inner = WeatherTransport(line.inner, self.weathers[name], place.world)

    async def rage(self) -> None:
        """Through all of its days, with an operator who sets the next release when the last one has ended."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._jump)
            tasks.start_soon(self._crash)
            tasks.start_soon(self._operate)
            await self.place.world.sleep(self.days * DAY_S)
            tasks.cancel_scope.cancel()
        await self.clear_up()

    async def _jump(self) -> None:
        """A kernel's clock does not go before 1970; what jumps too far is set right, as by NTP."""
        world = self.place.world
        while True:
            await world.sleep(self.chance.uniform(2, 12) * HOUR_S)
            self.fired["clock-jump"] += 1
            world.jump(self.chance.choice(JUMPS))
            if not FACTORY_CLOCK < world.now() < MORNING.replace(year=2100):
                world.set_clock(MORNING)

    async def _crash(self) -> None:
        place, every_s = self.place, DAY_S / self.crashes_a_day
        while True:
            await place.world.sleep(self.chance.uniform(0, 2 * every_s))
            with anyio.CancelScope(shield=True):
                await self.crash()

    async def crash(self) -> None:
        """Now: of the agent alone, or of its host."""
        if self.chance.random() < 0.3:
            self.fired["power-cut"] += 1
            await self.place.reboot_host(off_s=self.chance.uniform(1, 90))
            return
        self.fired["crash"] += 1
        before = self.place.data
        await self.place.cut_power_to_agent()
        shutil.rmtree(before)
        await self.place.world.sleep(self.chance.uniform(0.1, 90))
        self.place.start_agent()

    async def _operate(self) -> None:
        number = 0
        while True:
            self._look_at_outcomes()
            # Where a rollback has failed too, the next release is what the node needs an operator for.
            over = all(state in CHART.final for state in self._deployments().values())
            if over or self.place.node().state == "needs-operator":
                number += 1
                behaviour = self.chance.choice(BEHAVIOURS) if number > 1 else "well"
                self.place.set_release(f"1.{number}.0", policy=POLICY, behaviour=behaviour)
                self.fired[f"release {behaviour}"] += 1
            await self.place.world.sleep(
                DAY_S / self.releases_a_day * self.chance.uniform(0.5, 1.5)
            )

    async def clear_up(self, *, step_s: float = HOUR_S / 4) -> None:
        """Fine weather, and time to bring everything to its end, up to twelve hours in steps of a quarter."""
        for weather in self.weathers.values():
            weather.clear_up()
        for _ in range(48):
            await self.place.world.sleep(step_s)
            if not self._unfinished():
                break
        await self.place.world.sleep(4 * step_s)
        self._look_at_outcomes()
        for name, weather in self.weathers.items():
            self.fired += Counter({f"{name} {fault}": n for fault, n in weather.fired.items()})

    # -- what came of it -------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is not as promised, in words; empty: all is well."""
        place = self.place
        found = [f"an outcome has changed: {what}" for what in self.changed]
        found += [f"never ended: {what}" for what in self._unfinished()]
        if place.core_at_cloudly() != place.core_on_device():
            found.append(
                f"Cloudly has {len(place.core_at_cloudly())} core facts, "
                f"the device {len(place.core_on_device())}, or other ones"
            )
        gaps = place.store.read_now(lambda db: db.execute("SELECT * FROM lane_gap").fetchall())
        found += [f"a gap: {tuple(gap)}" for gap in gaps]
        with open_reader(place.home) as reader:
            found += [f"journal: {problem}" for problem in verify(reader).problems]
        found += [f"told again too soon: {pair}" for pair in self._hasty_tells()]
        if place.node().state not in {"online", "needs-operator"}:
            found.append(f"the node is {place.node().state}: {place.node().state_detail}")
        return [f"seed {self.seed}: {what}" for what in found]

    def facts(self) -> list[Fact]:
        return self.place.facts()

    def _hasty_tells(self) -> list[tuple[Tell, Tell]]:
        """Told twice for one fact by one run, without having given it the time to act."""
        least_s = RETELL_POLLS * self.place.supervisor_poll_s
        return [
            (one, other)
            for one, other in zip(self.tells, self.tells[1:], strict=False)
            if (one.run, one.stream, one.facts) == (other.run, other.stream, other.facts)
            and other.at_s - one.at_s < least_s - 1
        ]

    def _unfinished(self) -> list[str]:
        states = self._deployments()
        with open_reader(self.place.home) as reader:
            streams = {
                info.name: info.state
                for info in reader.streams("app-update")
                if not info.ended and info.state != "rollback-needed"
            }
        open_ones = {one: state for one, state in states.items() if state not in CHART.final}
        waits_for_operator = self.place.node().state == "needs-operator"
        return [f"{name} is {state}" for name, state in streams.items()] + [
            f"deployment {one} is {state}"
            for one, state in open_ones.items()
            if not waits_for_operator
        ]

    def _deployments(self) -> dict[str, str]:
        """Deployment to state, as Cloudly has it, of what the operator ordered."""
        rows = self.place.store.read_now(
            lambda db: db.execute(
                "SELECT deployment, state FROM deployment WHERE rollback_of IS NULL ORDER BY rowid"
            ).fetchall()
        )
        return {str(row[0]): str(row[1]) for row in rows}

    def _look_at_outcomes(self) -> None:
        for deployment, state in self._deployments().items():
            if state in CHART.final and self.ends.setdefault(deployment, state) != state:
                self.changed.append(f"{deployment}: {self.ends[deployment]}, now {state}")


class _Watched(httpx.AsyncBaseTransport):
    """Where the Supervisor's door is: what comes through has been heard."""

    def __init__(self, inner: httpx.AsyncBaseTransport, storm: Storm) -> None:
        self._inner = inner
        self._storm = storm

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        if request.url.path == "/v1/update":
            self._note("apply" if json.loads(request.content).get("cancel") else "download")
        return answer

    def _note(self, what: str) -> None:
        place = self._storm.place
        with open_reader(place.home) as reader:
            for info in reader.open_streams():
                if info.name.startswith("app-update/"):
                    facts = sum(not fact.is_note for fact in reader.facts(stream=info.name))
                    at_s = anyio.current_time()
                    self._storm.tells.append(Tell(at_s, place.starts, info.name, facts, what))


def _only(
    faults: tuple[Fault, ...], total: float, windows: tuple[tuple[float, float], ...]
) -> Forecast:
    return Forecast(chances={fault: total / len(faults) for fault in faults}, partitions=windows)
