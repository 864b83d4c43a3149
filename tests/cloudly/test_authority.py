"""Who may do what: every route is in this table, and a route without an entry fails."""

from __future__ import annotations

import pytest
from starlette.routing import Route

from tests.cloudly.given import UUID, Plane, bearer

pytestmark = pytest.mark.anyio

# Route: (who may, example path). `anyone` on this machine: the page has no login yet.
# fmt: off
TABLE = {
    ("POST",  "/baseos/v1/nodes/register"):  ("join token", "/baseos/v1/nodes/register"),
    ("POST",  "/baseos/v1/nodes/heartbeat"): ("node token", "/baseos/v1/nodes/heartbeat"),
    ("POST",  "/baseos/v1/nodes/journal"):   ("node token", "/baseos/v1/nodes/journal"),
    ("POST",  "/device/register"):           ("join token", "/device/register"),
    ("PATCH", "/device/v3/state"):           ("device key", "/device/v3/state"),
    ("GET",   "/device/v3/{uuid}/state"):    ("device key", f"/device/v3/{UUID}/state"),
    ("GET",   "/v7/device"):                 ("device key or join token", f"/v7/device?$filter=uuid%20eq%20'{UUID}'"),
    ("POST",  "/api-key/device/{device}/device-key"): ("join token", "/api-key/device/1/device-key"),
    ("POST",  "/v7/device_config_variable"): ("device key", "/v7/device_config_variable"),
    ("PATCH", "/v7/device({device})"):       ("device key", "/v7/device(1)"),
    ("GET",   "/v7/device_tag"):             ("device key", "/v7/device_tag?$filter=device%20eq%201"),
    ("PATCH", "/device/v3/tags"):            ("device key", "/device/v3/tags"),
    ("POST",  "/device/v2/{uuid}/log-stream"): ("a stream", ""),
    ("GET",   "/connectivity-check"):        ("anyone",     "/connectivity-check"),
    ("GET",   "/os/v1/config"):              ("anyone",     "/os/v1/config"),
    ("GET",   "/nodes/{node_id}/logs"):      ("anyone",     f"/nodes/{UUID}/logs"),
    ("GET",   "/nodes/{node_id}/logs/live"): ("anyone",     ""),
    ("GET",   "/auth/v1/token"):             ("a login",    ""),
    ("POST",  "/auth/v1/token"):             ("a login",    ""),
    ("GET",   "/healthz"):                   ("anyone",     "/healthz"),
    ("POST",  "/baseos/v1/nodes/token"):     ("node token", "/baseos/v1/nodes/token"),
    ("GET",   "/readyz"):                    ("anyone",     "/readyz"),
    ("GET",   "/metrics"):                   ("anyone",     "/metrics"),
    ("GET",   "/"):                          ("anyone",     "/"),
    ("GET",   "/live"):                      ("anyone",     ""),
    ("GET",   "/nodes/{node_id}"):           ("anyone",     f"/nodes/{UUID}"),
    ("GET",   "/nodes/{node_id}/live"):      ("anyone",     ""),
    ("GET",   "/static/{name:path}"):        ("anyone",     "/static/app.css"),
}
# fmt: on
ELSEWHERE = {"anyone", "a login", "a stream"}
WITH_CREDENTIAL = [key for key, (who, _) in TABLE.items() if who not in ELSEWHERE]
"""A login (name and password, for the registry) and a stream (held until its key is known) have their own stories."""


async def test_every_route_is_in_the_table(plane: Plane) -> None:
    routes = {
        (method, route.path)
        for route in plane.app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    others = [route for route in plane.app.routes if not isinstance(route, Route)]
    assert [getattr(route, "path", "") for route in others] == [
        "/api/v1"
    ]  # test_api_access asks at each of its doors
    assert routes == set(TABLE)


@pytest.mark.parametrize("key", WITH_CREDENTIAL, ids=" ".join)
async def test_without_the_right_credential_nobody_gets_in(
    plane: Plane, key: tuple[str, str]
) -> None:
    who, path = TABLE[key]
    join_token = plane.join_token(uses=9)
    device = plane.device()
    await device.ask(join_token)
    device_key = "k" * 32
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": device_key}, headers=bearer(join_token)
    )
    credentials = {
        "join token": join_token,
        "node token": device.token,
        "device key": device_key,
        "none": "",
    }

    for name, credential in credentials.items():
        answer = await plane.client.request(key[0], path, content=b"{", headers=bearer(credential))

        problem = answer.headers["content-type"] == "application/problem+json"
        turned_away = problem and answer.json()["code"] in {"token-unknown", "node-unknown"}
        assert turned_away == (name not in who), (name, answer.text)
        assert not turned_away or answer.status_code == 401


async def test_a_refusal_looks_the_same_whether_the_node_exists_or_not(plane: Plane) -> None:
    await plane.device().enroll()
    stranger = plane.device("stranger")
    known = plane.device()
    known.token = stranger.token = "bnt_" + "x" * 43

    answers = [await one.beat() for one in (known, stranger)]
    tokens = [await one.ask("bjt_" + "x" * 43) for one in (known, stranger)]

    assert len({(one.status_code, one.content, tuple(one.headers)) for one in answers}) == 1
    assert len({(one.status_code, one.content, tuple(one.headers)) for one in tokens}) == 1


async def test_health_is_open_and_says_nothing(plane: Plane) -> None:
    answer = await plane.client.get("/healthz")

    assert (answer.status_code, answer.text) == (200, "OK")
