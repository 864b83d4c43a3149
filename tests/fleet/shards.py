"""The devices in processes of their own, Cloudly in this one, and one simulated time for all.

Rules:
- A worker's clock never goes beyond what it was allowed. It asks Cloudly over a pipe and stands still until the answer
  is there, so for a device an answer takes no time, as in one process.
- Cloudly's clock goes on to its next timer when every worker has come that far. Until then it is the furthest that a
  request has told: two workers are never further apart than one look of Cloudly's recurring jobs (`cloud.LOOK_S`).
- Which worker asks first within that time is the machine's to say: with workers a seed gives the same fates and not the
  same order. One process alone (`--workers 0`) gives the same story.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx

from simulators.fleet.gauge import PAGE_BYTES
from simulators.world import VirtualLoop
from tests.fleet.device import URL, Device, Ground
from tests.fleet.fates import Fates
from tests.fleet.witness import NearFleet, Witness

MOST_S = 1e9


@dataclass(slots=True)
class Worker:
    """One process, as this one sees it."""

    process: BaseProcess
    pipe: Connection[Any, Any]
    rests_until_s: float | None = inf
    """It has nothing to do before; None: it is at work."""
    asks: bool = False
    """It waits for an answer."""


class ConductorLoop(VirtualLoop):
    """Cloudly's: time passes when nobody in any worker has anything to do before."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[Worker] = []
        self.transport: httpx.AsyncBaseTransport | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        """What Cloudly raised while it answered: nobody else would hear of it."""

    def _pass(self, timeout: float | None) -> None:
        if self._failed is not None:
            raise self._failed
        if timeout == 0:
            return
        until_s = self._virtual_s + (MOST_S if timeout is None else timeout)
        asked = self._next(until_s)
        if asked is None:
            super()._pass(timeout)
            return
        worker, (at_s, request) = asked
        self._virtual_s = max(self._virtual_s, min(at_s, until_s))
        task = self.create_task(self._serve(worker, request))
        self._serving.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._failed = self._failed or task.exception()

    def _next(self, until_s: float) -> tuple[Worker, Any] | None:
        """The next request of a worker; None: all have come to that time, or wait for an answer."""
        for worker in self.workers:
            if worker.rests_until_s is not None and worker.rests_until_s <= until_s:
                worker.pipe.send(("go", until_s))
                worker.rests_until_s = None
        while True:
            busy = {
                one.pipe: one for one in self.workers if one.rests_until_s is None and not one.asks
            }
            if not busy:
                return None
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]  # one of those that were asked for
                what, told = worker.pipe.recv()
                if what == "asks":
                    worker.asks = True
                    return worker, told
                worker.rests_until_s = told

    async def _serve(self, worker: Worker, asked: tuple[str, str, Any, bytes]) -> None:
        method, path, headers, content = asked
        assert self.transport is not None
        request = httpx.Request(method, URL + path, headers=headers, content=content)
        answer = await self.transport.handle_async_request(request)
        body = await answer.aread()
        worker.asks = False
        worker.pipe.send((answer.status_code, answer.headers.raw, body))


class WorkerLoop(VirtualLoop):
    """A worker's: as far as it is allowed, and no further."""

    def __init__(self, pipe: Connection[Any, Any], witnesses: Callable[[], object]) -> None:
        super().__init__()
        self._pipe = pipe
        self._witnesses = witnesses
        self._allowed_s = 0.0

    def _pass(self, timeout: float | None) -> None:
        until_s = inf if timeout is None else self._virtual_s + timeout
        while until_s > self._allowed_s:
            self._pipe.send(("rests", until_s))
            self._allowed_s = self._told()
        super()._pass(timeout)

    def _told(self) -> float:
        """How far it may go; meanwhile it says what is asked, and ends when it is told to."""
        while True:
            what, told = self._pipe.recv()
            match what:
                case "go":
                    return float(told)
                case "witnesses":
                    self._pipe.send(self._witnesses())
                case _:
                    os._exit(0)  # what is open here lies in memory and is nobody's any more


class Wire(httpx.AsyncBaseTransport):
    """The line of a worker's devices to Cloudly."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        path = request.url.raw_path.decode()
        asked = request.method, path, request.headers.raw, content
        self._pipe.send(("asks", (asyncio.get_running_loop().time(), asked)))
        status, headers, body = self._pipe.recv()
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


@dataclass(slots=True)
class FarFleet:
    """Shared among workers; `hire` them before anything is open that a process must not inherit."""

    workers: list[Worker] = field(default_factory=list)
    count: int = 0

    @classmethod
    def hire(cls, workers: int, devices: int, root: Path, fates: Fates, every_s: float) -> FarFleet:
        """They wait for the join token."""
        fleet, fork = cls(count=devices), get_context("fork")
        for number in range(workers):
            ours, theirs = fork.Pipe()
            numbers = range(number, devices, workers)
            process = fork.Process(
                target=_work, args=(theirs, numbers, devices, root, fates, every_s), daemon=True
            )
            process.start()
            theirs.close()
            fleet.workers.append(Worker(process, ours))
        return fleet

    def join(self, loop: ConductorLoop, transport: httpx.AsyncBaseTransport, token: str) -> None:
        """From now on they are served, each with this join token for its devices."""
        loop.workers, loop.transport = self.workers, transport
        for worker in self.workers:
            worker.pipe.send(token)

    def start(self, tasks: anyio.abc.TaskGroup, *, within_s: float) -> None:  # noqa: ARG002 - they have no task here
        for worker in self.workers:
            worker.pipe.send(within_s)
            worker.rests_until_s = None

    async def witnesses(self) -> list[Witness]:
        while any(one.rests_until_s is None for one in self.workers):  # noqa: ASYNC110 - all come to one time
            await anyio.sleep(0.001)  # noqa: TID251 - simulated
        found: list[Witness] = []
        for worker in self.workers:
            worker.pipe.send(("witnesses", None))
            found += worker.pipe.recv()
        return sorted(found, key=lambda one: one.uuid)

    @property
    def memory_bytes(self) -> int:
        """What the workers hold."""
        return sum(memory_bytes_of(one.process.pid) for one in self.workers)

    def dismiss(self) -> None:
        for worker in self.workers:
            with suppress(OSError):
                worker.pipe.send(("end", None))
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()


def memory_bytes_of(process: int | None) -> int:
    """Resident, what is shared with others not counted."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    return (int(pages[1]) - int(pages[2])) * PAGE_BYTES


def _work(  # noqa: PLR0917 - a process is told all at once
    pipe: Connection[Any, Any],
    numbers: Sequence[int],
    count: int,
    root: Path,
    fates: Fates,
    every_s: float,
) -> None:
    token = pipe.recv()
    within_s = pipe.recv()
    ground = Ground(root, Wire(pipe), token, every_s, fates)
    fleet = NearFleet([])

    async def lives() -> None:
        fleet.devices += [Device(number, ground) for number in numbers]
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)
        async with anyio.create_task_group() as tasks:
            for device in fleet.devices:
                tasks.start_soon(device.live, within_s * device.number / count)

    anyio.run(lives, backend_options={"loop_factory": lambda: WorkerLoop(pipe, fleet.now)})
