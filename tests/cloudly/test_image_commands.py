"""`cloudly image` as an operator types it: real processes, real images, and no secret in anything that is printed."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudly.tokens import fingerprint
from tests.cloudly.image_given import STOCK, disk
from tests.cloudly.tls_given import run as process

pytestmark = pytest.mark.slow

URL = "https://cloudly.example:8443"


@dataclass
class Operator:
    """Whoever has a shell beside Cloudly's data directory. Remembers all that was printed."""

    data: Path
    printed: str = ""

    def __call__(self, *words: str, expect: int = 0, stdin: str = "", **env: str) -> str:
        given = {
            "CLOUDLY_DATA_DIR": str(self.data),
            "CLOUDLY_PUBLIC_URL": URL,
            "CLOUDLY_TLS": "self",
        }
        done = process("cloudly", *words, env=given | env, stdin=stdin, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        self.printed += done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *words: str, **options: Any) -> Any:
        said = self(*words, "--json", **options)
        return json.loads(said[said.index("{") if said.lstrip()[:1] != "[" else 0 :])

    def tokens(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("token", "list", "--json"))
        return found


@pytest.fixture
def operator(directory: Path) -> Iterator[Operator]:
    operator = Operator(directory)
    operator("ca", "init")
    yield operator
    assert "bjt_" not in operator.printed.replace("bjt_...", "")
    assert "PRIVATE KEY" not in operator.printed
    assert "canary" not in operator.printed


def test_an_image_is_configured_shown_and_checked(operator: Operator, tmp_path: Path) -> None:
    made = disk(tmp_path / "os.img")
    made.path.chmod(0o600)

    done = operator.json(
        "image", "configure", str(made.path), "--new-token", "--token-name", "shelf"
    )
    shown = operator.json("image", "show", str(made.path))
    checked = operator.json("image", "check", str(made.path))

    config = made.config()
    assert config["apiKey"] == config["BASEOS_JOIN_TOKEN"]
    assert config["wifiKey"] == STOCK["wifiKey"]
    (row,) = operator.tokens()
    assert (row["name"], row["uses_left"], row["state"]) == ("shelf", 1, "usable")
    assert done["join_token"] == {
        "id": row["id"],
        "fingerprint": fingerprint(config["apiKey"]).hex()[:12],
        "new": True,
    }
    assert done["notes"] == []
    assert shown["device_type"] == "raspberrypi4-64"
    assert set(shown["config"]) == set(config)
    assert {one["verdict"] for one in checked["findings"]} == {"ok"}


def test_a_token_of_a_file_or_of_standard_input_is_looked_up_first(
    operator: Operator, tmp_path: Path
) -> None:
    file, secret = tmp_path / "config.json", tmp_path / "token"
    token = process(
        "cloudly", "token", "create", env={"CLOUDLY_DATA_DIR": str(operator.data)}
    ).stdout
    secret.write_text(token)
    configure = ("image", "configure", str(file), "--device-type", "pi", "--join-token-file")

    operator(*configure, str(secret))
    operator(*configure, "-", stdin=token)
    unknown = operator(*configure, "-", stdin="bjt_" + "x" * 43, expect=1)
    garbage = operator(*configure, "-", stdin="canary {", expect=1)
    missing = operator(*configure, str(tmp_path / "none"), expect=1)
    operator("token", "revoke", "1")
    revoked = operator(*configure, "-", stdin=token, expect=1)
    checked = operator("image", "check", str(file), expect=1)

    assert json.loads(file.read_text())["apiKey"] == token.strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "does not know that join token" in unknown
    assert "holds is no join token" in garbage
    assert "No such file" in missing
    assert "join token 1 was revoked" in revoked
    assert "was revoked" in checked
    assert len(operator.tokens()) == 1


@pytest.mark.parametrize(
    ("words", "expect", "says"),
    [
        ((), 2, "either --join-token-file FILE (or -) or --new-token"),
        (("--new-token", "--join-token-file", "x"), 2, "either --join-token-file"),
        (("--new-token", "--poll", "10s"), 2, "is not between 1m and 24h"),
        (("--new-token", "--hostname", "a b"), 2, "--hostname 'a b' is malformed"),
        (("--new-token", "--name", "a\nb"), 2, "is malformed"),
        (("--new-token", "--device-type", "intel-nuc"), 1, "the image is for raspberrypi4-64"),
        (("--new-token", "--fleet", "none"), 1, "there is no fleet 'none'"),
        (("--new-token", "--root-ca", "/none"), 2, "--root-ca (/none) cannot be read"),
        (("--new-token", "--public-url", "cloudly"), 2, "CLOUDLY_PUBLIC_URL is malformed"),
        (("--new-token", "--logs-endpoint", "http://l.example"), 2, "crashes at boot"),
        (("--new-token", "--partition", "7"), 1, "has no FAT partition 7"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_token_is_made_and_the_image_stays(
    operator: Operator, tmp_path: Path, words: tuple[str, ...], expect: int, says: str
) -> None:
    made = disk(tmp_path / "os.img")
    before = made.hashes()

    said = operator("image", "configure", str(made.path), *words, expect=expect)

    assert says in " ".join(said.split())
    assert made.hashes() == before
    assert operator.tokens() == []


def test_plain_http_needs_logs_by_https_or_the_supervisor_crashes(
    operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    configure = ("image", "configure", str(file), "--device-type", "pi", "--new-token")
    plain: dict[str, Any] = {"CLOUDLY_PUBLIC_URL": "http://cloudly.example", "CLOUDLY_TLS": "off"}

    refused = operator(*configure, expect=2, **plain)
    taken = operator(*configure, "--logs-endpoint", "https://logs.example", **plain)

    assert "crashes at boot" in refused
    assert "without TLS: whoever is on the way reads the join token" in taken
    assert json.loads(file.read_text())["logsEndpoint"] == "https://logs.example"
    assert "balenaRootCA" not in json.loads(file.read_text())


def test_a_token_that_was_made_for_what_could_not_be_written_is_revoked(
    operator: Operator, tmp_path: Path
) -> None:
    made = disk(tmp_path / "os.img")
    made.path.chmod(0o444)

    said = operator("image", "configure", str(made.path), "--new-token", expect=1)

    assert "is read-only" in said
    assert [row["state"] for row in operator.tokens()] == ["revoked"]


def test_another_backends_file_is_replaced_only_when_told_to(
    operator: Operator, tmp_path: Path
) -> None:
    theirs = {
        "apiEndpoint": "https://api.other.example",
        "deviceApiKey": "canary",
        "vpnEndpoint": "v",
    }
    made = disk(tmp_path / "os.img", config=theirs)

    refused = operator("image", "configure", str(made.path), "--new-token", expect=1)
    done = operator.json("image", "configure", str(made.path), "--new-token", "--replace")

    assert "it belongs to another backend, at api.other.example" in refused
    assert done["removed"] == ["deviceApiKey", "vpnEndpoint"]
    assert [row["uses_left"] for row in operator.tokens()] == [1]


def test_on_a_laptop_without_the_database_address_ca_and_token_are_given(
    operator: Operator, tmp_path: Path
) -> None:
    made, ca = disk(tmp_path / "os.img"), tmp_path / "ca.pem"
    ca.write_text(operator("ca", "show", "--pem"))
    token = process(
        "cloudly", "token", "create", env={"CLOUDLY_DATA_DIR": str(operator.data)}
    ).stdout
    away: dict[str, Any] = {"CLOUDLY_DATA_DIR": "", "CLOUDLY_PUBLIC_URL": "", "CLOUDLY_TLS": ""}
    configure = ("image", "configure", str(made.path), "--public-url", URL, "--root-ca", str(ca))

    operator(*configure, "--join-token-file", "-", stdin=token, **away)
    no_token = operator(*configure, "--new-token", expect=1, **away)
    checked = operator.json(
        "image", "check", str(made.path), "--public-url", URL, "--root-ca", str(ca), **away
    )
    at_home = operator.json("image", "check", str(made.path))

    assert "where Cloudly's data directory is" in no_token
    notes = [one["what"] for one in checked["findings"] if one["verdict"] != "ok"]
    assert notes == ["apiKey"]
    assert {one["verdict"] for one in at_home["findings"]} == {"ok"}


def test_a_root_ca_must_be_a_root(operator: Operator, tmp_path: Path) -> None:
    leaf = operator.data / "tls/server.pem"
    configure = ("image", "configure", str(tmp_path / "config.json"), "--device-type", "pi")

    said = operator(*configure, "--new-token", "--root-ca", str(leaf), expect=2)

    assert "is a server's certificate and no CA's" in said


def test_what_cannot_be_read_is_said_without_what_stands_in_it(
    operator: Operator, tmp_path: Path
) -> None:
    broken = disk(tmp_path / "os.img", config=b'{"apiKey": "canary-key')

    for command in (("show",), ("check",), ("configure", "--new-token")):
        said = operator("image", command[0], str(broken.path), *command[1:], expect=1)
        assert "is no JSON" in said

    assert broken.read() == b'{"apiKey": "canary-key'
