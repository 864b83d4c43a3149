"""The log stream over real sockets: lines arrive while it is open, and an answer in its middle is noticed."""

from __future__ import annotations

import json
import socket
import zlib
from pathlib import Path

import anyio
import anyio.abc
import pytest
from pydantic import SecretStr

from interfaces.world import RealWorld
from simulators.supervisor import BackendSetup, BackendTargets, Setup, Supervisor, one_directory
from tests.simulators.lab import running

SPEED = 20.0
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno"


class Listener:
    """Takes connections; each of the log stream is read as it comes, or answered at once and left open."""

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses
        self.opened = 0
        self.closed_by_device = 0
        self.lines: list[dict[str, object]] = []

    async def take(self, stream: anyio.abc.SocketStream) -> None:
        try:
            async with stream:
                head, _, rest = (await self._head(stream)).partition(b"\r\n\r\n")
                if b"/log-stream" not in head:
                    return
                self.opened += 1
                if self.refuses:
                    await stream.send(REFUSAL)
                await self._read(stream, rest)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.closed_by_device += 1

    async def _head(self, stream: anyio.abc.SocketStream) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        return head

    async def _read(self, stream: anyio.abc.SocketStream, rest: bytes) -> None:
        gzip = zlib.decompressobj(wbits=31)
        text = b""
        while True:
            while b"\r\n" in rest:
                size, _, more = rest.partition(b"\r\n")
                length = int(size, 16)
                if len(more) < length + 2:
                    break
                text += gzip.decompress(more[:length])
                *lines, text = text.split(b"\n")
                self.lines += [json.loads(line) for line in lines]
                rest = more[length + 2 :]
                if not length:
                    await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            rest += await stream.receive()


async def _tell(tmp: Path, listener: Listener) -> None:
    server = await anyio.create_tcp_listener(local_host="127.0.0.1", family=socket.AF_INET)
    port = server.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
    world = RealWorld()
    setup = BackendSetup(f"http://127.0.0.1:{port}", SecretStr("token"), plain_logs=True)
    supervisor = Supervisor(
        world, Setup(one_directory(tmp), speed=SPEED), BackendTargets(setup, world)
    )
    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, listener.take)
        async with running(supervisor):
            with anyio.fail_after(10):
                while not (listener.opened >= 3 if listener.refuses else listener.lines):
                    supervisor.teller.say("more")
                    await world.sleep(0.02)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("refuses", [False, True])
def test_lines_arrive_while_the_stream_is_open_and_a_refusal_makes_it_open_again(
    tmp_path: Path, *, refuses: bool
) -> None:
    listener = Listener(refuses=refuses)

    anyio.run(_tell, tmp_path, listener)

    if refuses:
        assert listener.closed_by_device >= 2, "the device left the refused ones"
    else:
        assert listener.opened == 1
        assert listener.lines[0]["message"] == "more", "the first waits out the grace"
