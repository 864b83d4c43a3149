"""A simulated Supervisor over real sockets: `python -m simulators.supervisor --help`.

Rules:
- Secrets come in files or the environment, never on the command line, and go into no log; there is no access log,
  because a caller may have put its key into the URL.
- Over http the real one does not start without a log address of https; `--plain-logs` is ours.
- While the simulated host is down its port is closed. The control port stays open.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import ssl
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import uvicorn
from pydantic import SecretStr
from starlette.types import ASGIApp

from interfaces.world import RealWorld
from simulators.supervisor.backend import BackendSetup, BackendTargets, CrashedAtBootError
from simulators.supervisor.control import control_app
from simulators.supervisor.locks import directory_each, one_directory
from simulators.supervisor.registry import TokenRegistry
from simulators.supervisor.setup import Setup
from simulators.supervisor.sources import TargetSource
from simulators.supervisor.supervisor import Supervisor

API_KEY_VARIABLE = "SIMULATED_SUPERVISOR_API_KEY"
LOOPBACK = "127.0.0.1"
LOOK_EVERY_S = 0.02

log = logging.getLogger("simulators.supervisor")


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to us."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main() -> None:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    anyio.run(_serve, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulators.supervisor",
        description="A balena Supervisor 19.0.5, simulated from its recordings.",
    )
    add = parser.add_argument
    add("--port", type=int, default=48484, help="of the local API")
    add("--control-port", type=int, help="of the control API; none without")
    add("--lock-dir", type=Path, required=True, help="where the agent's container has /tmp/balena")
    add("--lock-dir-per-service", action="store_true", help="<lock-dir>/<app id>/<service name>")
    add("--state-dir", type=Path, help="where it keeps what survives its restart; nowhere without")
    add("--api-key-file", type=Path, help=f"the key of the local API; or ${API_KEY_VARIABLE}")
    add("--cloudly-url", help="its backend; unmanaged without")
    add("--join-token-file", type=Path, help="the provisioning key")
    add("--fleet", type=int, default=1001, help="the application id to register for")
    add("--logs-url", help="where the log stream goes, https; to the backend without")
    add("--plain-logs", action="store_true", help="let the log stream go over http, for tests")
    add("--root-ca", type=Path, help="the certificate that signs the backend's, PEM")
    add("--initial-name", help="what the device calls itself when it joins")
    add("--poll-interval-s", type=float, default=60.0, help="until a target says otherwise")
    add("--registry", choices=("direct", "token"), default="direct", help="whom the engine asks")
    add("--token-realm", help="of --registry token; <cloudly-url>/auth/v1/token without")
    add("--registry-url", help="where the registry itself can be reached; nowhere without")
    add("--chatter-s", type=float, default=0.0, help="how often containers print; 0: only at start")
    add("--uuid", help="the device UUID, 32 or 62 hex characters; drawn without")
    add("--speed", type=float, default=1.0, help="how many times faster than the recorded one")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    world = RealWorld()
    supervisor = Supervisor(world, _setup(options), _source(options, world))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
        await tasks.start(supervisor.run)
        if options.control_port is not None:
            tasks.start_soon(_listen, control_app(supervisor), options.control_port)
        tasks.start_soon(_listen_while_alive, supervisor, options.port)
        log.info("device %s listens on port %d", supervisor.kept.identity.uuid, options.port)


def _setup(options: argparse.Namespace) -> Setup:
    layout = directory_each if options.lock_dir_per_service else one_directory
    for directory in (options.lock_dir, options.state_dir):
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
    return Setup(
        lock_directory=layout(options.lock_dir),
        uuid=options.uuid,
        api_key=_api_key(options),
        state_directory=options.state_dir,
        speed=options.speed,
        api_endpoint=options.cloudly_url or "",
        registry=_registry(options),
        poll_interval_s=options.poll_interval_s,
        moving_metrics=True,
        chatter_s=options.chatter_s,
    )


def _registry(options: argparse.Namespace) -> TokenRegistry | None:
    if options.registry == "direct":
        return None
    realm = options.token_realm or f"{options.cloudly_url or ''}/auth/v1/token"
    if not realm.startswith("http"):
        sys.exit("--registry token needs --token-realm, or --cloudly-url to derive it from")
    return TokenRegistry(
        realm, registry_url=options.registry_url, transport=_transport(options.root_ca)
    )


def _transport(root_ca: Path | None) -> httpx.AsyncHTTPTransport | None:
    if root_ca is None:
        return None
    trusted = ssl.create_default_context(cafile=root_ca)
    return httpx.AsyncHTTPTransport(verify=trusted)


def _api_key(options: argparse.Namespace) -> str | None:
    if options.api_key_file is not None:
        key: str = options.api_key_file.read_text(encoding="utf-8").strip()
        return key
    return os.environ.get(API_KEY_VARIABLE)


def _source(options: argparse.Namespace, world: RealWorld) -> TargetSource | None:
    if options.cloudly_url is None:
        return None
    if options.join_token_file is None:
        sys.exit("--cloudly-url needs --join-token-file, for example /run/secrets/join-token")
    setup = BackendSetup(
        url=options.cloudly_url,
        join_token=SecretStr(options.join_token_file.read_text(encoding="utf-8").strip()),
        fleet=options.fleet,
        logs_url=options.logs_url,
        initial_name=options.initial_name,
        plain_logs=options.plain_logs,
    )
    root_ca = options.root_ca
    try:
        return BackendTargets(
            setup, world, transport=_transport(root_ca), logs_transport=_transport(root_ca)
        )
    except CrashedAtBootError as crashed:
        sys.exit(f"the Supervisor crashes at boot: {crashed}; or --plain-logs, for tests")


async def _listen_while_alive(supervisor: Supervisor, port: int) -> None:
    """The socket is open while the host is up, and only then."""
    while True:
        async with anyio.create_task_group() as tasks:
            server = _server(supervisor.app, port)
            tasks.start_soon(server.serve)
            while supervisor.alive:
                await supervisor.world.sleep(LOOK_EVERY_S)
            server.should_exit = server.force_exit = True
        while not supervisor.alive:
            await supervisor.world.sleep(LOOK_EVERY_S)


async def _listen(app: ASGIApp, port: int) -> None:
    await _server(app, port).serve()


def _server(app: ASGIApp, port: int) -> QuietServer:
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return QuietServer(config)


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("stops on %s", signal.Signals(number).name)
            scope.cancel()
            return


if __name__ == "__main__":
    main()
