"""A real registry (distribution, as Debian has it) believes Cloudly's tokens, and only those; real processes."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from cloudly.balena.registry_keys import open_keys
from interfaces.world import RealWorld, now_ms
from tests.cloudly.real_registry import Image, Lab, Login

pytestmark = pytest.mark.slow

Forgery = tuple[dict[str, Any], Callable[[bytes], bytes]]
WEB, OTHER = Image(b"the first layer of web"), Image(b"something else")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A registry with two images in two repositories, pushed by a publisher."""
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        ci = lab.publisher("ci")
        assert ci.push("shop/web", WEB).status_code == 201
        assert ci.push("shop/other", OTHER).status_code == 201
        yield lab


@pytest.fixture
def device(lab: Lab) -> Login:
    """A device whose target names `shop/web`."""
    device = lab.device()
    lab.order(device, "shop/web", WEB)
    return device


def test_a_device_pulls_what_its_target_names(device: Login) -> None:
    assert device.pull("shop/web", WEB) == 200


def test_a_repository_that_is_not_in_its_target_is_denied(lab: Lab, device: Login) -> None:
    assert device.pull("shop/other", OTHER) == 401
    assert lab.publisher("someone").pull("shop/other", OTHER) == 200  # it is there


def test_a_device_without_a_target_is_denied_what_another_may_pull(lab: Lab, device: Login) -> None:
    assert lab.device().pull("shop/web", WEB) == 401
    assert device.pull("shop/web", WEB) == 200


def test_after_its_release_was_changed_the_former_is_denied_and_the_new_is_not(
    lab: Lab, device: Login
) -> None:
    assert device.pull("shop/web", WEB) == 200

    lab.order(device, "shop/other", OTHER)

    assert (device.pull("shop/web", WEB), device.pull("shop/other", OTHER)) == (401, 200)


def test_a_device_pushes_nothing_not_even_where_it_pulls(device: Login) -> None:
    assert device.push("shop/web", Image(b"malice")).status_code == 401
    assert device.ask("DELETE", "/v2/shop/web/manifests/sha256:" + "0" * 64).status_code == 401


def test_a_revoked_node_gets_no_new_token_from_that_moment(lab: Lab, device: Login) -> None:
    assert device.pull("shop/web", WEB) == 200

    lab.cli("node", "revoke", device.auth[0][2:])

    assert device.pull("shop/web", WEB) == 401
    assert (device.dances[-1].status_code, device.dances[-1].json()["code"]) == (
        401,
        "node-revoked",
    )


def test_nobody_lists_the_catalog(lab: Lab, device: Login) -> None:
    lists = [login.ask("GET", "/v2/_catalog") for login in (device, lab.publisher("lister"))]

    assert [answer.status_code for answer in lists] == [401, 401]


def test_a_publisher_pushes_below_its_prefix_and_until_it_is_revoked(lab: Lab) -> None:
    team = lab.publisher("team", "--prefix", "team")

    statuses = [
        team.push(name, OTHER).status_code for name in ("team/app", "team-evil/app", "shop/web")
    ]
    lab.cli("registry", "publisher", "revoke", "team")

    assert statuses == [201, 401, 401]
    assert team.push("team/app", WEB).status_code == 401
    assert team.dances[-1].status_code == 401


def test_a_token_is_good_on_its_own_registry_and_in_its_own_time_only(lab: Lab) -> None:
    now = now_ms(RealWorld()) // 1000

    def pull(**claims: Any) -> int:
        return lab.login().pull("shop/web", WEB, lab.forged("shop/web", **claims))

    assert pull() == 200
    assert pull(exp=now - 30) == 200  # distribution's own leeway of a minute
    assert pull(exp=now - 90) == 401
    assert pull(nbf=now + 90) == 401
    assert pull(aud="another.example") == 401
    assert pull(iss="another") == 401


def test_a_token_signed_by_another_key_is_refused(lab: Lab, tmp_path: Path) -> None:
    token = lab.forged("shop/web", by=tmp_path)

    assert lab.login().pull("shop/web", WEB, token) == 401
    assert any("certificate signed by unknown authority" in line for line in lab.registry.said)


def confusions(certificate: str, mine: ec.EllipticCurvePrivateKey) -> dict[str, Forgery]:
    """Headers and signatures of an attacker who has only what every token shows, and a key of its own."""
    theirs = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    pem = theirs.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    x5c = ["".join(certificate.splitlines()[1:-1])]
    jwk = ECKey.import_key(
        mine.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )

    def signed(text: bytes) -> bytes:
        return b"".join(
            part.to_bytes(32, "big")
            for part in decode_dss_signature(mine.sign(text, ec.ECDSA(hashes.SHA256())))
        )

    def shared(secret: bytes) -> Callable[[bytes], bytes]:
        return lambda text: hmac.digest(secret, text, "sha256")

    return {
        "another key behind our certificate": ({"alg": "ES256", "x5c": x5c}, signed),
        "a key of its own, shown": ({"alg": "ES256", "jwk": jwk.as_dict(private=False)}, signed),
        "our key id": ({"alg": "ES256", "kid": ECKey.import_key(pem).thumbprint()}, signed),
        "our certificate as a secret": ({"alg": "HS256", "x5c": x5c}, shared(certificate.encode())),
        "our public key as a secret": ({"alg": "HS256", "x5c": x5c}, shared(pem)),
        "no signature": ({"alg": "none", "x5c": x5c}, lambda _text: b""),
        "nothing but claims": ({"alg": "none"}, lambda _text: b""),
    }


def test_confusing_the_registry_about_algorithm_or_key_does_not_help(lab: Lab) -> None:
    good = lab.forged("shop/web")
    payload = good.split(".")[1]
    certificate = open_keys(lab.data, RealWorld()).signing.certificate
    mine = ec.generate_private_key(ec.SECP256R1())

    outcomes = {}
    for name, (header, sign) in confusions(certificate, mine).items():
        text = f"{url64(json.dumps(header | {'typ': 'JWT'}).encode())}.{payload}"
        token = f"{text}.{url64(sign(text.encode()))}"
        outcomes[name] = lab.login().pull("shop/web", WEB, token)

    assert lab.login().pull("shop/web", WEB, good) == 200
    assert set(outcomes.values()) == {401}, outcomes


def url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_turned_key_is_believed_without_a_restart_and_the_former_until_its_tokens_end(
    tmp_path: Path,
) -> None:
    with Lab(tmp_path) as lab:
        ci = lab.publisher("ci")
        ci.push("shop/web", WEB)
        old = lab.forged("shop/web")

        lab.cli("registry", "rotate-key")
        new = lab.forged("shop/web")
        before_a_restart = [ci.pull("shop/web", WEB, token) for token in (old, new)]
        dance = ci.pull("shop/web", WEB)
        lab.registry.end()
        lab.start_registry()
        after_it = [ci.pull("shop/web", WEB, token) for token in (old, new)]

        lab.cli("registry", "rotate-key", "--at-once")
        leaked = [ci.pull("shop/web", WEB, token) for token in (old, new)]
        unknown_yet = ci.pull("shop/web", WEB)
        lab.registry.end()
        lab.start_registry()
        distrusted = [ci.pull("shop/web", WEB, token) for token in (old, new)]
        trusted = ci.pull("shop/web", WEB)

    assert old.split(".")[0] != new.split(".")[0]
    assert (before_a_restart, dance, after_it) == ([200, 200], 200, [200, 200])
    assert (leaked, unknown_yet) == (
        [200, 200],
        401,
    )  # the registry reads its bundle when it starts
    assert (distrusted, trusted) == ([401, 401], 200)


def test_no_credential_is_in_any_log(lab: Lab, device: Login) -> None:
    ci = lab.publisher("canary")
    assert (device.pull("shop/web", WEB), ci.pull("shop/web", WEB)) == (200, 200)
    lab.login(device.auth[0], "wrong-" + device.auth[1]).pull("shop/web", WEB)

    said = "".join(lab.cloudly.said + lab.registry.said)

    tokens = [answer.json()["token"] for answer in device.dances + ci.dances]
    assert len(tokens) >= 2
    assert (
        device.auth[0] in said or "shop/web" in said
    )  # the search works where it must find something
    for login in (device, ci):
        plain = ":".join(login.auth)
        for form in (login.auth[1], base64.b64encode(plain.encode()).decode()[:-4]):
            assert form not in said
    assert not [token for token in tokens if token.split(".")[2] in said]


def test_the_registry_asks_for_a_token_where_cloudly_has_its_route(lab: Lab) -> None:
    challenge = httpx.get(f"http://{lab.service}/v2/").headers["www-authenticate"]

    assert challenge == f'Bearer realm="{lab.cloudly.found}/auth/v1/token",service="{lab.service}"'
