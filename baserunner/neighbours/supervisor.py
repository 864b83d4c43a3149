"""The balena Supervisor on this device, by its local API.

Rules, each from a recording (tests/recordings):
- The key goes into the Authorization header, never into a URL.
- 204 from `/v1/update` proves nothing; 202 means instant updates are off and it will do it at its own poll.
- 202 from `/v1/reboot`, then no connection, is success; so is a connection that breaks during the answer. An answer
  that says no (423, 5xx) is none.
- `release` is the old one until an update has finished, and absent when there is none.
- `update_failed` while a lock is held means "locked", not "failed".

One is from its documentation and source, and not recorded: `POST /v2/journal-logs` (since 9.18.0; balena-supervisor,
docs/API.md and src/device-api/v2.ts) runs `journalctl` on the host and pipes what that prints into the answer, without
a content type. What `journalctl` has to complain about is not in it: a mistake is an empty answer.

What it says goes into facts and reports, so every text is bounded here, at the door.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from baserunner.neighbours.bounded import Answer, Tail, exchange, read_tail
from baserunner.problems import Locked, Malformed, Refused, Unreachable
from interfaces.wire import Id

WITHIN_S = 20.0
"""The slowest recorded answer of the calls used here took under 1 s; a busy Pi is allowed twenty times that."""

LINES_WITHIN_S = 4.0
"""Lines are commentary: nothing waits longer for them."""
UNIT = "balena-supervisor.service"
"""The Supervisor's own unit on the host."""

Word = Annotated[str, StringConstraints(max_length=100)]
Name = Annotated[str, StringConstraints(max_length=500)]
Text = Annotated[str, StringConstraints(max_length=2000)]


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Device(_Seen):
    """GET /v1/device."""

    os_version: Word | None = None
    supervisor_version: Word | None = None
    ip_address: Text = ""
    update_pending: bool = False
    update_failed: bool = False
    update_downloaded: bool = False
    commit: Id | None = None
    """Absent without an app, and while an apply runs."""


class Container(_Seen):
    status: Word
    service: Name = Field(alias="serviceName")
    image_id: int | None = Field(default=None, alias="imageId")


class Image(_Seen):
    name: Name
    image_id: int | None = Field(default=None, alias="imageId")
    status: Word | None = None
    content: Text | None = Field(default=None, alias="dockerImageId")
    """The engine's id of what the name stands for."""


class State(_Seen):
    """GET /v2/state/status."""

    app_state: Word = Field(alias="appState")
    progress_percent: float | None = Field(default=None, alias="overallDownloadProgress")
    containers: tuple[Container, ...] = ()
    images: tuple[Image, ...] = ()
    release: Id | None = None

    @property
    def applied(self) -> bool:
        return self.app_state == "applied"


class Version(_Seen):
    """GET /v2/version."""

    version: Word


class Supervisor(Protocol):
    """What the agent asks of a Supervisor. Every call raises NeighbourProblem."""

    async def ping(self) -> None: ...
    async def version(self) -> str: ...
    async def device(self) -> Device: ...
    async def state(self) -> State: ...
    async def update(self, *, force: bool = False, cancel: bool = False) -> None: ...
    async def reboot(self) -> None: ...
    async def host_journal(self, *, count: int, unit: str | None = None) -> Tail: ...


class HttpSupervisor:
    """The real conversation."""

    def __init__(self, client: httpx.AsyncClient, address: str, key: SecretStr) -> None:
        self._client = client
        self._address = address.rstrip("/")
        self._key = key

    async def ping(self) -> None:
        answer = await self._ask("GET", "/ping")
        if answer.body != b"OK":
            raise Malformed("the Supervisor answered /ping with something else than OK")

    async def version(self) -> str:
        return (await self._ask("GET", "/v2/version")).read(Version).version

    async def device(self) -> Device:
        return (await self._ask("GET", "/v1/device")).read(Device)

    async def state(self) -> State:
        return (await self._ask("GET", "/v2/state/status")).read(State)

    async def update(self, *, force: bool = False, cancel: bool = False) -> None:
        await self._ask("POST", "/v1/update", {"force": force, "cancel": cancel})

    async def reboot(self) -> None:
        """Ask for it. Returns when the Supervisor agreed, or hung up on us while it went down."""
        await self.ping()
        try:
            await self._ask("POST", "/v1/reboot", {"force": False})
        except Unreachable as problem:
            if problem.status is not None:
                raise

    async def host_journal(self, *, count: int, unit: str | None = None) -> Tail:
        """The last lines of the host's journal, oldest first; of one unit, or of everything that runs there.

        What containers print is among them: the engine logs to the host's journal, under the container's id.
        """
        asked: dict[str, object] = {"all": True, "follow": False, "count": count, "format": "short"}
        path = "/v2/journal-logs"
        request = self._request("POST", path, asked if unit is None else {**asked, "unit": unit})
        tail = await read_tail(self._client, request, who="the Supervisor", within_s=LINES_WITHIN_S)
        _judge(tail.answer, f"POST {path}")
        return tail

    async def _ask(self, method: str, path: str, body: Mapping[str, bool] | None = None) -> Answer:
        request = self._request(method, path, body)
        answer = await exchange(self._client, request, who="the Supervisor", within_s=WITHIN_S)
        return _judge(answer, f"{method} {path}")

    def _request(self, method: str, path: str, body: Mapping[str, object] | None) -> httpx.Request:
        return self._client.build_request(
            method,
            self._address + path,
            json=body,
            headers={"Authorization": f"Bearer {self._key.get_secret_value()}"},
        )


def _judge(answer: Answer, call: str) -> Answer:
    if answer.status < 300:
        return answer
    if answer.status == 401:
        raise Refused(
            f"the Supervisor refused our key for {call}: it may have been renewed; the container gets the new one "
            "when the Supervisor next recreates it",
            code="unauthorized",
            status=401,
        )
    if answer.status == 423:
        raise Locked(f"the Supervisor refused {call}: {_words(answer)}")
    if answer.status >= 500:
        raise Unreachable(
            f"the Supervisor answered {answer.status} to {call}: {_words(answer)}",
            status=answer.status,
        )
    raise Refused(
        f"the Supervisor answered {answer.status} to {call}", code="refused", status=answer.status
    )


class _Said(_Seen):
    error: str = Field(default="", alias="Error")
    message: str = ""


def _words(answer: Answer) -> str:
    """Its own reason, bounded; it may be an object with `Error` or `message`, or plain text."""
    try:
        said = answer.read(_Said)
    except Malformed:
        return "no reason given"
    return (said.error or said.message or "no reason given")[:300]
