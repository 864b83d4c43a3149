"""The admin API under hostile input: no 5xx, nothing echoed, no secret where it does not belong."""

from __future__ import annotations

import io
import json
import logging
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloudly.http.api.app import build
from cloudly.logs import JsonLines
from tests.cloudly.api_given import NOBODY, operator, requests, routes
from tests.cloudly.compose_files import file_of
from tests.cloudly.given import UUID, Plane, bearer, code_of
from tests.cloudly.test_secrets_and_logs import forms

pytestmark = [pytest.mark.anyio, pytest.mark.both_engines]

CANARY = "canary-7f3a9c1e5b"
ODD = [
    "", " ", "\x00", "a\x00b", "\n", "../..", "%", "'", '"', "\\", "\u202e", "\U0001f4a5", "x" * 5000,
    "-1", "1e309", "NaN", "null", "[]", "{}", str(2**63), str(2**64), "0", "true",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(ODD),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)


@cache
def document() -> dict[str, Any]:
    """What the API says of itself; it takes a second to make."""
    return build().openapi()


def described() -> list[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation, as the API describes itself."""
    return [
        (path, method, operation)
        for path, item in document()["paths"].items()
        for method, operation in item.items()
    ]


def fields_of(operation: dict[str, Any]) -> list[str]:
    """Of the body that an operation takes."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return []
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema = document()["components"]["schemas"][name]
    return list(schema["properties"])


def asked(operation: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A request to an operation, with its own names and anybody's values."""
    odd = st.sampled_from(ODD) | st.text(max_size=30)
    names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    fields = fields_of(operation)
    body = (
        st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)) if fields else st.nothing()
    )
    return st.fixed_dictionaries(
        {
            "query": st.fixed_dictionaries({}, optional=dict.fromkeys(names, odd)),
            "body": body | JSON | st.binary(max_size=100),
            "path": st.fixed_dictionaries({name: st.just(NOBODY[name]) | odd for name in NOBODY}),
            "kind": st.sampled_from(["application/json", "application/yaml", "text/plain", ""]),
        }
    )


def raw(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "replace")


def quoted(path: str, values: dict[str, str]) -> str:
    from urllib.parse import quote

    return path.format(**{name: quote(value, safe="") or "-" for name, value in values.items()})


@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [pytest.param(*one, id=one[2]["operationId"]) for one in described()],
)
async def test_whatever_comes_the_answer_is_one_that_the_api_describes(
    plane: Plane, path: str, method: str, operation: dict[str, Any]
) -> None:
    await plane.device().enroll()
    who = operator(plane)
    drawn: list[dict[str, Any]] = []

    @settings(
        max_examples=25, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(asked(operation))
    def draw(one: dict[str, Any]) -> None:
        drawn.append(one)

    draw()

    for one in drawn:
        answer = await who(
            method.upper(),
            quoted(path, one["path"]),
            params=one["query"],
            content=None if method == "get" else raw(one["body"]),
            headers={"content-type": one["kind"]} if one["kind"] else {},
        )
        known = operation["responses"]
        assert str(answer.status_code) in known, (one, answer.text)
        assert answer.is_success or answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("odd", ["a\x00b", "\x00", "\u202e", "x" * 300])
async def test_no_text_reaches_the_database_that_it_cannot_take(plane: Plane, odd: str) -> None:
    who = operator(plane)
    bodies = {
        "/fleets": {"name": odd},
        "/join-tokens": {"name": odd + "\n"},
        "/publishers": {"name": odd},
        "/api-tokens": {"name": odd, "role": "viewer"},
        "/channels": {"name": odd},
        "/bans": {"what": odd + " ", "reason": "x"},
        "/rollouts": {"release": "1", "plan": {"phases": [{"name": odd, "count": 1}]}},
        "/rollouts/dry-run": {"release": odd + " "},
    }

    answers = [await who("POST", path, json=body) for path, body in bodies.items()]
    answers.append(await who("POST", "/releases", params={"version": odd + " "}, content=file_of()))
    answers.append(await who("GET", "/nodes", params={"search": odd + "\x00"}))

    assert [code_of(one) for one in answers] == [(422, "malformed")] * 10


async def test_nothing_of_what_was_sent_comes_back_in_a_refusal(plane: Plane) -> None:
    await plane.device().enroll()
    who = operator(plane)
    sent: list[Any] = [
        {CANARY: 1},
        {"name": CANARY + "\n"},
        {"name": [CANARY]},
        {"role": CANARY},
        {"fleet": CANARY},
        {"release": CANARY},
        {"release": "1", "policy": {CANARY: CANARY}},
        {"release": CANARY, "plan": {"selector": f"{CANARY}=1"}},
        {"release": "1", "plan": {"phases": [{"name": f"{CANARY} "}]}},
        {"what": CANARY, "reason": CANARY},
        {"what": f"sha256:{CANARY}", "reason": "x"},
        {"channel": CANARY},
        {"reason": f"\u202e{CANARY}"},
        {"note": [CANARY]},
        [CANARY],
        CANARY,
    ]
    seen = 0

    for route in routes():
        for method, path in requests(route):
            for place in (path.replace("nowhere", CANARY).replace("nobody", CANARY), path):
                for body in sent if method != "GET" else [None]:
                    answer = await who(
                        method,
                        place.replace(NOBODY["release"], CANARY),
                        json=body,
                        params={"after": CANARY + "!", "limit": CANARY, "version": CANARY + " "},
                    )
                    if answer.status_code >= 400:
                        seen += 1
                        assert CANARY not in answer.text, (method, path, body)
                        assert CANARY not in str(answer.headers)

    assert seen > 100


async def test_a_half_json_and_a_deep_one_are_refused(plane: Plane) -> None:
    who = operator(plane)
    kind = {"content-type": "application/json"}
    bodies = [
        b"{",
        b"[" * 100_000,
        b'{"name": "\\ud800"}',
        b"\xff\xfe",
        b'{"name":1e999}',
        b"",
        b'{"uses":9' + b"9" * 5000 + b"}",
    ]

    for body in bodies:
        for path in ("/fleets", "/api-tokens", "/publishers"):
            answer = await who("POST", path, content=body, headers=kind)
            assert code_of(answer)[0] in {400, 422}, body[:20]
            assert code_of(answer)[1] == "malformed"


async def test_a_gzip_bomb_is_refused(plane: Plane) -> None:
    import gzip

    bomb = gzip.compress(b"x" * 50_000_000)

    answer = await operator(plane)(
        "POST", "/releases/check", content=bomb, headers={"content-encoding": "gzip"}
    )

    assert code_of(answer) == (413, "too-large")


async def test_an_unknown_address_and_method_are_problems_too(plane: Plane) -> None:
    who = operator(plane)

    answers = [
        await who("GET", "/nowhere"),
        await who("GET", ""),
        await who("GET", "/fleets/"),
        await who("PATCH", "/fleets"),
        await who("GET", "/docs"),
    ]

    assert [code_of(one)[0] for one in answers] == [404, 404, 404, 405, 404]


async def test_what_devices_say_is_shown_as_it_is_and_breaks_nothing(plane: Plane) -> None:
    device = await plane.device(hostname="<script>\u202e\U0001f4a5").enroll()
    who = operator(plane)
    device.fact("app-update/1", "<b>", "\u202e", why=float("nan"), half="\ud800", big=10**30)
    await device.ship()
    waits = {
        "stream": "<i>",
        "state": "\x00",
        "waits_for": "\u202e",
        "owner": "us",
        "tried": ["<u>"],
    }
    waiting = [waits | {"since_ms": -(10**30), "until_ms": 10**30}]
    assert (await device.beat(reported={"waiting": waiting, "temperature_c": 1e308})).is_success

    answers = [
        await who("GET", f"/nodes/{UUID}{rest}")
        for rest in ("", "/journal", "/transitions", "/gaps", "/journal/export", "/diagnoses")
    ]

    assert [one.status_code for one in answers] == [200] * 6
    assert answers[0].json()["why"][0]["tried"] == ["<u>"]
    assert answers[0].json()["hostname"] == "<script>\u202e\U0001f4a5"


async def test_secrets_are_in_the_answers_that_make_them_and_nowhere_else(plane: Plane) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    root.handlers[:], level_now = [handler], logging.DEBUG
    root.setLevel(level_now)
    try:
        who = operator(plane)
        join = (await who.does("POST", "/join-tokens", {"uses": 5}))["token"]
        api = (await who.does("POST", "/api-tokens", {"name": "ci", "role": "viewer"}))["token"]
        password = (await who.does("POST", "/publishers", {"name": "ci"}))["password"]
        device = plane.device()
        await device.ask(join)
        await device.beat()
        await plane.client.get("/api/v1/self", headers=bearer(api[:-1]))
        answers = [
            await who(method, path.replace(NOBODY["token"], "1"))
            for route in routes()
            for method, path in requests(route)
            if method == "GET"
        ]
    finally:
        root.handlers[:] = others
        root.setLevel(level)

    logged, stored = written.getvalue().encode(), plane.at_rest()
    assert b"API order" in logged
    assert sum(one.status_code == 200 for one in answers) > 10
    for secret in (join, api, password, who.token, device.token, device.secret):
        for form in forms(secret):
            assert form not in logged
            assert form not in stored
            assert not any(form in one.content for one in answers)
