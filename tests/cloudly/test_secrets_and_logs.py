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

from cloudly.logs import ASKED, Asked, JsonLines, TextLines, configure, note_node, redact
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
        "no way to postgresql://cloudly:S3CRETS3CRET@db.example:5432/cloudly?sslmode=require",
        "no way to postgresql://cloudly:S3CRET@S3CRET:S3CRET@db.example/cloudly",
        "https://:S3CRETS3CRET@hooks.example/a",
        "a ticket is betxt_ and bet_S3CRETS3CRET",
        "signed with whsec_S3CRETS3CRET+/S3CRET==",
        "device_key: S3CRETS3CRET",
        "tls-key=S3CRETS3CRET",
    ],
)
def test_what_looks_like_a_credential_is_taken_out_of_a_line(line: str) -> None:
    assert "S3CRET" not in redact(line)
    assert "[redacted]" in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "node 6ed0 was seen",
        "the join token is used up",
        "3 tokens",
        "bjt_",
        "secretary",
        "asked https://there.example:8443/a/b@c",
        "postgresql://db.example/cloudly",
        "Key (name)=(web) already exists.",
    ],
)
def test_a_plain_line_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "a" * 60_000 + " api",
        "token" * 12_000,
        "token" + " " * 60_000,
        "a-" * 30_000 + "t_",
        "a://b:" * 10_000,
        "a" * 60_000 + "://",
        "a://" + "b" * 60_000 + ":c@",
        "key" * 20_000 + "=",
    ],
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


def fails(problem: Exception) -> None:
    raise problem


def written_by(
    formatter: logging.Formatter,
    words: str,
    values: dict[str, object] | None = None,
    *,
    problem: Exception | None = None,
) -> str:
    record = logging.LogRecord("cloudly", logging.WARNING, __file__, 1, words, (), None)
    record.values = values
    if problem is not None:
        try:
            fails(problem)
        except OSError as caught:
            record.exc_info = (type(caught), caught, caught.__traceback__)
    return formatter.format(record)


def test_a_line_says_which_request_and_which_node_it_is_about() -> None:
    outside = json.loads(written_by(JsonLines(), "a thing happened"))
    before = ASKED.set(Asked("r-17"))
    early = json.loads(written_by(JsonLines(), "a thing happened"))
    note_node("n1")
    late = json.loads(written_by(JsonLines(), "a thing happened", {"count": 2}))
    ASKED.reset(before)

    assert "request" not in outside
    assert (early["request"], early.get("node")) == ("r-17", None)
    assert (late["request"], late["node"], late["count"]) == ("r-17", "n1", 2)


def test_a_value_cannot_take_the_place_of_the_event() -> None:
    line = json.loads(
        written_by(JsonLines(), "a thing happened", {"event": "another", "at": "never"})
    )

    assert line["event"] == "a thing happened"
    assert line["at"] != "never"


def test_text_for_people_holds_the_same_and_no_secret_and_no_terminal_escape() -> None:
    line = written_by(
        TextLines(),
        "it\x1b[2J failed\nagain",
        {"why": "disk full", "node_token": "S3CRET1"},
        problem=OSError("postgresql://cloudly:S3CRETS3CRET@db.example/cloudly is away"),
    )

    first, *traceback = line.splitlines()
    assert "warning it?[2J failed again why=" in first
    assert '"disk full"' in first
    assert "Traceback" in traceback[0]
    assert "\x1b" not in line
    assert "S3CRET" not in line


@pytest.mark.parametrize("name", ["key", "device_key", "API_KEY", "cookie", "passwd", "Authorization"])  # fmt: skip
def test_a_value_with_a_secrets_name_is_not_written(name: str) -> None:
    line = json.loads(written_by(JsonLines(), "a thing happened", {name: "S3CRET"}))

    assert line[name] == "[redacted]"


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_libraries_write_at_debug_passes_the_same_way_or_not_at_all(
    style: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    noisy = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "asyncpg")}
    try:
        configure("DEBUG", style)
        logging.getLogger("httpx").info("GET https://x.example/?apikey=S3CRETS3CRET")
        logging.getLogger("uvicorn.error").debug("header authorization: Bearer S3CRETS3CRET")
        logging.getLogger("somebody.else").debug("bnt_S3CRETS3CRETS3CRET")
    finally:
        root.handlers[:] = others
        root.setLevel(level)
        for name, was in noisy.items():
            logging.getLogger(name).setLevel(was)

    written = capfd.readouterr().err
    assert "S3CRET" not in written
    assert written.count("[redacted]") == 2


async def test_a_bug_in_a_handler_is_logged_with_its_request_and_without_its_secrets(
    plane: Plane,
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("cloudly")
    log.addHandler(handler)
    device = await plane.device().enroll()

    async def breaks(*_: object) -> None:
        try:
            fails(RuntimeError(f"a bug with {device.token}"))
        except RuntimeError:
            log.exception("it broke", extra={"values": {"token": device.token}})
            raise

    plane.store.beat = breaks  # type: ignore[method-assign, assignment]
    try:
        with pytest.raises(RuntimeError):
            await device.beat()
    finally:
        log.removeHandler(handler)

    line = json.loads(written.getvalue().splitlines()[-1])
    assert (line["event"], line["node"]) == ("it broke", UUID)
    assert line["request"]
    assert "RuntimeError" in line["traceback"]
    assert device.token not in written.getvalue()
