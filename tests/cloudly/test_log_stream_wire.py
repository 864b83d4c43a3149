"""The log stream over real sockets, sent as a Supervisor sends it: recorded streams, held senders, kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from cloudly.http.live import Closing
from cloudly.serve import Server, _config
from cloudly.store.log_chunks import Mark
from cloudly.store.log_file import FILE
from interfaces.world import RealWorld
from tests.cloudly.given import UUID, Plane, bearer
from tests.cloudly.streaming import KEY, Packer, Socket, kept, ndjson, said, texts
from tests.cloudly.test_serving import Served

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RECORDINGS = Path(__file__).parents[1] / "recordings" / "backend"
WITHIN_S = 20


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {}


@asynccontextmanager
async def serving(directory: Path, **options: Any) -> AsyncIterator[tuple[Plane, int]]:
    """Cloudly behind uvicorn, with the settings of `cloudly serve`; yields it and its port."""
    plane = Plane.begin(directory, world=RealWorld(), port=0, **options)  # type: ignore[arg-type]
    listening = socket.socket()
    listening.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024
    )  # a window that is soon full
    listening.bind(("127.0.0.1", 0))
    server = Server(_config(plane.app, plane.settings, None), Closing(), None)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listening])
    running = asyncio.create_task(server.main_loop())
    try:
        yield plane, listening.getsockname()[1]
    finally:
        plane.closing.now = True
        server.should_exit = True
        await running
        await server.shutdown(sockets=[listening])
        plane.end()


async def registered(plane: Plane) -> None:
    body = {"uuid": UUID, "api_key": KEY}
    answer = await plane.client.post(
        "/device/register", json=body, headers=bearer(plane.join_token())
    )
    assert answer.status_code == 201


async def until(true: Any) -> None:
    with anyio.fail_after(WITHIN_S):
        while not true():
            await RealWorld().sleep(0.02)


def recorded_streams() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every log stream of the recordings, in order."""
    for file in sorted(RECORDINGS.glob("*.json")):
        entries = json.loads(file.read_text())
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and "log_lines" in entry:
                yield f"{file.name} {entry['seq']}", entry["log_lines"]


async def test_every_recorded_stream_is_kept_line_by_line_and_answered_at_its_end(
    directory: Path,
) -> None:
    streams = list(recorded_streams())
    expected = [line for _, lines in streams for line in lines]

    async with serving(directory, logs_lines_per_s=10_000) as (plane, port):
        await registered(plane)
        for _, lines in streams:
            stream = await Socket.open(port)
            for line in lines:
                stream.send(line)
            stream.end()
            assert (await stream.answer()).startswith(b"HTTP/1.1 201 Created\r\n")
            await stream.close()

    found = kept(directory)
    assert len(streams) >= 10
    assert [line.device_at_ms for line in found] == [line["timestamp"] for line in expected]
    assert [line.service for line in found] == [line.get("serviceId") for line in expected]
    for one, was in zip(found, expected, strict=True):
        assert bool(one.marks & Mark.SYSTEM) is was.get("isSystem", False)
        assert bool(one.marks & Mark.STDERR) is was.get("isStdErr", False)
        hidden = "API_KEY=" in was["message"]
        assert one.text == was["message"] or (hidden and one.text.endswith("=[redacted]"))
    assert sum("[redacted]" in line.text for line in found) >= 1


async def test_not_a_byte_is_answered_while_it_is_open_before_and_after_registration(
    directory: Path,
) -> None:
    async with serving(directory) as (plane, port):
        stream = await Socket.open(port)
        stream.send(said("Supervisor starting", None))
        silent_before = await stream.is_silent(1)
        await registered(plane)
        await until(lambda: texts(directory) == ["Supervisor starting"])
        stream.send(said("svc v1 tick 1"))
        await until(lambda: len(texts(directory)) == 2)
        silent_after = await stream.is_silent(1)
        stream.end()
        answer = await stream.answer()
        await stream.close()

    assert silent_before
    assert silent_after
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"retry-after" not in answer.lower()


async def test_a_connection_that_is_cut_keeps_what_came(directory: Path) -> None:
    async with serving(directory) as (plane, port):
        await registered(plane)
        stream = await Socket.open(port)
        stream.send(said("whole"))
        packed = stream.packer.pack(ndjson([said("cut within a chunk")]))
        stream.writer.write(f"{len(packed):x}\r\n".encode() + packed[: len(packed) // 2])
        await stream.writer.drain()
        await until(lambda: texts(directory)[:1] == ["whole"])
        stream.writer.transport.abort()
        await until(lambda: plane.app.state.logs.waiting_bytes == 0)
        again = await Socket.open(port)
        again.send(said("the next one"))
        again.end()
        await again.answer()
        await again.close()

    found = texts(directory)
    assert found[0] == "whole"
    assert found[-1] == "the next one"


async def test_a_store_that_is_behind_blocks_the_senders_socket_and_memory_stays_flat(
    directory: Path,
) -> None:
    world, size = RealWorld(), 8 * 1024 * 1024
    packer = Packer()
    lines = ndjson(said(world.random_bytes(150).hex()) for _ in range(size // 370))

    async with serving(directory, logs_lines_per_s=10_000) as (plane, port):
        await registered(plane)
        first = await Socket.open(port)
        first.send(said("makes the file"))
        first.end()
        await first.answer()
        await first.close()
        plane.app.state.logs.of_one_node = 256 * 1024
        other = sqlite3.connect(directory / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        stream = await Socket.open(port)
        stream.packer = packer
        stream.writer.transport.set_write_buffer_limits(high=1)
        sent = 0
        before_mib = rss_mib()
        own = stream.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        with anyio.move_on_after(4) as blocked:
            for at in range(0, len(lines), 4096):
                stream.chunk(packer.pack(lines[at : at + 4096]))
                await stream.writer.drain()
                sent = at
        grown_mib = rss_mib() - before_mib
        waiting = plane.app.state.logs.waiting_bytes
        silent = await stream.is_silent(0.1)
        other.execute("COMMIT")
        other.close()
        with anyio.fail_after(60):
            for at in range(sent + 4096, len(lines), 4096):
                stream.chunk(packer.pack(lines[at : at + 4096]))
                await stream.writer.drain()
        stream.writer.transport.abort()

    assert blocked.cancelled_caught
    assert sent < size * 0.9
    assert waiting < 400_000
    assert grown_mib < 24  # eight were sent, and the sender lives in this process too
    assert silent


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.alone
async def test_a_bomb_takes_no_memory_and_holds_nobody_up(directory: Path) -> None:
    packer = Packer()
    piece = packer.pack(bytes(64 * 2**20))

    async with serving(directory) as (plane, port):
        await registered(plane)
        stream = await Socket.open(port)
        before_mib = rss_mib()
        stream.chunk(piece)
        with anyio.move_on_after(5):
            for _ in range(4):
                stream.chunk(packer.pack(bytes(64 * 2**20)))
                await stream.writer.drain()
        grown_mib = rss_mib() - before_mib
        begun = RealWorld().monotonic()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            health = await client.get("/healthz")
        answered_s = RealWorld().monotonic() - begun
        stream.writer.transport.abort()

    assert grown_mib < 80  # 64 of them are the sender's
    assert health.status_code == 200
    assert answered_s < 1


def test_sigterm_ends_open_streams_at_once_and_what_came_is_there_afterwards(
    directory: Path,
) -> None:
    served, port = served_with_a_device(directory)
    world = RealWorld()

    async def story() -> tuple[bytes, float]:
        stream = await Socket.open(port)
        stream.send(said("before the end"))
        await stream.writer.drain()
        await world.sleep(0.3)
        begun = world.monotonic()
        served.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(WITHIN_S):
            answer = await stream.answer()
        await stream.close()
        return answer, world.monotonic() - begun

    answer, lasted_s = asyncio.run(story())
    code = served.end(None)
    printed = served.cli("node", "logs", UUID)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert lasted_s < 3
    assert code == 0
    assert "before the end" in printed


def test_what_was_written_survives_kill_9(directory: Path) -> None:
    served, port = served_with_a_device(directory)

    async def story() -> None:
        stream = await Socket.open(port)
        for n in range(50):
            stream.send(said(f"line {n}"))
        await stream.writer.drain()
        await until(lambda: len(texts(directory)) == 50)
        served.end(signal.SIGKILL)
        await stream.close()

    asyncio.run(story())

    assert texts(directory) == [f"line {n}" for n in range(50)]


def served_with_a_device(directory: Path) -> tuple[Served, int]:
    """A real process, and its port."""
    served = Served(directory)
    body, token = {"uuid": UUID, "api_key": KEY}, served.cli("token", "create")
    answer = served.client.post("/device/register", json=body, headers=bearer(token))
    assert answer.status_code == 201
    port = served.client.base_url.port
    assert port is not None
    return served, port
