"""Every recorded backend conversation, sent to Cloudly: each answer is one that the recorded Supervisor would accept.

What it accepts (supervisor notes): 201 with a numeric id to a registration, or 409 if it then finds itself; a target of
its own with an ETag, or 304; 201 to a setting; any 2xx to a report; rows in `d`. The log stream and the registry token
have stories of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from interfaces.target_verdict import faults_of
from tests.cloudly.given import Plane, bearer

pytestmark = pytest.mark.anyio

RECORDED = Path(__file__).parents[1] / "recordings" / "backend"
PROVISIONING_KEY = "provkey0123456789abcdef"
CONVERSATIONS = sorted(
    file.stem
    for file in RECORDED.glob("*.json")
    if isinstance(told := json.loads(file.read_text()), list) and "request" in told[0]
)
ELSEWHERE = re.compile(r"/device/v2/.*/log-stream|/auth/v1/token")


def asked(conversation: str) -> Iterator[tuple[str, str, str, Any]]:
    """Method, path, credential and body of each request, in order."""
    for one in json.loads((RECORDED / f"{conversation}.json").read_text()):
        request = one["request"]
        headers = {name.lower(): value for name, value in request["headers"]}
        if not ELSEWHERE.search(request["path"]):
            credential = headers["authorization"].removeprefix("Bearer ")
            yield request["method"], request["path"], credential, request["body"]


class Replay:
    """A recorded Supervisor in front of Cloudly: its join token and its number are ours, the rest is as it was."""

    def __init__(self, plane: Plane, join_token: str) -> None:
        self.plane = plane
        self.join_token = join_token
        self.device: int | None = None
        self.etag = ""
        self.seen: list[tuple[str, int]] = []

    async def ask(self, method: str, path: str, credential: str, body: Any) -> httpx.Response:
        number = str(self.device or 1234)
        path = path.replace("(1234)", f"({number})").replace("%201234", f"%20{number}")
        path = path.replace("/device/1234/", f"/device/{number}/")
        if isinstance(body, dict) and body.get("device") == 1234:
            body = {**body, "device": self.device}
        headers = bearer(self.join_token if credential == PROVISIONING_KEY else credential)
        if self.etag and path.endswith("/state") and method == "GET":
            headers["if-none-match"] = self.etag
        answer = await self.plane.client.request(method, path, headers=headers, json=body or None)
        self.seen.append(
            (f"{method} {re.sub(r'[0-9a-f]{32}|[0-9]+', '…', path)}", answer.status_code)
        )
        return answer

    def accept(self, method: str, path: str, answer: httpx.Response) -> None:
        assert "retry-after" not in answer.headers
        match method, path.partition("?")[0]:
            case "POST", "/device/register":
                assert answer.status_code == 201
                self.device = answer.json()["id"]
                assert isinstance(self.device, int)
            case "GET", target if target.endswith("/state"):
                self._accept_target(target.split("/")[3], answer)
            case "POST", "/v7/device_config_variable":
                assert answer.status_code == 201
            case "GET", "/v7/device":
                assert answer.status_code == 200
                assert answer.json() == {"d": [{"id": self.device}]}
            case "GET", "/v7/device_tag":
                assert (answer.status_code, answer.json()) == (200, {"d": []})
            case _:
                assert answer.is_success, (method, path, answer.text)

    def _accept_target(self, uuid: str, answer: httpx.Response) -> None:
        assert answer.headers["etag"].startswith('"')
        if answer.status_code == 304:
            assert answer.headers["etag"] == self.etag
            return
        assert answer.status_code == 200
        assert faults_of(answer.json()[uuid], uuid) == ()
        self.etag = answer.headers["etag"]


@pytest.mark.parametrize("conversation", sorted(set(CONVERSATIONS) - {"register-refused"}))
async def test_each_answer_is_one_that_the_supervisor_accepts(
    plane: Plane, conversation: str
) -> None:
    replay = Replay(plane, plane.join_token(uses=9))

    requests = list(asked(conversation))
    registers = any(path == "/device/register" for _, path, _, _ in requests)
    if not registers:  # it goes on from the first boot
        for request in asked("first-boot"):
            replay.accept(*request[:2], await replay.ask(*request))
    for request in requests:
        answer = await replay.ask(*request)
        replay.accept(*request[:2], answer)

    assert len(plane.rows("node")) == 1
    kept = json.loads(plane.rows("device")[0]["report"])
    assert kept["supervisor_version"] == "19.0.5"
    assert "api_secret" not in kept


async def test_the_reports_of_the_first_boot_end_as_the_last_one_said(plane: Plane) -> None:
    replay = Replay(plane, plane.join_token())
    last: dict[str, Any] = {}
    for request in asked("first-boot"):
        replay.accept(*request[:2], await replay.ask(*request))
        if request[1] == "/device/v3/state":
            last |= next(iter(request[3].values()))

    number = plane.rows("device")[0]["node"]
    said = plane.store.read_now(lambda db: plane.store.devices.said(db, number))
    assert said is not None

    last.pop("api_secret")
    assert json.loads(said["report"]) == last


async def test_a_refused_registration_is_never_409_so_no_ghosts_are_bred(plane: Plane) -> None:
    replay = Replay(plane, "bjt_" + "x" * 43)

    for request in asked("register-refused"):
        answer = await replay.ask(*request)

        assert answer.status_code == 401

    assert plane.rows("node") == []


@pytest.mark.parametrize("conversation", ["register-conflict", "key-exchange"])
async def test_who_is_registered_with_another_key_goes_the_recorded_way_and_ends_well(
    plane: Plane, conversation: str
) -> None:
    uuid = next(body["uuid"] for _, path, _, body in asked(conversation) if "register" in path)
    before = Replay(plane, plane.join_token())
    other = {"uuid": uuid, "api_key": "k" * 32}
    await before.ask("POST", "/device/register", PROVISIONING_KEY, other)
    replay = Replay(plane, plane.join_token())
    replay.device = plane.node(uuid)["id"]

    seen = [(request, await replay.ask(*request)) for request in asked(conversation)]

    statuses = [answer.status_code for _, answer in seen]
    if conversation == "key-exchange":  # 409, not by its key, by the join token, exchanged
        assert statuses[:5] == [409, 401, 200, 200, 200]
        assert all(answer.is_success or answer.status_code == 304 for _, answer in seen[1 + 1 :])
    else:  # recorded with a device that the backend knew by its key, which ours does not: it would exchange
        assert statuses[:2] == [409, 401]
    assert len(plane.rows("node")) == 1
