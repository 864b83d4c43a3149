"""The Supervisor's requests to its backend, one at a time: keys in headers only, and one kind of failure.

Rules:
- Secrets go in the Authorization header and nowhere else; no error repeats a body or a URL with a key.
- The headers are the recorded ones: nothing of the HTTP library's own but what the wire needs.
- The log stream has connections of its own, closed after each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from simulators.supervisor.log_stream import Connection
from simulators.supervisor.sources import SourceUnavailableError
from simulators.supervisor.state import VERSION, Identity

WITHIN_S: Final = 59.0
"""SUPERVISOR_API_REQUEST_TIMEOUT."""
AGENT: Final = f"Supervisor/{VERSION} (Linux; balenaOS 6.5.1; dev)"
NODE: Final = "node"
"""What it calls itself where it asks with the bare library: `GET /v7/device`."""


class BackendClient:
    def __init__(
        self,
        url: str,
        logs_url: str,
        transport: httpx.AsyncBaseTransport | None,
        logs_transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._client = _client(url, transport or httpx.AsyncHTTPTransport())
        self._logs = _client(
            logs_url,
            logs_transport
            or transport
            or httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0)),
        )

    async def aclose(self) -> None:
        await self._client.aclose()
        await self._logs.aclose()

    async def ask(
        self, method: str, path: str, key: str, *, agent: str = AGENT, **parts: Any
    ) -> httpx.Response:
        """Ask, and take whatever status comes.

        Raises:
            SourceUnavailableError: nothing came.

        """
        more: Mapping[str, str] = parts.pop("headers", {})
        headers = {"User-Agent": agent, **more, "Authorization": f"Bearer {key}"}
        try:
            return await self._client.request(method, path, headers=headers, **parts)
        except httpx.HTTPError as error:
            raise SourceUnavailableError(f"{method} {path}: {type(error).__name__}") from None

    async def stream_logs(self, identity: Identity, connection: Connection) -> int:
        """Send the body of a log connection; returns the status of the answer.

        Raises:
            ConnectionError: it was cut, or could not be made.

        """

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                stream = info["return_value"]
                connection.answered_early = lambda: bool(stream.get_extra_info("is_readable"))
            elif event == "connection.start_tls.complete":
                # A session ticket looks like an answer: over TLS only the end of the body tells.
                connection.answered_early = lambda: False

        try:
            answer = await self._logs.post(
                f"/device/v2/{identity.uuid}/log-stream",
                headers={
                    "Authorization": f"Bearer {identity.device_key}",
                    "Content-Type": "application/x-ndjson",
                    "Content-Encoding": "gzip",
                },
                content=connection.body(),
                timeout=httpx.Timeout(WITHIN_S, write=None),
                extensions={"trace": trace},
            )
        except httpx.HTTPError as error:
            raise ConnectionError(f"the log stream: {type(error).__name__}") from None
        return answer.status_code


def _client(url: str, transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    client = httpx.AsyncClient(base_url=url, transport=transport, timeout=WITHIN_S, trust_env=False)
    client.headers = httpx.Headers({"Accept-Encoding": "gzip, deflate"})
    return client


def json_of(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise SourceUnavailableError("the answer is not JSON") from None


def id_of(body: object) -> int:
    found = body.get("id") if isinstance(body, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise SourceUnavailableError("the answer has no id that is a number")
    return found
