"""A further CA and the host's config.json as settings: what is taken, what is refused, and that nothing is shown."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path

import pytest

from baserunner.problems import SettingsProblem
from baserunner.settings import read_settings
from baserunner.trust import verification, why_distrusted

URL = "https://cloudly.example"
CANARY = "bjt_canary-canary-canary-canary-canary-canary-1"
PEM = Path(__file__).with_name("a-ca.pem").read_text(encoding="ascii")
"""Of a CA that nobody has the key of any more; ends in 2046."""
ONE_LINE = base64.b64encode(PEM.encode()).decode()


@pytest.mark.parametrize(
    "given", [PEM, ONE_LINE, f" {ONE_LINE}\n"], ids=["PEM", "one line", "spaces"]
)
def test_a_ca_is_taken_as_pem_and_in_one_line_and_comes_on_top_of_the_public_ones(
    given: str,
) -> None:
    settings = read_settings({"BASEOS_CLOUDLY_URL": URL, "BASEOS_CLOUDLY_CA": given})
    public = verification(URL, None)

    context = verification(URL, settings.cloudly_ca)

    assert public is True
    assert isinstance(context, ssl.SSLContext)
    names = [dict(part[0] for part in one["subject"]) for one in context.get_ca_certs()]  # type: ignore[misc]
    assert {"organizationName": "Cloudly", "commonName": "Cloudly CA of cloudly.example"} in names
    assert len(names) > 100
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_ca_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)

    settings = read_settings(
        {"BASEOS_CLOUDLY_URL": URL, "BASEOS_CLOUDLY_CA": str(tmp_path / "ca.pem")}
    )

    assert settings.cloudly_ca == PEM


def test_without_tls_no_certificate_is_loaded() -> None:
    assert verification("http://127.0.0.1:48484", PEM) is False


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (CANARY, "neither PEM nor base64 of PEM"),
        (base64.b64encode(CANARY.encode()).decode(), "holds no PEM certificate"),
        (PEM.replace("MII", "MIJ"), "damaged certificate"),
        (PEM[:300], "damaged certificate"),
        ("/no/such/file", "cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_certificate_is_refused_and_not_shown(given: str, says: str) -> None:
    with pytest.raises(SettingsProblem, match=says) as found:
        read_settings({"BASEOS_CLOUDLY_URL": URL, "BASEOS_CLOUDLY_CA": given})

    assert "BASEOS_CLOUDLY_CA" in str(found.value)
    assert CANARY not in str(found.value)


def config_json(directory: Path, **values: object) -> str:
    file = directory / "config.json"
    file.write_text(json.dumps(values))
    return str(file)


def test_a_mounted_config_json_says_where_cloudly_is_and_a_variable_wins_over_it(
    tmp_path: Path,
) -> None:
    file = config_json(
        tmp_path,
        BASEOS_CLOUDLY_URL=URL,
        BASEOS_JOIN_TOKEN=CANARY,
        balenaRootCA=ONE_LINE,
        apiKey="x",
    )

    alone = read_settings({"BASEOS_CONFIG_JSON": file})
    beside = read_settings(
        {"BASEOS_CONFIG_JSON": file, "BASEOS_CLOUDLY_URL": "https://other.example"}
    )

    assert alone.cloudly_url == URL
    assert alone.join_token is not None
    assert alone.join_token.get_secret_value() == CANARY
    assert alone.cloudly_ca == PEM
    assert beside.cloudly_url == "https://other.example"
    assert CANARY not in repr(alone)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'["{CANARY}"]', "is no JSON object"),
        (f'{{"BASEOS_JOIN_TOKEN": "{CANARY}"', "is no JSON object"),
        (f'{{"BASEOS_JOIN_TOKEN": "{CANARY} !"}}', "BASEOS_JOIN_TOKEN is malformed|CLOUDLY_URL"),
        ('{"BASEOS_JOIN_TOKEN": 5}', "BASEOS_CLOUDLY_URL is missing"),
    ],
)
def test_a_config_json_that_says_nothing_useful_is_named_and_not_shown(
    tmp_path: Path, content: str, says: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)

    with pytest.raises(SettingsProblem, match=says) as found:
        read_settings({"BASEOS_CONFIG_JSON": str(file)})

    assert CANARY not in str(found.value)


def test_a_boot_partition_that_is_not_mounted_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsProblem, match="is the boot partition mounted"):
        read_settings({"BASEOS_CONFIG_JSON": str(tmp_path / "config.json")})


def test_what_is_no_matter_of_trust_is_told_as_before() -> None:
    assert why_distrusted(ConnectionResetError("reset")) is None
    assert why_distrusted(None) is None
