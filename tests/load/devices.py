"""Many devices in one process: a real agent and a simulated Supervisor each, over real sockets to one Cloudly.

usage: devices.py DIRECTORY FIRST COUNT CLOUDLY_URL     the join token is in $LOAD_JOIN_TOKEN

Writes DIRECTORY/result-FIRST.json when it is told to end (SIGTERM): where each device's journal ends, and the last
report of each Supervisor that was taken.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretStr

from baserunner.agent import Agent, neighbours
from baserunner.settings import Settings
from interfaces.world import RealWorld
from journal.facts import Lane
from journal.reader import open_reader
from simulators.supervisor import (
    BackendSetup,
    BackendTargets,
    Setup,
    Supervisor,
    one_directory,
)

JOINED_WITHIN_S = 10.0
"""All devices of a process are switched on within so many seconds."""
POLL_S = 15.0


class Device:
    def __init__(self, root: Path, number: int, url: str, token: str) -> None:
        self.uuid = f"{number:032x}"
        self.home = root / self.uuid
        (self.home / "locks").mkdir(parents=True)
        world, key = RealWorld(), f"{number:032d}"
        setup = BackendSetup(url, SecretStr(token), plain_logs=True)
        self.supervisor = Supervisor(
            world,
            Setup(
                lock_directory=one_directory(self.home / "locks"),
                uuid=self.uuid,
                api_key=key,
                poll_interval_s=POLL_S,
                moving_metrics=True,
            ),
            BackendTargets(setup, world),
        )
        self.settings = Settings(
            cloudly_url=url,
            data_dir=self.home,
            lock_dir=self.home / "locks",
            join_token=SecretStr(token),
            supervisor_address="http://supervisor",
            supervisor_key=SecretStr(key),
            device_uuid=self.uuid,
            runtime="baseos",
            heartbeat_min_s=1.0,
            supervisor_poll_s=2.0,
            log_level="WARNING",
        )
        self._near = neighbours(
            self.settings, world, supervisor_transport=self.supervisor.transport()
        )

    async def live(self, after_s: float) -> None:
        await anyio.sleep(after_s)
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.supervisor.run)
            await Agent(self.settings, self._near).run()

    def end(self) -> dict[str, Any]:
        with open_reader(self.settings.home) as reader:
            heads = {lane.value: reader.head(lane).seq for lane in Lane}
            epoch = reader.epoch
        return {"epoch": epoch, "heads": heads, "reported": self.supervisor.kept.reported}


async def live_all(directory: Path, numbers: range, url: str, token: str) -> list[Device]:
    devices = [Device(directory, number, url, token) for number in numbers]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_told, tasks.cancel_scope)
        for place, device in enumerate(devices):
            tasks.start_soon(device.live, place * JOINED_WITHIN_S / len(devices))
    return devices


async def _until_told(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def main() -> None:
    logging.disable(logging.CRITICAL)
    directory, first, count, url = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
    )
    token = os.environ.pop("LOAD_JOIN_TOKEN")
    devices = anyio.run(live_all, directory, range(first, first + count), url, token)
    result = {device.uuid: device.end() for device in devices}
    (directory / f"result-{first}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
