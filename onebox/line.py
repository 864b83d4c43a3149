"""One question to BaseRunner and its answer: over the unix socket or loopback, with and without an event loop.

Rules:
- The capability token is read for each question: the agent makes another one at each boot of the host.
- Every question may be asked again without doing anything twice, so a broken connection is no error at first.
- One connection for one question: the agent ends each with its answer.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from interfaces.local import HOST, TOKEN_FILE
from interfaces.problem import Problem
from interfaces.wire import Wire
from interfaces.world import RealWorld, World
from onebox.problems import OneboxProblem, Refused, Unreachable

T = TypeVar("T", bound=Wire)

TIMEOUT_S = 10.0
"""Longer than the agent lets any request take."""
PAUSES_S = (0.1, 0.2, 0.3, 0.5, 1.0)
"""Between tries; longer where the agent says so."""
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Address:
    """Where BaseRunner listens, and where its capability token is."""

    url: str
    socket: str | None
    token_file: Path


def read_address(url: str, token_file: str | None) -> Address:
    """From `BASEOS_AGENT_URL` and `BASEOS_AGENT_TOKEN_FILE`. Raises ValueError: what is wrong with them, in words."""
    parts = urlsplit(url)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        beside = Path(parts.path).with_name(TOKEN_FILE)
        return Address(f"http://{HOST}", parts.path, Path(token_file or beside))
    if parts.scheme == "http" and parts.hostname in LOOPBACK and parts.path in {"", "/"}:
        if token_file is None:
            raise ValueError("over http it needs BASEOS_AGENT_TOKEN_FILE, too")
        return Address(f"http://{parts.netloc}", None, Path(token_file))
    raise ValueError("it must be unix:///path/to/agent.sock or http://127.0.0.1:port")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A question, and what its answer is."""

    method: str
    path: str
    answers: type[T]
    asks: Wire | None = None

    def request(self, client: httpx.Client | httpx.AsyncClient, address: Address) -> httpx.Request:
        """Raises Unreachable where the token cannot be read."""
        try:
            token = address.token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no token"
            raise Unreachable(
                f"the capability token cannot be read from {address.token_file}: {why}"
            ) from None
        headers = {"Authorization": f"Bearer {token}"}
        content = None
        if self.asks is not None:
            headers["Content-Type"] = "application/json"
            content = self.asks.model_dump_json()
        return client.build_request(
            self.method, address.url + self.path, headers=headers, content=content
        )

    def read(self, response: httpx.Response) -> T:
        """Raises Refused; Unreachable when it is no answer of BaseRunner's."""
        if response.is_success:
            try:
                return self.answers.model_validate_json(response.content)
            except ValidationError:
                raise _stranger(f"what answers {self.path} is not BaseRunner") from None
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            said = f"{response.status_code} to {self.path}, and not in BaseRunner's words"
            raise _stranger(said) from None
        raise Refused(
            problem.status, problem.code, problem.detail, retry_after_s=problem.retry_after_s
        )


def _stranger(said: str) -> Unreachable:
    """Somebody else answers there: asking again would not change that."""
    return Unreachable(said, passing=False)


def _unreachable(address: Address, error: httpx.HTTPError) -> Unreachable:
    where = address.socket or address.url
    return Unreachable(f"no answer from BaseRunner at {where}: {type(error).__name__}: {error}")


def _pauses() -> Iterator[float | None]:
    """How long to wait after each try; None: that was the last one."""
    yield from PAUSES_S
    yield None


def _pause_s(problem: OneboxProblem, pause_s: float | None) -> float:
    """Raises the problem itself where another try is of no use."""
    if pause_s is None or problem.retry_after_s is None:
        raise problem
    return max(pause_s, min(problem.retry_after_s, TIMEOUT_S))


def _no_tls() -> ssl.SSLContext:
    """There is none on this device; httpx would read all public CAs for nothing, which takes 100 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _options() -> dict[str, Any]:
    return {"timeout": TIMEOUT_S, "trust_env": False}


_LIMITS = httpx.Limits(max_keepalive_connections=0)


class Line:
    """For a program without an event loop; several threads may use it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        transport = httpx.HTTPTransport(uds=address.socket, verify=_no_tls(), limits=_LIMITS)
        self._client = httpx.Client(transport=transport, **_options())

    def ask(self, call: Call[T], *, once: bool = False) -> T:
        """Raises Unreachable, Refused. `once`: who asks has a patience of its own."""
        never = threading.Event()
        for pause_s in _pauses():
            try:
                return self._try(call)
            except OneboxProblem as problem:
                never.wait(_pause_s(problem, None if once else pause_s))
        raise AssertionError  # the last try returns or raises

    def _try(self, call: Call[T]) -> T:
        try:
            return call.read(self._client.send(call.request(self._client, self._address)))
        except httpx.HTTPError as error:
            raise _unreachable(self._address, error) from None

    def close(self) -> None:
        self._client.close()


class AsyncLine:
    """The same for an event loop."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.world: World = RealWorld()
        transport = httpx.AsyncHTTPTransport(uds=address.socket, verify=_no_tls(), limits=_LIMITS)
        self._client = httpx.AsyncClient(transport=transport, **_options())

    async def ask(self, call: Call[T], *, once: bool = False) -> T:
        """Raises Unreachable, Refused. `once`: who asks has a patience of its own."""
        for pause_s in _pauses():
            try:
                return await self._try(call)
            except OneboxProblem as problem:
                await self.world.sleep(_pause_s(problem, None if once else pause_s))
        raise AssertionError  # the last try returns or raises

    async def _try(self, call: Call[T]) -> T:
        try:
            return call.read(await self._client.send(call.request(self._client, self._address)))
        except httpx.HTTPError as error:
            raise _unreachable(self._address, error) from None

    async def close(self) -> None:
        await self._client.aclose()
