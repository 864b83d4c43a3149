"""The chaos proxy, on real sockets: each mood bites, and the server has done what the client saw fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import httpx
import pytest
from anyio.abc import SocketAttribute

from interfaces.world import RealWorld
from simulators.weather import ChaosProxy, Mood

PADDING = b"x" * 400
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\nconnection: close\r\n\r\n" + PADDING

EXECUTED_ALL_THE_SAME = {Mood.RESET_AFTER, Mood.TRUNCATE, Mood.STALL}


class Server:
    """A server that counts what it has executed."""

    def __init__(self) -> None:
        self.executed = 0

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        async with listener:
            port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not a database
            task_status.started(port)
            await listener.serve(self._answer)

    async def _answer(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                await stream.receive()
                self.executed += 1
                await stream.send(ANSWER)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


Story = Callable[[ChaosProxy, Server, int], Awaitable[None]]


def behind_a_proxy(story: Story, moods: tuple[Mood, ...], seed: int = 3) -> None:
    async def tell() -> None:
        server = Server()
        async with anyio.create_task_group() as tasks:
            upstream: int = await tasks.start(server.serve)
            proxy = ChaosProxy(("127.0.0.1", upstream), RealWorld(), seed, moods)
            port: int = await tasks.start(proxy.serve)
            await story(proxy, server, port)
            tasks.cancel_scope.cancel()

    anyio.run(tell)


async def _outcome(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=0.5) as client:
        try:
            return str((await client.get(f"http://127.0.0.1:{port}/")).status_code)
        except httpx.TransportError as error:
            return type(error).__name__


@pytest.mark.parametrize(
    ("mood", "outcomes"),
    [
        (Mood.CALM, {"200"}),
        (Mood.LATENCY, {"200"}),
        (Mood.DRIP, {"200"}),
        (Mood.REFUSE, {"ReadError", "RemoteProtocolError", "ConnectError"}),
        (Mood.BLACKHOLE, {"ReadTimeout"}),
        (Mood.RESET_AFTER, {"ReadError", "RemoteProtocolError"}),
        (Mood.TRUNCATE, {"RemoteProtocolError", "ReadError"}),
        (Mood.STALL, {"ReadTimeout"}),
    ],
)
def test_a_mood_bites_and_is_counted(mood: Mood, outcomes: set[str]) -> None:
    async def story(proxy: ChaosProxy, server: Server, port: int) -> None:
        seen = await _outcome(port)

        assert seen in outcomes
        assert proxy.fired[mood] >= 1
        assert server.executed == (0 if mood in {Mood.REFUSE, Mood.BLACKHOLE} else 1)
        assert mood not in EXECUTED_ALL_THE_SAME or seen != "200"

    behind_a_proxy(story, (mood,))


def test_the_same_seed_plans_the_same_moods() -> None:
    plans: list[list[tuple[Mood, int]]] = []

    async def story(proxy: ChaosProxy, _server: Server, port: int) -> None:
        for _ in range(12):
            await _outcome(port)
        plans.append(proxy.plan)

    fast = (Mood.CALM, Mood.REFUSE, Mood.RESET_AFTER, Mood.TRUNCATE)
    for seed in (7, 7, 8):
        behind_a_proxy(story, fast, seed)

    assert plans[0] == plans[1] != plans[2]
