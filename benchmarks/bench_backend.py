"""What a Supervisor's requests cost Cloudly: a real `cloudly serve` on loopback, its CPU read from /proc.

usage: bench_backend.py [DEVICES]     registers so many (default 200), then asks; prints Markdown

The peer is open-balena-api 49, whose figures were measured on a machine of this kind (server notes, 5) and are not
measured again here: a ratio is the peer's CPU for a request divided by ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench_agent import cpu_s, memory_mb
from benchmarks.yard import Row, table, title

CONNECTIONS = 16
REQUESTS = 3_000
PORT = 18_099
PEER_MS = {"state": 12.375, "unchanged": 13.375, "nothing new": 14.104, "changed": 17.594}
"""CPU of node, PostgreSQL and Redis for a request."""
PEER_MB = 866.0


@dataclass(frozen=True)
class Device:
    uuid: str
    key: str
    number: int


class Client:
    """One connection that is kept alive; HTTP by hand, because a client of 500 µs would measure itself."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", PORT)
        return self

    async def ask(
        self, method: str, path: str, key: str, body: bytes = b"", more: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {key}\r\n{more}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        raw = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode().split("\r\n")
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines)
            if name
        }
        length = int(headers.get("content-length", "0"))
        return int(first.split()[1]), headers, await self._reader.readexactly(length)


class Bench:
    def __init__(self, root: Path, devices: int) -> None:
        self._root = root
        self._count = devices
        self.devices: list[Device] = []
        self.tags: dict[str, str] = {}
        environment = {**os.environ, "CLOUDLY_DATA_DIR": str(root), "CLOUDLY_LOG_LEVEL": "WARNING"}
        self._environment = environment
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cloudly", "serve", "--port", str(PORT), "--no-page"],
            env=environment,
        )

    def cloudly(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudly", *words],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def wait_until_it_serves(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT)):
                return
            time.sleep(0.05)
        sys.exit("Cloudly did not begin to serve")

    async def prepare(self) -> None:
        self.wait_until_it_serves()
        token = self.cloudly("token", "create", "--uses", str(self._count))
        client = await Client().connect()
        for number in range(self._count):
            uuid, key = f"{number:032x}", f"{number:032d}"
            body = json.dumps({"uuid": uuid, "api_key": key, "supervisor_version": "19.0.5"})
            status, _headers, answer = await client.ask(
                "POST", "/device/register", token, body.encode()
            )
            assert status == 201, answer
            self.devices.append(Device(uuid, key, json.loads(answer)["id"]))
        digest = "a1" * 32
        self.cloudly(
            "release", "set", "--all", "1.0.0", "--release", "c1",
            "--image", f"main=registry.example/v2/one@sha256:{digest}",
            "--image", f"web=registry.example/v2/two@sha256:{digest}",
        )  # fmt: skip
        for device in self.devices:
            path = "/device/v3/state"
            await client.ask("PATCH", path, device.key, report(device, 0))

    async def run(
        self, ask: Callable[[Client, Device, int], Awaitable[None]]
    ) -> tuple[float, list[float]]:
        """CPU seconds of the server for a request, and how long each took."""
        clients = [await Client().connect() for _ in range(CONNECTIONS)]
        took: list[float] = []
        turn = iter(range(REQUESTS))

        async def work(client: Client) -> None:
            for number in turn:
                device = self.devices[number % len(self.devices)]
                began = time.perf_counter()
                await ask(client, device, number)
                took.append(time.perf_counter() - began)

        before = cpu_s(self.process.pid)
        await asyncio.gather(*(work(client) for client in clients))
        return (cpu_s(self.process.pid) - before) / REQUESTS, took

    async def state(self, client: Client, device: Device, _: int) -> None:
        path = f"/device/v3/{device.uuid}/state"
        status, headers, _body = await client.ask("GET", path, device.key)
        assert status == 200
        self.tags[device.uuid] = headers["etag"]

    async def unchanged(self, client: Client, device: Device, _: int) -> None:
        more = f"If-None-Match: {self.tags[device.uuid]}\r\n"
        path = f"/device/v3/{device.uuid}/state"
        status, _headers, _body = await client.ask("GET", path, device.key, more=more)
        assert status == 304

    async def nothing_new(self, client: Client, device: Device, number: int) -> None:
        body = json.dumps({device.uuid: {"cpu_usage": number % 100, "memory_usage": 900}})
        status, _headers, _body = await client.ask(
            "PATCH", "/device/v3/state", device.key, body.encode()
        )
        assert status == 200

    async def changed(self, client: Client, device: Device, number: int) -> None:
        body = report(device, number)
        status, _headers, _body = await client.ask("PATCH", "/device/v3/state", device.key, body)
        assert status == 200


def report(device: Device, number: int) -> bytes:
    service = {"image": "registry.example/v2/one@sha256:" + "a1" * 32, "status": "Running"}
    release = {"update_status": "done", "services": {"main": service, "web": service}}
    app = {"release_uuid": f"c{number}", "releases": {"c1": release}}
    parts = {"os_version": "balenaOS 6.5.1", "status": "Idle", "cpu_usage": 1, "apps": {"a": app}}
    return json.dumps({device.uuid: parts}).encode()


async def measure(bench: Bench) -> list[Row]:
    await bench.prepare()
    rows = []
    for what, name, most, ask in (
        ("GET state", "state", 10, bench.state),
        ("GET state, 304", "unchanged", 10, bench.unchanged),
        ("PATCH state, nothing new", "nothing new", 25, bench.nothing_new),
        ("PATCH state, changed and durable", "changed", 25, bench.changed),
    ):
        spent, took = await bench.run(ask)
        took.sort()
        rows.append(
            Row(
                f"{what} (p99 {took[len(took) * 99 // 100] * 1000:.0f} ms)",
                f"{spent * 1e6:.0f} µs CPU",
                f"{PEER_MS[name] * 1000:.0f} µs CPU",
                PEER_MS[name] / (spent * 1000),
                least=most,
            )
        )
    rss, _ = memory_mb(bench.process.pid)
    rows.append(Row("memory", f"{rss:.0f} MB", f"{PEER_MB:.0f} MB", PEER_MB / rss, least=5))
    return rows


def main() -> None:
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), devices)
        try:
            rows = asyncio.run(measure(bench))
        finally:
            bench.process.terminate()
            bench.process.wait()
    title("backend")
    table("Cloudly as the backend of Supervisors", "open-balena-api 49, as noted", rows)


if __name__ == "__main__":
    main()
