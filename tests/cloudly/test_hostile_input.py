"""Whatever is sent, the answer is bounded, has the usual shape, is never a 5xx, and holds nothing of what was sent."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudly.http.device import MAX_HEARTBEAT, MAX_JOURNAL, MAX_REGISTER
from simulators.world import run_virtual
from tests.cloudly.given import NODE, UUID, Plane, bearer, code_of, report

pytestmark = pytest.mark.anyio

GZIPPED = {"content-encoding": "gzip"}
CANARY = "CANARY-bjt-4711"
DEEP = b"[" * 10_000
NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    str(2**63),
    str(-(2**63) - 1),
    str(2**64),
    "9" * 5000,
]


async def post(plane: Plane, path: str, body: bytes, token: str, **headers: str) -> httpx.Response:
    return await plane.client.post(path, content=body, headers=bearer(token) | headers)


def harmless(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        code_of(answer)
        assert CANARY not in answer.text
        assert len(answer.content) < 1000


BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe\x00",
    b'"' + CANARY.encode() + b'"',
    DEEP,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'{"node_id": "' + CANARY.encode() + b'\\ud800"}',
    json.dumps({"node_id": CANARY, "enrollment_secret": CANARY, "events": CANARY}).encode(),
    json.dumps({"node_id": {CANARY: CANARY}, "reported": [CANARY], "epoch": CANARY * 50}).encode(),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("path", ["register", "heartbeat", "journal"])
async def test_nonsense_is_malformed(plane: Plane, path: str, body: bytes) -> None:
    device = await plane.device().enroll()
    token = plane.join_token() if path == "register" else device.token

    answer = await post(plane, NODE + path, body, token)

    harmless(answer)
    assert code_of(answer)[1] == "malformed"


@pytest.mark.parametrize("number", NUMBERS, ids=[number[:20] for number in NUMBERS])
async def test_numbers_of_any_size_do_no_harm_anywhere(plane: Plane, number: str) -> None:
    device = await plane.device().enroll()
    heartbeat = {
        "node_id": UUID,
        "epoch": "e",
        "agent_version": "1",
        "sent_at_ms": 1,
        "reported": report(),
    }
    device.fact("app-update/1", "new", "offered")
    bodies = []
    for where, field in (
        (heartbeat, "sent_at_ms"),
        (heartbeat["reported"], "uptime_s"),
        (heartbeat["reported"], "temperature_c"),
        (heartbeat["reported"], "observed_generation"),
    ):
        bodies.append(("heartbeat", _with(heartbeat, where, field, number)))
    space = {"total_bytes": 1, "free_bytes": 1}
    heartbeat["reported"] = report(disk=space, waiting=[])
    bodies.append(("heartbeat", _with(heartbeat, space, "total_bytes", number)))
    for field in ("at_ms", "mono_ms", "seq", "n"):
        batch = device.batch()
        bodies.append(("journal", _with(batch, batch["events"][0], field, number)))

    for path, body in bodies:
        harmless(await post(plane, NODE + path, body, device.token))
    for path in ("/", f"/nodes/{UUID}"):
        assert (await plane.client.get(path)).status_code == 200


def _with(document: Any, where: Any, field: str, number: str) -> bytes:
    """The document as JSON, with a number that Python's json would not write."""
    kept = where.get(field)
    where[field] = "@@"
    text = json.dumps(document).replace('"@@"', number)
    where[field] = kept
    return text.encode()


@pytest.mark.parametrize("number", NUMBERS, ids=[number[:20] for number in NUMBERS])
async def test_the_supervisors_report_may_hold_any_number_too(plane: Plane, number: str) -> None:
    key = "k" * 32
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": key}, headers=bearer(plane.join_token())
    )

    answer = await plane.client.patch(
        "/device/v3/state", content=f'{{"{UUID}": {{"x": {number}}}}}'.encode(), headers=bearer(key)
    )

    harmless(answer)


@pytest.mark.parametrize(
    ("path", "limit"),
    [("register", MAX_REGISTER), ("heartbeat", MAX_HEARTBEAT), ("journal", MAX_JOURNAL)],
)
async def test_a_body_over_its_limit_is_refused_with_and_without_a_declared_length(
    plane: Plane, path: str, limit: int
) -> None:
    device = await plane.device().enroll()
    token = plane.join_token() if path == "register" else device.token
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65_536
            yield b" " * 65_536

    declared = await post(plane, NODE + path, b" " * (limit + 1), token)
    undeclared = await plane.client.post(
        NODE + path, content=_some(endless(), 64), headers=bearer(token)
    )
    lying = await post(plane, NODE + path, b"{}", token, **{"content-length": "9" * 400})

    assert [code_of(one) for one in (declared, undeclared, lying)] == [(413, "too-large")] * 3
    assert read <= limit + 2 * 65_536


async def _some(chunks: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
        count -= 1
        if not count:
            return


async def test_a_gzip_bomb_is_refused_before_it_has_grown(plane: Plane) -> None:
    device = await plane.device().enroll()
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < MAX_JOURNAL

    tracemalloc.start()
    answer = await post(plane, NODE + "journal", bomb, device.token, **{"content-encoding": "gzip"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert code_of(answer) == (413, "too-large")
    assert peak < 8 * MAX_JOURNAL


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        gzip.compress(b"{}")[:-3],
        gzip.compress(b"{}")[:-5] + b"x" * 5,
        zlib.compress(b"{}"),
        b"",
    ],
    # gzip writes the time: ids of the bytes would be others in each run, and in each process of one run
    ids=["words", "cut", "wrong-sum", "zlib", "nothing"],
)
async def test_what_is_not_gzip_is_malformed(plane: Plane, body: bytes) -> None:
    device = await plane.device().enroll()

    answer = await post(plane, NODE + "journal", body, device.token, **{"content-encoding": "gzip"})

    assert code_of(answer)[1] == "malformed"


@pytest.mark.parametrize("together", [True, False])
async def test_what_comes_after_a_gzip_body_is_refused_and_not_collected(
    plane: Plane, *, together: bool
) -> None:
    device = await plane.device().enroll()
    whole, sent = gzip.compress(b"{}"), 0

    async def trailer() -> AsyncIterator[bytes]:
        nonlocal sent
        yield whole + b"x" if together else whole
        for _ in range(400):
            sent += 65_536
            yield b"x" * 65_536

    answer = await plane.client.post(
        NODE + "journal", content=trailer(), headers=bearer(device.token) | GZIPPED
    )

    assert code_of(answer) == (400, "malformed")
    assert sent <= 65_536


async def test_what_comes_over_the_wire_counts_too_however_little_it_grows_to(
    plane: Plane,
) -> None:
    device = await plane.device().enroll()
    header, nothing, sent = gzip.compress(b"")[:10], b"\0\0\0\xff\xff" * 13_000, 0

    async def empty_blocks() -> AsyncIterator[bytes]:
        nonlocal sent
        yield header
        for _ in range(400):
            sent += len(nothing)
            yield nothing

    answer = await plane.client.post(
        NODE + "journal", content=empty_blocks(), headers=bearer(device.token) | GZIPPED
    )

    assert code_of(answer) == (413, "too-large")
    assert sent <= MAX_JOURNAL + 65_536


async def test_an_unknown_encoding_is_refused(plane: Plane) -> None:
    device = await plane.device().enroll()

    answer = await post(plane, NODE + "journal", b"{}", device.token, **{"content-encoding": "br"})

    assert code_of(answer) == (415, "malformed")


async def test_a_body_that_drips_is_given_up_after_its_deadline(plane: Plane) -> None:
    device = await plane.device().enroll()
    began = plane.world.monotonic()

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await plane.world.sleep(1)
            yield b" "

    answer = await plane.client.post(
        NODE + "heartbeat", content=drip(), headers=bearer(device.token), timeout=None
    )

    assert code_of(answer) == (408, "busy")
    assert plane.world.monotonic() - began == pytest.approx(plane.settings.body_deadline_s, abs=1.5)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/baseos/v1/nodes/register", 405),
        ("DELETE", "/", 405),
        ("POST", "/baseos/v1/nodes/register/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/vendor/%2e%2e/%2e%2e/app.py", 404),
        ("GET", f"/nodes/{CANARY}", 404),
        ("GET", "/nodes/%00", 404),
    ],
)
async def test_what_is_not_there_is_a_problem_too(
    plane: Plane, method: str, path: str, status: int
) -> None:
    answer = await plane.client.request(method, path)

    assert code_of(answer) == (status, "not-found")
    assert CANARY not in answer.text


@pytest.mark.parametrize("field", ["node_id", "enrollment_secret", "epoch", "agent_version"])
async def test_a_missing_field_is_named_and_nothing_that_was_sent_is_repeated(
    plane: Plane, field: str
) -> None:
    body = {"node_id": "n", "enrollment_secret": CANARY * 4, "epoch": "e", "agent_version": CANARY}
    del body[field]

    answer = await plane.client.post(
        NODE + "register", json=body, headers=bearer(plane.join_token())
    )

    assert code_of(answer) == (422, "malformed")
    assert answer.json()["detail"] == f"{field}: missing"
    assert CANARY not in answer.text


@pytest.mark.parametrize("node_id", ["", "../x", "a b", "<b>", "x" * 65, "ü", "-x", "a\n"])
async def test_a_node_id_is_of_a_safe_alphabet(plane: Plane, node_id: str) -> None:
    answer = await plane.device(node_id).ask(plane.join_token())

    assert code_of(answer) == (422, "malformed")
    assert plane.rows("node") == []


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_request_with_any_one_field_replaced_by_anything_is_answered(
    plane: Plane, data: st.DataObject
) -> None:
    async def story() -> None:
        device = plane.device(f"n{plane.store.database.commits}")
        await device.enroll()
        device.fact("app-update/1", "new", "offered", deployment="d")
        heartbeat = {
            "node_id": device.node_id, "epoch": "epoch-1", "agent_version": "1", "sent_at_ms": 1,
            "reported": report(
                disk={"total_bytes": 2, "free_bytes": 1}, addresses=["a"], degraded=["x"],
                update={"stream": "s", "deployment": "d", "release": "r", "version": "v", "state": "s"},
                waiting=[{"stream": "s", "state": "s", "waits_for": "w", "owner": "us", "since_ms": 1}],
            ),
        }  # fmt: skip
        path, body = data.draw(
            st.sampled_from([("heartbeat", heartbeat), ("journal", device.batch())])
        )
        places = list(_places(body))
        where, key = data.draw(st.sampled_from(places))
        where[key] = data.draw(JSON)

        harmless(
            await post(
                plane, NODE + path, json.dumps(body).encode("utf-8", "replace"), device.token
            )
        )
        for page in ("/", f"/nodes/{device.node_id}"):
            assert (await plane.client.get(page)).status_code == 200

    run_virtual(story)


def _places(document: Any) -> Any:
    """Every container and key in a JSON document."""
    keys = range(len(document)) if isinstance(document, list) else list(document)
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"tried": ["one", "two", "three", "four"]}, 200),
        ({"tried": []}, 200),
        ({"tried": None}, 422),
        ({"tried": "one"}, 422),
        ({"tried": [7]}, 422),
        ({"tried": ["x" * 2001]}, 422),
        ({"tried": {"a": 1}}, 422),
        ({"resume": "x" * 2001}, 422),
        ({"reason": None}, 422),
        ({"since_ms": 2**70, "until_ms": -(2**70)}, 200),
    ],
)
async def test_what_a_node_waits_for_is_bounded_and_shown(
    plane: Plane, more: dict[str, Any], status: int
) -> None:
    device = await plane.device().enroll()
    waiting = {"stream": "s", "state": "s", "waits_for": "w", "owner": "us", "since_ms": 1}

    answer = await device.beat(reported={"waiting": [waiting | more]})

    harmless(answer)
    assert answer.status_code == status
    text = (await plane.client.get(f"/nodes/{UUID}")).text
    if more.get("tried") == ["one", "two", "three", "four"]:
        assert "<dd>one</dd>" not in text
        assert "<dd>two</dd>" in text


@pytest.mark.parametrize("number", [-1, 0, 2**53, 2**53 + 1, 2**63, 2**70, 1.5, "1", None])
async def test_heads_of_any_size_do_no_harm(plane: Plane, number: object) -> None:
    device = await plane.device(writer="a").enroll()
    head = {"epoch": "epoch-1", "lane": "core", "seq": number, "hash": "0" * 64}

    for writer in ("a", "b"):
        device.writer = writer
        harmless(await device.beat(reported={"journal": [head]}))
    device.fact("app-update/1", "new", "offered")
    harmless(await device.ship())
    harmless(await device.begins("epoch-2", why="forked", **{"from": "epoch-1"}).ship())

    assert (await plane.client.get(f"/nodes/{UUID}")).status_code == 200
    assert len(plane.rows("epoch")) == 2
