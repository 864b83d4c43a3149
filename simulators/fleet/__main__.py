"""Many simulated Supervisors over real sockets: `python -m simulators.fleet --help`.

Rules:
- The join token comes in a file, never on the command line; no key goes into the log.
- A line every `--tell-every-s`: how far the fleet is, what was answered, and what a device costs.
"""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
import sys
import tempfile
from pathlib import Path

import anyio

from interfaces.world import RealWorld
from simulators.fleet.fleet import Fleet, FleetSetup, backend_setup
from simulators.fleet.gauge import Cost
from simulators.fleet.pool import SharedPool, log_pool, polling_pool
from simulators.supervisor.backend import CrashedAtBootError

log = logging.getLogger("simulators.fleet")


def main() -> None:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        anyio.run(_run, options)
    except* CrashedAtBootError as crashed:
        why = crashed.exceptions[0]
        sys.exit(f"a Supervisor crashes at boot: {why}; or --plain-logs, for tests")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulators.fleet",
        description="Many balena Supervisors in one process, simulated from recordings.",
    )
    add = parser.add_argument
    add("--devices", type=int, default=100, help="how many")
    add("--cloudly-url", required=True, help="their backend")
    add("--join-token-file", type=Path, required=True, help="a token with a use for each device")
    add("--root-ca", type=Path, help="the certificate that signs the backend's, PEM")
    add("--logs-url", help="where log streams go, https; to the backend without")
    add("--plain-logs", action="store_true", help="let log streams go over http, for tests")
    add("--poll-interval-s", type=float, default=60.0, help="until a target says otherwise")
    add("--chatter-s", type=float, default=0.0, help="how often containers print; 0: only at start")
    add("--speed", type=float, default=1.0, help="how many times faster than recorded ones")
    add("--ramp-s", type=float, default=10.0, help="over how long they start")
    add("--connections", type=int, default=100, help="at most so many at a time for polls")
    add("--log-connections", type=int, default=500, help="at most so many log streams at a time")
    add("--for-s", type=float, help="end after so long; without: at a signal")
    add("--tell-every-s", type=float, default=10.0, help="how often it tells how far it is")
    return parser


async def _run(options: argparse.Namespace) -> None:
    world = RealWorld()
    trusted = ssl.create_default_context(cafile=options.root_ca) if options.root_ca else None
    pool = polling_pool(options.connections, trusted)
    logs = log_pool(options.log_connections, trusted)
    try:
        with tempfile.TemporaryDirectory(prefix="simulated-fleet-") as directory:
            fleet = Fleet(_setup(options, Path(directory)), world, pool, logs)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
                tasks.start_soon(_tell, fleet, pool, logs, options.tell_every_s)
                tasks.start_soon(fleet.run)
                if options.for_s is not None:
                    await world.sleep(options.for_s)
                    tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await pool.close()
            await logs.close()


def _setup(options: argparse.Namespace, directory: Path) -> FleetSetup:
    backend = backend_setup(
        options.cloudly_url,
        options.join_token_file.read_text(encoding="utf-8").strip(),
        logs_url=options.logs_url,
        plain_logs=options.plain_logs,
    )
    return FleetSetup(
        devices=options.devices,
        backend=backend,
        directory=directory,
        poll_interval_s=options.poll_interval_s,
        chatter_s=options.chatter_s,
        speed=options.speed,
        ramp_s=options.ramp_s,
    )


async def _tell(fleet: Fleet, pool: SharedPool, logs: SharedPool, every_s: float) -> None:
    began, world = Cost.now(), fleet.world
    before, asked_before = began, 0
    while True:
        await world.sleep(every_s)
        now, asked = Cost.now(), pool.answers.total() + logs.answers.total()
        tally = fleet.tally()
        each_kb = (now.memory_bytes - began.memory_bytes) / 1024 / max(tally.started, 1)
        log.info(
            "devices %d registered %d applying %d applied %d | %.1f requests/s | answers %s logs %s"
            " | %.0f KB and %.3f %% CPU each, %.0f MB in all",
            tally.started,
            tally.registered,
            tally.applying,
            tally.applied,
            (asked - asked_before) / every_s,
            dict(sorted(pool.answers.items())),
            dict(sorted(logs.answers.items())),
            each_kb,
            100 * (now.cpu_s - before.cpu_s) / every_s / max(tally.started, 1),
            now.memory_bytes / 1024 / 1024,
        )
        before, asked_before = now, asked


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


if __name__ == "__main__":
    main()
