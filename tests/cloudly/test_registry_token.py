"""The token server of a registry: who gets which token, in the contract's shape, and what attackers get: less."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import find, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from cloudly.balena.registry import MAX_QUERY, PATH
from cloudly.balena.registry_keys import TOKEN_S
from cloudly.balena.registry_scopes import device_may, granted, publisher_may, repository_of
from cloudly.cli.release import apply as set_release
from cloudly.logs import JsonLines
from cloudly.store import publishers
from cloudly.store.publishers import Publisher
from cloudly.store.wanted import NewRelease
from interfaces.desired import UpdatePolicy
from interfaces.world import now_ms
from tests.cloudly.given import DIGEST, UUID, Plane, bearer, code_of, commit_of

pytestmark = pytest.mark.anyio

RECORDED = Path(__file__).parents[1] / "recordings" / "backend" / "first-boot.json"
HOST = "registry.example"
KEY = "5016ddb664b64d5685d6560d4ec35bef"
OTHER_UUID, OTHER_KEY = "d914fb90f7b9400bb7bf8fabf790030d", "canary0other0key0canary0other000"
NOTHING: list[dict[str, Any]] = []


@pytest.fixture
def plane(directory: Path) -> Iterator[Plane]:
    plane = Plane.begin(directory, registry_service=HOST)
    yield plane
    plane.end()


async def register(plane: Plane, uuid: str = UUID, key: str = KEY) -> None:
    answer = await plane.client.post(
        "/device/register", json={"uuid": uuid, "api_key": key}, headers=bearer(plane.join_token())
    )
    assert answer.status_code == 201, answer.text


def order(plane: Plane, version: str, *images: str, node: str = UUID) -> None:
    """A release of these images becomes the node's target."""
    named = {f"s{number}": f"{image}@{DIGEST}" for number, image in enumerate(images)}
    new = NewRelease(commit_of(version), version, named, {})
    plane.store.write_now(lambda db: set_release(db, new, UpdatePolicy(), node, again=False))


def publisher(plane: Plane, name: str = "ci", prefix: str = "") -> tuple[str, str]:
    login = name, f"bpt_canary-{name}-password-0000000000000000"
    new = Publisher(name, prefix, now_ms(plane.world))
    plane.store.write_now(lambda db: publishers.create(db, new, login[1]))
    return login


async def ask(
    plane: Plane, *scopes: str, auth: tuple[str, str] = (f"d_{UUID}", KEY), service: str = HOST
) -> httpx.Response:
    query = {"service": service, "scope": scopes}
    return await plane.client.get(PATH, params=query, auth=auth)


def claims_of(answer: httpx.Response) -> dict[str, Any]:
    """What a registry would read, after it has checked the signature by the certificate in the token."""
    assert answer.status_code == 200, answer.text
    token = answer.json()["token"]
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    certificate = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
    key = ECKey.import_key(
        certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    strict = JWSRegistry(algorithms=["ES256"])
    strict.max_header_length = 2048  # a certificate is in it
    return jwt.decode(token, key, registry=strict).claims


async def access(plane: Plane, *scopes: str, **options: Any) -> Any:
    return claims_of(await ask(plane, *scopes, **options))["access"]


def entry(name: str, *actions: str) -> dict[str, Any]:
    return {"type": "repository", "name": name, "actions": list(actions)}


# -- the contract


@pytest.mark.parametrize("seq", [23, 59])
async def test_the_recorded_request_gets_a_token_that_grants_what_the_recorded_one_granted(
    directory: Path, seq: int
) -> None:
    (row,) = [one for one in json.loads(RECORDED.read_text()) if one["seq"] == seq]
    recorded = json.loads(
        base64.urlsafe_b64decode(row["response"]["body"]["token"].split(".")[1] + "==")
    )
    plane = Plane.begin(directory, registry_service=recorded["aud"])
    await register(plane)
    order(plane, "1", *(f"{recorded['aud']}/{one['name']}" for one in recorded["access"]))

    answer = await plane.client.get(row["request"]["path"], headers=dict(row["request"]["headers"]))

    claims = claims_of(answer)
    assert claims["access"] == recorded["access"]
    assert (claims["aud"], claims["sub"]) == (recorded["aud"], f"d_{UUID}")
    assert set(claims) == set(recorded)
    assert [type(claims[name]) for name in recorded] == [type(one) for one in recorded.values()]
    assert claims["iat"] - claims["nbf"] == recorded["iat"] - recorded["nbf"]
    plane.end()


async def test_the_answer_is_the_contracts_and_is_kept_by_no_cache(plane: Plane) -> None:
    await register(plane)

    answer = await ask(plane)

    body, claims = answer.json(), claims_of(answer)
    assert set(body) == {"token", "access_token", "expires_in"}
    assert (body["access_token"], body["expires_in"]) == (body["token"], TOKEN_S)
    assert claims["exp"] - claims["iat"] == TOKEN_S >= 60  # a client's own minimum
    assert claims["iat"] == now_ms(plane.world) // 1000
    assert answer.headers["cache-control"] == "no-store"


async def test_no_issued_at_because_a_device_would_compare_it_with_its_own_clock(
    plane: Plane,
) -> None:
    await register(plane)
    plane.world.jump(timedelta(days=400))  # Cloudly's clock; the device's stays behind

    assert "issued_at" not in (await ask(plane)).json()


async def test_several_scopes_may_be_asked_for_in_several_parameters_or_in_one(
    plane: Plane,
) -> None:
    await register(plane)
    order(plane, "1", f"{HOST}/shop/web", f"{HOST}/shop/db", f"{HOST}/shop/unasked")
    web, db = "repository:shop/web:pull", "repository:shop/db:pull"
    both = [entry("shop/web", "pull"), entry("shop/db", "pull")]

    assert await access(plane, web, db) == both
    assert await access(plane, f"{web} {db}") == both
    assert await access(plane, web, f"{db} {web}") == both


async def test_each_token_has_an_id_of_its_own(plane: Plane) -> None:
    await register(plane)

    ids = {claims_of(await ask(plane))["jti"] for _ in range(5)}

    assert len(ids) == 5


async def test_post_is_404_and_its_body_is_not_read(plane: Plane) -> None:
    async def never() -> Any:
        raise AssertionError("the body was read")
        yield b""

    answer = await plane.client.post(PATH, content=never())

    assert code_of(answer) == (404, "not-found")


async def test_without_a_registry_there_is_no_route_and_the_answer_says_which_setting(
    directory: Path,
) -> None:
    plane = Plane.begin(directory)
    await register(plane)

    answer = await ask(plane)

    assert code_of(answer) == (404, "not-found")
    assert "CLOUDLY_REGISTRY_SERVICE" in answer.json()["detail"]
    assert not (directory / "registry").exists()
    plane.end()


# -- who may pull what


async def test_what_is_not_in_its_target_is_left_out_of_a_token_that_is_given(
    plane: Plane,
) -> None:
    await register(plane)
    order(plane, "1", f"{HOST}/shop/web", "docker.io/shop/elsewhere", "shop/nowhere")

    asked = [f"repository:shop/{name}:pull" for name in ("web", "elsewhere", "nowhere", "no")]

    assert await access(plane, *asked) == [entry("shop/web", "pull")]


async def test_the_next_token_follows_the_target_and_a_rollback_is_a_target(plane: Plane) -> None:
    token = plane.join_token(uses=2)
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": KEY}, headers=bearer(token)
    )
    device = plane.device()
    await device.ask(token)
    asked = ("repository:app-1:pull", "repository:app-2:pull")
    seen = [await access(plane, *asked)]
    first = plane.release("1", UUID)
    seen.append(await access(plane, *asked))
    await device.tell("app-update/1", "offered", "succeeded", deployment=first)
    second = plane.release("2", UUID)
    seen.append(await access(plane, *asked))
    await device.tell("app-update/2", "offered", "applying", "rollback-needed", deployment=second)
    seen.append(await access(plane, *asked))

    one, two = [entry("app-1", "pull")], [entry("app-2", "pull")]
    assert seen == [NOTHING, one, two, one]


async def test_a_withdrawn_release_is_not_granted_any_more(plane: Plane) -> None:
    token = plane.join_token(uses=2)
    await plane.client.post(
        "/device/register", json={"uuid": UUID, "api_key": KEY}, headers=bearer(token)
    )
    device = plane.device()
    await device.ask(token)
    given_up = plane.release("1", UUID)
    before = await access(plane, "repository:app-1:pull")

    await device.tell("app-update/1", "downloading", "failed", deployment=given_up)

    assert (before, await access(plane, "repository:app-1:pull")) == (
        [entry("app-1", "pull")], NOTHING,
    )  # fmt: skip


async def test_a_device_gets_nothing_of_another_devices_target(plane: Plane) -> None:
    await register(plane)
    await register(plane, OTHER_UUID, OTHER_KEY)
    order(plane, "1", f"{HOST}/shop/web", node=OTHER_UUID)

    assert await access(plane, "repository:shop/web:pull") == NOTHING
    assert await access(plane, "repository:shop/web:pull", auth=(f"d_{OTHER_UUID}", OTHER_KEY)) == [
        entry("shop/web", "pull")
    ]


async def test_a_publisher_pulls_and_pushes_below_its_prefix(plane: Plane) -> None:
    everywhere, team = publisher(plane), publisher(plane, "team", "team")
    asked = [
        f"repository:{name}:pull,push,delete,*" for name in ("team", "team/a/b", "team-x/a", "x")
    ]

    assert await access(plane, *asked, auth=everywhere) == [
        entry(name, "pull", "push") for name in ("team", "team/a/b", "team-x/a", "x")
    ]
    assert await access(plane, *asked, auth=team) == [
        entry(name, "pull", "push") for name in ("team", "team/a/b")
    ]
    assert await access(plane, "registry:catalog:*", auth=everywhere) == NOTHING


# -- who is nobody


@pytest.mark.parametrize(
    ("name", "password"),
    [
        (f"d_{UUID}", OTHER_KEY),  # a key, but another device's
        (f"d_{OTHER_UUID}", KEY),
        (f"d_{UUID}", "x" * 32),
        (f"d_{UUID}", KEY.upper()),
        (f"D_{UUID}", KEY),
        (UUID, KEY),
        ("d_", KEY),
        ("", KEY),
        (f"d_{UUID}", ""),
        ("ci", "x"),
        ("nobody", "bpt_canary-ci-password-0000000000000000"),
        ("ci ", "bpt_canary-ci-password-0000000000000000"),
        (f"d_{UUID}", "bpt_canary-ci-password-0000000000000000"),
        ("ci", KEY),
    ],
)
async def test_wrong_credentials_are_asked_for_again(
    plane: Plane, name: str, password: str
) -> None:
    await register(plane)
    await register(plane, OTHER_UUID, OTHER_KEY)
    publisher(plane)

    answer = await ask(plane, auth=(name, password))

    assert code_of(answer) == (401, "login-unknown")
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Basic", "Basic ", f"Bearer {KEY}", "Basic !!!!", "Basic ZF8=", "Basic gIA6gA==",
        "Basic \u00e4\u00f6", "Basic " + "QUFB" * 1000, "Basic OjpB", "Digest username=x",
    ],
)  # fmt: skip
async def test_what_is_no_login_is_the_same_as_a_wrong_one(
    plane: Plane, header: str | None
) -> None:
    await register(plane)
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}

    answer = await plane.client.get(PATH, params={"service": HOST}, headers=headers)

    assert code_of(answer) == (401, "login-unknown")


async def test_a_revoked_node_gets_no_token_and_a_revoked_publisher_neither(plane: Plane) -> None:
    await register(plane)
    ci = publisher(plane)
    before = [(await ask(plane)).status_code, (await ask(plane, auth=ci)).status_code]

    plane.revoke_node(UUID)
    plane.store.write_now(lambda db: publishers.revoke(db, "ci"))

    assert before == [200, 200]
    assert code_of(await ask(plane)) == (401, "node-revoked")
    assert code_of(await ask(plane, auth=ci)) == (401, "login-unknown")


# -- what an attacker sends


@pytest.mark.parametrize(
    "query",
    [
        "", "service=", "service=other.example", f"service={HOST.upper()}", f"service={HOST}.",
        f"service={HOST}&service=other.example", f"service={HOST}%00", f"service={HOST}%0d%0aX:y",
        f"service=%20{HOST}", "service[]=registry.example", f"Service={HOST}", "scope=service",
    ],
)  # fmt: skip
async def test_a_token_for_another_service_is_not_made(plane: Plane, query: str) -> None:
    await register(plane)

    answer = await plane.client.get(f"{PATH}?{query}", auth=(f"d_{UUID}", KEY))

    assert code_of(answer) == (400, "malformed")
    assert "other.example" not in answer.text


async def test_a_query_has_an_end_and_that_much_is_answered(plane: Plane) -> None:
    await register(plane)
    most = MAX_QUERY - len(f"service={HOST}&scope=")

    fits = await ask(plane, "x" * most)
    too_long = await ask(plane, "x" * (most + 1))
    many = await ask(plane, *(["a"] * (most // 16)))

    assert (fits.status_code, many.status_code) == (200, 200)
    assert code_of(too_long) == (414, "too-large")


ATTACKS = [
    "", " ", ":", "::", "repository", "repository:", "repository:shop/web", "repository:shop/web:",
    "repository::pull", "repository:shop/web:push", "repository:shop/web:*", "repository:*:pull",
    "repository:shop/web:PULL", "repository:Shop/Web:pull", "Repository:shop/web:pull",
    "repository(plugin):shop/web:pull", "registry:catalog:*", "registry:catalog:pull",
    "repository:shop/web/:pull", "repository:/shop/web:pull", "repository:shop//web:pull",
    "repository:shop/./web:pull", "repository:shop/x/../web:pull", "repository:../web:pull",
    "repository:shop%2fweb:pull", "repository:shop%252fweb:pull", "repository:shop\\web:pull",
    "repository:shop/web\x00:pull", "repository:shop/web\n:pull", "repository:shop/web\r\nX: y:pull",
    "repository:shop/web\u200b:pull", "repository:\uff53hop/web:pull", "repository:shop/web:pull\n",
    f"repository:{HOST}/shop/web:pull", f"repository:{HOST}:443/shop/web:pull",
    "repository:shop/web@sha256:pull", "repository:shop/web:latest:pull", "repository:shop:web:pull",
    "repository:shop/we:pull", "repository:shop:pull", "repository:shop/web/x:pull",
    "repository:" + "a/" * 2000 + "a:pull", "repository:" + "a-" * 2000 + ":pull",
]  # fmt: skip


@pytest.mark.parametrize("scope", ATTACKS)
async def test_a_crooked_scope_grants_nothing_and_is_no_error(plane: Plane, scope: str) -> None:
    await register(plane)
    order(plane, "1", f"{HOST}/shop/web")

    answer = await ask(plane, scope)

    assert claims_of(answer)["access"] == NOTHING
    assert "\r" not in str(answer.headers)


async def test_more_than_pull_is_cut_down_to_pull(plane: Plane) -> None:
    await register(plane)
    order(plane, "1", f"{HOST}/shop/web")

    for actions in ("pull,push", "push,pull,delete,*", "pull,pull", ",pull,", "*,pull"):
        assert await access(plane, f"repository:shop/web:{actions}") == [entry("shop/web", "pull")]


NAMES = ("shop/web", "shop/db", "a")
PIECES = st.sampled_from(
    [*NAMES, "repository", "registry", "catalog", ":", ",", "pull", "push", "*", "delete", "/", " ", "..", "%2f", HOST]
)  # fmt: skip


WELL_FORMED = st.builds(
    "{}:{}:{}".format,
    st.sampled_from(["repository", "registry", "repository(plugin)"]),
    st.sampled_from([*NAMES, "catalog", "shop", "shop/web/x", f"{HOST}/a"]),
    st.lists(st.sampled_from(["pull", "push", "*", "delete", ""])).map(",".join),
)
ASKED = st.lists(st.one_of(st.text(), st.lists(PIECES).map("".join), WELL_FORMED), max_size=8)
IMAGES = [f"{HOST}/shop/web@{DIGEST}", f"{HOST}/a:1", "other.example/shop/db"]


@given(ASKED)
@settings(max_examples=300)
def test_whatever_is_asked_a_device_gets_only_pull_on_what_its_target_names(
    asked: list[str],
) -> None:
    got = granted(asked, device_may(IMAGES, HOST))

    assert [one for one in got if one["name"] not in {"shop/web", "a"}] == []
    assert all((one["type"], one["actions"]) == ("repository", ["pull"]) for one in got)
    assert len({one["name"] for one in got}) == len(got)
    for one in got:  # and only what was asked for, in so many words
        assert any(f"repository:{one['name']}:" in text and "pull" in text for text in asked)


@given(ASKED)
def test_whatever_is_asked_a_publisher_gets_only_pull_and_push_below_its_prefix(
    asked: list[str],
) -> None:
    got = granted(asked, publisher_may("shop"))

    assert all(one["name"] == "shop" or one["name"].startswith("shop/") for one in got)
    assert all(set(one["actions"]) <= {"pull", "push"} and one["actions"] for one in got)


def test_and_that_search_does_meet_scopes_that_are_granted() -> None:
    may = device_may(IMAGES, HOST)

    thorough = settings(max_examples=20_000, derandomize=True)  # the same search at each run
    both = find(ASKED, lambda asked: len(granted(asked, may)) == 2, settings=thorough)

    assert {entry["name"] for entry in granted(both, may)} == {"shop/web", "a"}


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        (f"{HOST}/shop/web@{DIGEST}", "shop/web"),
        (f"{HOST}/shop/web:1.2@{DIGEST}", "shop/web"),
        (f"{HOST}/web:latest", "web"),
        (f"{HOST}/web", "web"),
        (f"{HOST}:5000/web", None),
        (f"{HOST.upper()}/web", None),
        (f"x.{HOST}/web", None),
        (f"{HOST}.evil.example/web", None),
        (f"{HOST}@evil.example/web", None),
        (f"evil.example/{HOST}/web", None),
        (f"{HOST}/", None),
        (f"{HOST}/../web", None),
        (f"{HOST}/Web", None),
        ("shop/web", None),
        ("web", None),
        ("", None),
    ],
)
def test_an_images_repository_is_its_name_on_this_registry(
    image: str, repository: str | None
) -> None:
    assert repository_of(image, HOST) == repository


# -- secrets


async def test_no_password_key_or_token_is_in_a_log_an_answer_or_the_database(plane: Plane) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's, which logs addresses
    try:
        await register(plane)
        ci = publisher(plane)
        given_out = [await ask(plane, "repository:x:pull"), await ask(plane, auth=ci)]
        refused = [
            await ask(plane, auth=("ci", KEY)),
            await ask(plane, auth=(f"d_{UUID}", ci[1])),
            await ask(plane, service=KEY),
            await ask(plane, ci[1] * 300),
            await plane.client.post(PATH, data={"password": ci[1], "username": ci[0]}),
            await plane.client.get("/"),
        ]
    finally:
        root.handlers[:] = others
        root.setLevel(level)
        logging.getLogger("httpx").setLevel(logging.NOTSET)

    logged = written.getvalue()
    stored = b"".join(one.read_bytes() for one in plane.directory.iterdir() if one.is_file())
    kept = json.loads((plane.directory / "registry" / "keys.json").read_text())
    private = "".join(kept["signing"]["key"].splitlines()[1:3])
    signatures = [one.json()["token"].split(".")[2] for one in given_out]
    assert "nothing of what was asked" in logged  # something was logged
    assert all(one.status_code >= 400 for one in refused[:5])
    for secret in (KEY, ci[1], private, *signatures):
        assert secret not in logged
        assert secret.encode() not in stored
        assert not any(secret in one.text + str(one.headers) for one in refused)
    for secret in (KEY, ci[1], private):
        assert not any(secret in one.text + str(one.headers) for one in given_out)
