"""No secret in a log line, an error, a page or the database: canaries are searched for in all that was written."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import time
from dataclasses import replace

import pytest

from cloudly.logs import JsonLines, redact
from tests.cloudly.given import NODE, UUID, Plane, bearer

pytestmark = pytest.mark.anyio


def forms(secret: str) -> list[bytes]:
    """A secret, and what it may hide in."""
    raw = secret.encode()
    return [raw, raw[8:], raw.hex().encode(), base64.b64encode(raw)[:-4]]


async def test_canaries_are_found_nowhere_but_in_the_answers_that_hand_them_out(
    plane: Plane,
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    try:
        join_token, device, key = (
            plane.join_token(uses=2),
            plane.device(),
            "canary0device0key0canary0device0",
        )
        registered = await device.ask(join_token)
        following = "bnt_canary0following0canary0following0canary0"
        received = [
            await plane.client.post(
                "/device/register", json={"uuid": UUID, "api_key": key}, headers=bearer(join_token)
            ),
            await device.beat(),
            await device.ask(join_token),
            await plane.device().ask(join_token),
            await device.ask(device.token),
            await plane.client.post(
                NODE + "register", json=[join_token, device.secret], headers=bearer(join_token)
            ),
            await plane.client.post(
                NODE + "heartbeat", json={device.token: device.token}, headers=bearer(device.token)
            ),
            await device.tell("app-update/1", "offered"),
            await plane.client.get(f"/device/v3/{UUID}/state", headers=bearer(key)),
            await plane.client.patch(
                "/device/v3/state", json={UUID: {"api_secret": key}}, headers=bearer(key)
            ),
            await device.announce(following),
            await device.announce(following, token_hash=following),
            await device.announce(device.token),
            await replace(device, token=following).beat(),
            await device.beat(),
            await plane.client.get("/"),
            await plane.client.get(f"/nodes/{UUID}"),
            await plane.client.get(f"/{join_token}"),
        ]
        answers = [answer.content + str(answer.headers).encode() for answer in received]
    finally:
        root.handlers[:] = others
        root.setLevel(level)

    logged = written.getvalue().encode()
    stored = b"".join(one.read_bytes() for one in plane.directory.iterdir())
    assert (
        device.token.encode() in registered.content
    )  # the search works where it must find something
    assert b"refused" in logged  # and something was logged
    for secret in (join_token, device.secret, device.token, following, key):
        for form in forms(secret):
            assert form not in logged, secret
            assert form not in stored, secret
            assert not any(form in answer for answer in answers), secret


@pytest.mark.parametrize(
    "line",
    [
        "asked with bjt_S3CRETS3CRETS3CRET",
        "Authorization: Bearer S3CRETS3CRET",
        "{'authorization': 'Bearer S3CRETS3CRET', 'a': 1}",
        "headers={b'authorization': b'Basic S3CRETS3CRET'}",
        'node_token="S3CRETS3CRET"',
        "GET /v1/update?apikey=S3CRETS3CRET&x=1",
        '{"api_key": "S3CRETS3CRET"}',
        "enrollment_secret='S3CRET S3CRET'",
        "cookie: a=S3CRETS3CRET",
        "password = S3CRETS3CRET",
    ],
)
def test_what_looks_like_a_credential_is_taken_out_of_a_line(line: str) -> None:
    assert "S3CRET" not in redact(line)
    assert "[redacted]" in redact(line)


@pytest.mark.parametrize(
    "line", ["node 6ed0 was seen", "the join token is used up", "3 tokens", "bjt_", "secretary"]
)
def test_a_plain_line_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


@pytest.mark.parametrize(
    "line", ["a" * 60_000 + " api", "token" * 12_000, "token" + " " * 60_000, "a-" * 30_000 + "t_"]
)
def test_a_strangers_line_cannot_buy_more_than_its_length_in_time(line: str) -> None:
    begun = time.process_time()

    redact(line)

    assert time.process_time() - begun < 2  # 0.1 s here; hours where each letter is a beginning


def test_a_log_line_is_json_and_its_traceback_is_redacted_too() -> None:
    try:
        int("Bearer S3CRETS3CRET was refused")
    except ValueError as problem:
        record = logging.LogRecord(
            "cloudly", logging.ERROR, __file__, 1, "it %s", ("failed",), None
        )
        record.exc_info = (type(problem), problem, problem.__traceback__)
    record.values = {
        "node": "n1",
        "node_token": "S3CRETS3CRET",
        "count": 3,
        "why": "bnt_S3CRETS3CRET",
    }

    line = json.loads(JsonLines().format(record))

    assert (line["event"], line["level"], line["node"], line["count"]) == (
        "it failed",
        "error",
        "n1",
        3,
    )
    assert "ValueError" in line["traceback"]
    assert "S3CRET" not in json.dumps(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", line["at"])
