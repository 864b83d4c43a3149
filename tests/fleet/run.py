"""One fleet from its first start to the verdict, under virtual time, in a directory that is gone afterwards."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from interfaces.world import RealWorld
from simulators.fleet.gauge import Cost
from tests.fleet.cloud import Cloud
from tests.fleet.device import Device, Ground, hurry_less
from tests.fleet.scenes import EVERY_S, Asked, Look, Played, Story, fates
from tests.fleet.shards import ConductorLoop, FarFleet
from tests.fleet.witness import Fleet, NearFleet

REAL = RealWorld()


@dataclass
class Run:
    asked: Asked
    played: list[Played]
    hours: float
    """Simulated."""
    wall_s: float
    cpu_s: float
    memory_mb: float
    """Of all processes, at the end."""
    disk_mb: float
    """The journals of all devices and Cloudly's database."""
    wakes: int
    """How often an agent was started."""


def run(
    asked: Asked,
    say: Callable[[str], None] = lambda _: None,
    look: Look = lambda _story, _scene, _witnesses: None,
    *,
    workers: int = 0,
) -> Run:
    """`workers`: processes that hold the devices; 0: this one does."""
    room = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a directory of our own in it
    root = Path(tempfile.mkdtemp(prefix="fleet-", dir=room))
    logging.disable(logging.CRITICAL)  # ten thousand agents share the logger of one process
    try:
        with pytest.MonkeyPatch.context() as patch:
            hurry_less(patch)
            if importlib.util.find_spec("sniffio") is None:  # httpx looks for it at each request
                patch.setitem(sys.modules, "sniffio", None)
            return _run(asked, root, say, look, workers)
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(root)


def _run(asked: Asked, root: Path, say: Callable[[str], None], look: Look, workers: int) -> Run:
    began_s, cost = REAL.monotonic(), Cost.now()
    homes = root / "devices"
    far = FarFleet.hire(workers, asked.devices, homes, fates(asked), EVERY_S)

    def told(what: str) -> None:
        passed_s = REAL.monotonic() - began_s
        say(f"{anyio.current_time() / 3600:6.2f} h {passed_s:7.1f} s  {what}")

    async def story() -> tuple[Story, float]:
        cloud = Cloud(root, seed=asked.seed, every_s=EVERY_S)
        token = cloud.join_token(asked.devices)
        fleet: Fleet = far
        loop = asyncio.get_running_loop()
        if workers and isinstance(loop, ConductorLoop):
            far.join(loop, cloud.transport, token)
        else:
            ground = Ground(homes, cloud.transport, token, EVERY_S, fates(asked))
            fleet = NearFleet([Device(number, ground) for number in range(asked.devices)])
        try:
            played = Story(asked, cloud, fleet, told, look)
            with _tuned():
                await played.run()
            return played, anyio.current_time() / 3600
        finally:
            cloud.store.close()

    try:
        played, hours = anyio.run(story, backend_options={"loop_factory": ConductorLoop})
        memory_mb = (Cost.now().memory_bytes + far.memory_bytes) / 1e6
    finally:
        far.dismiss()
    return Run(
        asked,
        played.played,
        hours,
        REAL.monotonic() - began_s,
        Cost.now().cpu_s - cost.cpu_s + _cpu_of_workers_s(),
        memory_mb,
        sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) / 1e6,
        played.wakes,
    )


def _cpu_of_workers_s() -> float:
    """Of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _tuned() -> Iterator[None]:
    """As `cloudly serve` does: what is there stays, and is not looked at again and again."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
