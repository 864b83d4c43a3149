"""A config.json made Cloudly's, without any disk: what changes, what stays, what is refused, what is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from cloudly.image.check import Expected, examine
from cloudly.image.config_json import Wanted, parse, plan, rendered
from cloudly.image.masking import fingerprint, masked
from cloudly.problems import BadOrder
from cloudly.tls import authority
from simulators.world import MORNING, SimWorld

URL = "https://cloudly.example:8443"
TOKEN = "bjt_canary-canary-canary-canary-canary-canary-12"
CA = authority.make_authority(["cloudly.example"], SimWorld(7)).certificate
PEM = CA.public_bytes(serialization.Encoding.PEM)
WANTED = Wanted(url=URL, join_token=TOKEN, application_id=3, root_ca=PEM, device_type="pi")
BALENA = {
    "apiEndpoint": "https://api.balena.example",
    "vpnEndpoint": "vpn.balena.example",
    "vpnPort": 443,
    "registryEndpoint": "registry.balena.example",
    "deltaEndpoint": "https://delta.balena.example",
    "mixpanelToken": "0123456789",
    "userId": 7,
    "username": "somebody",
    "apiKey": "another-backends-key",
    "deviceType": "pi",
}


def test_a_fresh_file_says_all_that_supervisor_host_and_agent_need() -> None:
    made = plan({"deviceType": "pi"}, WANTED)

    assert made.after == {
        "deviceType": "pi",
        "apiEndpoint": URL,
        "logsEndpoint": URL,
        "apiKey": TOKEN,
        "applicationId": 3,
        "appUpdatePollInterval": 900_000,
        "listenPort": 48484,
        "BASEOS_CLOUDLY_URL": URL,
        "BASEOS_JOIN_TOKEN": TOKEN,
        "balenaRootCA": base64.b64encode(PEM).decode(),
    }
    assert made.removed == ()
    assert parse(rendered(made.after), "it") == made.after


def test_what_cloudly_does_not_know_stays() -> None:
    own = {
        "wifiSsid": "kitchen",
        "wifiKey": "secret",
        "os": {
            "sshKeys": ["ssh-ed25519 AAAA"],
            "network": {"wifi": {"randomMacAddressScan": False}},
        },
        "hostname": "mine",
        "developmentMode": True,
        "ntpServers": "a b",
        "x": [1, None, {"y": "ü"}],
    }

    made = plan(own, WANTED)

    assert {key: made.after[key] for key in own} == own
    assert list(made.after)[: len(own)] == list(own)


def test_what_is_chosen_is_written_and_what_is_not_stays() -> None:
    chosen = replace(
        WANTED, hostname="new", device_name="kitchen 7", persistent_logging=True,
        development_mode=False, registry="r.example", poll_ms=60_000, listen_port=48485,
    )  # fmt: skip

    after = plan({"developmentMode": True, "persistentLogging": False}, chosen).after

    assert after["hostname"] == "new"
    assert after["initialDeviceName"] == "kitchen 7"
    assert after["persistentLogging"] is True
    assert after["developmentMode"] is False
    assert after["registryEndpoint"] == "r.example"
    assert (after["appUpdatePollInterval"], after["listenPort"]) == (60_000, 48485)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (BALENA, "it belongs to another backend, at api.balena.example"),
        ({"apiEndpoint": 5}, "another backend, at an address that is none"),
        ({"apiEndpoint": "https://me:canary@x.example"}, "another backend, at x.example"),
        ({"apiEndpoint": URL + "/"}, "another backend, at cloudly.example"),
        ({"apiEndpoint": URL, "deviceApiKey": "canary"}, "registered .deviceApiKey."),
        ({"apiEndpoint": URL, "deviceApiKeys": {"a": "canary"}}, "registered .deviceApiKeys."),
        ({"deviceId": 5, "registered_at": 7}, "registered .deviceId, registered_at."),
    ],
)
def test_what_is_anothers_is_not_taken_without_being_told_to(before: Any, says: str) -> None:
    with pytest.raises(BadOrder, match=says) as found:
        plan(before, WANTED)

    assert "Nothing was changed" in str(found.value)
    assert "canary" not in str(found.value)


def test_replacing_makes_it_a_new_device_without_a_trace_of_the_other_backend() -> None:
    registered = BALENA | {
        "uuid": "ab" * 16, "deviceApiKey": "k", "deviceApiKeys": {"h": "k"}, "deviceId": 5,
        "registered_at": 7, "wifiKey": "w",
    }  # fmt: skip

    made = plan(registered, WANTED, replace=True)
    kept = plan(registered, WANTED, replace=True, keep_uuid=True)

    assert set(made.after) == {*WANTED.values(), "wifiKey"}
    assert "balena.example" not in json.dumps(made.after)
    assert kept.after["uuid"] == "ab" * 16
    assert "deviceApiKey" not in kept.after


def test_doing_it_again_with_a_fresh_token_changes_the_token_alone() -> None:
    once = plan({"deviceType": "pi"}, WANTED).after

    again = plan(once, replace(WANTED, join_token=TOKEN[:-1] + "3"))

    assert set(again.written) == {"apiKey", "BASEOS_JOIN_TOKEN"}
    assert plan(once, WANTED).written == {}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is no JSON: it is empty"),
        (b'{"apiKey": "canary"', "is no JSON: .* at line 1, column 20"),
        (b'{"apiKey": "canary"} x', "is no JSON: Extra data"),
        (b"[1]", "holds no JSON object"),
        (b'"canary"', "holds no JSON object"),
        (b'{"a": "\xff canary"}', "is no text: byte 7 is not UTF-8"),
        (b'{"canary": 1, "canary": 2}', "has the key canary twice"),
        (b"[" * 100_000, "nested too deeply|is no JSON"),
        (b'{"a":"' + b"x" * 1_100_000 + b'"}', "bytes: that is no config.json"),
        ("{}".encode("utf-16"), "is no text"),
    ],
)
def test_what_is_no_config_json_is_refused_at_its_place(raw: bytes, says: str) -> None:
    with pytest.raises(BadOrder, match=says) as found:
        parse(raw, "config.json")

    assert '"canary"' not in str(found.value)


def test_a_byte_order_mark_of_an_editor_is_taken() -> None:
    assert parse(b"\xef\xbb\xbf" + b'{"a": 1}', "it") == {"a": 1}


def test_nothing_that_lets_somebody_in_is_shown_wherever_it_lies() -> None:
    config = plan({"deviceType": "pi"}, WANTED).after | {
        "wifiKey": "canary1",
        "deviceApiKeys": {"api.example": "canary2"},
        "someone": {"accessToken": ["canary3", {"deep": "canary4"}], "password": 12345},
        "note": f"my token is {TOKEN}",
        "files": {"network/x": "[wifi-security]"},
        "os": {"sshKeys": ["ssh-ed25519 AAAA"]},
        "registered": True,
    }

    shown = masked(config)

    text = json.dumps(shown)
    assert not [word for word in ("canary", "12345", TOKEN, "BEGIN") if word in text]
    assert shown["apiKey"] == f"(hidden, fingerprint {fingerprint(TOKEN)})"
    assert shown["wifiKey"] == "(hidden)"
    assert shown["os"] == {"sshKeys": ["ssh-ed25519 AAAA"]}
    assert shown["balenaRootCA"].startswith("(certificate until 2046-")
    assert set(shown) == set(config)


# -- checking

EXPECTED = Expected(url=URL, root_ca=CA, token_trouble=lambda _: "", device_type="pi", now=MORNING)


def bad(config: dict[str, Any], expected: Expected = EXPECTED) -> dict[str, str]:
    return {one.what: one.seen for one in examine(config, expected) if one.verdict == "bad"}


def right() -> dict[str, Any]:
    return plan({"deviceType": "pi"}, WANTED).after


def test_what_was_configured_is_right() -> None:
    assert bad(right()) == {}
    assert {one.verdict for one in examine(right(), EXPECTED)} == {"ok"}


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: {name: value for name, value in config.items() if name != key}


def having(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: config | values


OTHER_CA = authority.make_authority(["cloudly.example"], SimWorld(8)).certificate
OTHER_PEM = base64.b64encode(OTHER_CA.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.mark.parametrize(
    ("spoil", "key", "says"),
    [
        (without("apiEndpoint"), "apiEndpoint", "nobody's"),
        (having(apiEndpoint="https://u:canary@other.example"), "apiEndpoint", "other.example, not"),
        (having(logsEndpoint="http://cloudly.example"), "logsEndpoint", "crash at each boot"),
        (without("balenaRootCA"), "balenaRootCA", "would not trust Cloudly"),
        (having(balenaRootCA="canary"), "balenaRootCA", "no certificate"),
        (having(balenaRootCA=OTHER_PEM), "balenaRootCA", "another CA"),
        (without("apiKey"), "apiKey", "could not register"),
        (without("BASEOS_CLOUDLY_URL"), "BASEOS_CLOUDLY_URL", "missing"),
        (having(BASEOS_JOIN_TOKEN="bjt_canary"), "BASEOS_JOIN_TOKEN", "two nodes"),
        (without("BASEOS_JOIN_TOKEN"), "BASEOS_JOIN_TOKEN", "missing"),
        (having(applicationId="abc"), "applicationId", "no number"),
        (having(applicationId=True), "applicationId", "no number"),
        (having(deviceType="intel-nuc"), "deviceType", "the image is for pi"),
        (having(appUpdatePollInterval=1000), "appUpdatePollInterval", "not between"),
        (having(vpnEndpoint="v", mixpanelToken="canary"), "left over", "mixpanelToken, vpnEndpoint"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_its_secret_is_not_shown(
    spoil: Callable[[dict[str, Any]], dict[str, Any]], key: str, says: str
) -> None:
    found = bad(spoil(right()))

    assert says in found.pop(key)
    assert found == {}
    assert "canary" not in str(examine(spoil(right()), EXPECTED))


def test_a_token_that_admits_nobody_and_a_ca_that_has_ended_are_found() -> None:
    late = MORNING + timedelta(days=21 * 365)

    used = bad(right(), replace(EXPECTED, token_trouble=lambda _: "is used up"))
    ended = bad(right(), replace(EXPECTED, now=late))
    unknown = examine(right(), replace(EXPECTED, token_trouble=None))

    assert used == {"apiKey": f"fingerprint {fingerprint(TOKEN)}: is used up"}
    assert list(ended) == ["balenaRootCA"]
    assert [one.what for one in unknown if one.verdict == "note"] == ["apiKey"]


def test_a_file_of_a_device_that_runs_is_right_and_says_that_it_is_one_devices() -> None:
    running = without("apiKey")(right()) | {"uuid": "a", "deviceApiKey": "k", "deviceId": 5}

    found = examine(running, EXPECTED)

    assert [one.what for one in found if one.verdict == "note"] == ["apiKey", "registered"]
    assert not [one for one in found if one.verdict == "bad"]
